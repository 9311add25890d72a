"""Secrets that are unique are put wherever they can enter; then everything that can be read is searched for them.

What nobody may read stands in `SECRETS`. A new kind of secret gets a line in `plant`; new routes, pages, tables and log
lines are searched without anybody having to think of it.
"""

import base64
import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from structlog.stdlib import ProcessorFormatter

from accounts.models import Role, User
from budgets.tests.litellm_server import FakeLitellm
from cluster.client import cluster_client
from cluster.secrets import delete_secret, secret_data
from conftest import ApiClient, issue
from mcpservers.models import McpServer
from opencrane.addresses import parse_networks
from operations import dns, sealing
from operations.models import AuditEntry, Job, Webhook
from tests.roles.routes import UNSAFE, Route, all_routes

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.cluster]

_MARK = "c4n4ry"
ISSUER = "planted-issuer"
FIELDS = ("apiKey", "apiToken", "clientSecret", "credential", "masterKey", "password", "secret", "token")


def canary(name: str, form: str = "{}") -> str:
    return form.format(f"{_MARK}{name}0123456789abcdef")


@pytest.fixture
def logs() -> Iterator[io.StringIO]:
    """Every line that the product would write at the lowest level, as it would write it."""
    root = logging.getLogger()
    formatter = next(each.formatter for each in root.handlers if isinstance(each.formatter, ProcessorFormatter))
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(formatter)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.fixture
def secrets(settings: Any, cluster_namespace: str, logs: io.StringIO) -> Iterator[dict[str, str]]:
    """What was planted, by what it is."""
    settings.OUTBOUND_ALLOW = parse_networks(["127.0.0.0/8"])
    with FakeLitellm() as litellm:
        # The one that this LiteLLM takes; it is as good a canary as any.
        from budgets.tests.litellm_server import MASTER_KEY

        settings.LITELLM_ENDPOINT, settings.LITELLM_MASTER_KEY = litellm.url, MASTER_KEY
        yield plant(settings) | {"LiteLLM's master key": MASTER_KEY}
    client = cluster_client()
    client.request("DELETE", dns.RESOURCES[dns.ISSUER].path(client.namespace, ISSUER))
    delete_secret(name="opencrane-dns01-digitalocean")


def plant(settings: Any) -> dict[str, str]:
    """Put a secret of its own into everything that takes one. Returns them all, by what they are."""
    static = canary("static")
    settings.API_TOKEN = static
    for name in ("CLUSTER_PROVISIONER_TOKEN", "DRIFT_WEBHOOK_SECRET", "SKILL_OCI_PASSWORD", "OIDC_RP_CLIENT_SECRET"):
        setattr(settings, name, canary(name.lower()))
    # Nobody listens there: signing in fails, and says so.
    settings.OIDC_ISSUER, settings.OIDC_RP_CLIENT_ID = "http://127.0.0.1:9", "opencrane"
    found = {
        "the static token": static,
        "the provisioner's token": settings.CLUSTER_PROVISIONER_TOKEN,
        "the drift webhook's secret": settings.DRIFT_WEBHOOK_SECRET,
        "the OpenID client's secret": settings.OIDC_RP_CLIENT_SECRET,
        "the OCI store's password": settings.SKILL_OCI_PASSWORD,
        "the secret key": settings.SECRET_KEY,
        "an encryption key": base64.urlsafe_b64encode(settings.ENCRYPTION_KEYS[0]).decode().rstrip("="),
        "the database's password": str(connection.settings_dict["PASSWORD"]),
        "the broker's password": re.sub(r".*:([^@/]+)@.*", r"\1", settings.REDIS_URL),
    }
    api = ApiClient(static)
    found["an access token"] = issue(Role.OPERATOR, name="planted")
    assert ApiClient(found["an access token"]).get("/tenants").status_code == 200

    token = api.post("/access-tokens", {"name": "planted by the API", "role": "viewer"})
    assert token.status_code == 201, token.content
    found["an access token of the API"] = token.json()["plainTextToken"]
    device = ApiClient().post("/auth/device")
    assert device.status_code in {200, 201}, device.content
    found["a device code"] = device.json()["deviceCode"]

    found["a password"] = canary("password")
    User.objects.create_user("eva", "eva@example.com", found["a password"], role=Role.ADMIN)
    browser = Client()
    assert browser.post("/admin/login/", {"username": "eva", "password": found["a password"]}).status_code == 302
    found["a session"] = browser.cookies["sessionid"].value
    found["a wrong password"] = canary("wrong")
    browser.post("/admin/login/", {"username": "eva", "password": found["a wrong password"]})

    found["a provider's key"] = canary("provider", "sk-{}")
    assert api.put("/providers/keys/openai", {"apiKey": found["a provider's key"]}).status_code in {200, 201}

    found["a webhook's secret"] = canary("webhook", "plain-{}")
    hook = {"name": "planted", "url": "http://127.0.0.1:9/hook", "events": ["job.failed"]}
    made = api.post("/webhooks", hook | {"secret": found["a webhook's secret"]})
    assert made.status_code == 201, made.content
    renewed = api.post(f"/webhooks/{made.json()['id']}/secret")
    assert renewed.status_code == 200, renewed.content
    found["a webhook's new secret"] = renewed.json()["secret"]

    found["the DNS provider's token"] = canary("dns", "dop_v1_{}")
    settings.PLATFORM_DNS_ISSUER_KIND = dns.ISSUER
    issuer = {"provider": "digitalocean", "zone": "agents.example.com", "email": "ops@example.com"}
    issuer |= {"issuerName": ISSUER}
    configured = api.put("/platform/dns", issuer | {"apiToken": found["the DNS provider's token"]})
    assert configured.status_code == 200, configured.content

    found["a credential in place of its reference"] = canary("credential", "sk-{}")
    server = {"name": "planted", "endpoint": "https://mcp.example.com", "transport": "streamable-http"}
    created = api.post("/mcp-servers", server)
    assert created.status_code == 201, created.content
    pasted = {"secretRef": found["a credential in place of its reference"]}
    assert api.post(f"/mcp-servers/{created.json()['id']}/credentials", pasted).status_code == 400

    tenant = {"name": "planted", "displayName": "Planted", "email": "eva@example.com", "monthlyBudgetUsd": 10}
    assert api.post("/tenants", tenant).status_code == 201
    assert api.post("/policies", {"name": "planted"}).status_code == 201
    assert api.post("/groups", {"name": "planted"}).status_code == 201
    from budgets.services import key_sweep

    key_sweep.sweep_keys()
    virtual = secret_data(name="openclaw-planted-litellm-key")
    assert virtual is not None, "LiteLLM gave no key"
    found["a tenant's LiteLLM key"] = virtual["api-key"]

    # A caller's own fault, and still not to be seen where more people look than at the tenant.
    found["a password in a tenant's settings"] = canary("overrides")
    overrides = {"configOverrides": {"apiKey": found["a password in a tenant's settings"]}}
    assert api.put("/tenants/planted", overrides).status_code == 200

    found["a bad token"] = canary("bad", "ocp_{}")
    assert ApiClient(found["a bad token"]).get("/tenants").status_code == 401
    for text in found.values():
        assert len(text) >= 12, found
    return found


def samples() -> dict[str, str]:
    """What stands for a path's parameter, so that routes lead to what was planted."""
    job, server, hook = Job.objects.order_by("-created_at").first(), McpServer.objects.get(), Webhook.objects.get()
    assert job is not None
    return {
        "name": "planted",
        "tenant": "planted",
        "tenantName": "planted",
        "provider": "openai",
        "job_id": str(job.pk),
        "server_id": str(server.pk),
        "webhook_id": str(hook.pk),
        "entry_id": str(AuditEntry.objects.order_by("-id").values_list("pk", flat=True)[0]),
        "object_id": str(User.objects.get(username="eva").pk),
        "id": str(User.objects.get(username="eva").pk),
        "kind": "Tenant",
    }


def address(route: Route, values: dict[str, str]) -> str:
    text = route.pattern
    if "mcp-servers" in text:
        values = values | {"id": values["server_id"]}
    elif "webhooks" in text:
        values = values | {"id": values["webhook_id"]}
    elif "jobs" in text:
        values = values | {"id": values["job_id"]}
    filled = re.sub(r"<(?:\w+:)?(\w+)>", lambda match: values.get(match[1], match[0]), text)
    return Route(route.method, filled, "", "").path


def content(response: Any) -> str:
    body = b"".join(response.streaming_content) if response.streaming else response.content
    return body.decode("utf-8", "replace") + str(dict(response.headers))


def rows() -> Iterator[tuple[str, str]]:
    """Every row of every table, as text; bytes as hexadecimal digits."""
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT t::text FROM "{table}" AS t')  # noqa: S608
            for (text,) in cursor.fetchall():
                yield table, text


def test_no_secret_is_ever_shown(secrets: dict[str, str], logs: io.StringIO) -> None:
    api = ApiClient(secrets["the static token"])
    browser = Client()
    browser.force_login(User.objects.get(username="eva"))
    started = api.post("/audit/export", None)
    assert started.status_code == 202
    sealing.seal_entries()
    leaks: list[str] = []

    def look(where: str, text: str, *, but: tuple[str, ...] = ()) -> None:
        leaks.extend(f"{what}: {where}" for what, secret in secrets.items() if secret in text and what not in but)

    # A tenant's settings are shown to those who may see the tenant.
    overrides = ("a password in a tenant's settings",)
    own = re.compile(r"tenants|tenant|contract|drift|export")
    seen = 0
    values = samples()
    for route in all_routes():
        path = address(route, values)
        own_cookie = () if "/api/" in path else ("a session",)
        but = (overrides if own.search(path) and "audit" not in path else ()) + own_cookie
        if route.method == "GET":
            client = api if route.kind in {"api", "public", "internal"} or path in {"/metrics", "/prom"} else browser
            response: Any = client.get(path)
            seen += response.status_code == 200
            look(f"GET {path}", content(response), but=but)
    assert seen > 60, "most routes have something to show"

    # Refusals repeat nothing of what was sent.
    echo = secrets["what is sent and refused"] = canary("echo")
    for route in all_routes():
        if route.method in UNSAFE and route.kind in {"api", "public"}:
            refused = api.generic(
                route.method,
                re.sub(r"/(?:planted|openai)\b", "/nobody", address(route, {**values, "name": "nobody"})),
                json.dumps(dict.fromkeys(FIELDS, echo) | {"secretRef": f"sk-{echo}", "nothing": {"token": echo}}),
                "application/json",
            )
            look(f"{route.method} {route.pattern}", content(refused))

    file = api.get(f"/jobs/{started.json()['id']}/file")
    look("the export", content(file))
    for entry in AuditEntry.objects.values():
        look(f"audit entry {entry['action']}", str(entry))
        look(f"page of audit entry {entry['action']}", content(browser.get(f"/admin/audit/{entry['id']}/")))
    for job in Job.objects.values():
        look(f"job {job['kind']}", str(job))
    for table, text in rows():
        kept = ("a session",) if table == "django_session" else ()
        look(f"a row of {table}", text, but=overrides + kept)
        for what, secret in secrets.items():
            if secret.encode().hex() in text:
                leaks.append(f"{what}: bytes in {table}")
    # Where a secret is by right, the same means find it: the search is not blind.
    assert secrets["a password in a tenant's settings"] in content(api.get("/tenants/planted"))
    everything = list(rows())
    assert any(secrets["a session"] in text for table, text in everything if table == "django_session")
    assert any("oc1." in text for table, text in everything if table == "budgets_providerkey")
    lines = logs.getvalue()
    assert "audit sealed" in lines, "the log was looked at"
    look("the log", lines)
    assert leaks == [], "\n".join(sorted(set(leaks)))
