"""Tenants that really run: what the operator makes of custom resources, on whatever cluster there is.

The operator runs in this process, with threads of its own. Where a cluster runs no containers as the development
cluster seems to, or cannot pull the image, phases beyond Pending are left to it.
"""

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings

import cluster.client as cluster_module
from cluster.client import MERGE_PATCH, ClusterClient, cluster_client
from cluster.resources import (
    ACCESS_POLICIES,
    CILIUM_POLICIES,
    CLUSTER_TENANTS,
    CONFIG_MAPS,
    CRDS,
    DEPLOYMENTS,
    EVENTS,
    INGRESSES,
    LEASES,
    NETWORK_POLICIES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    TENANTS,
    VOLUME_CLAIMS,
    KubeObject,
    Resource,
)
from cluster.tokens import request_token
from tests.cluster.conftest import OwnCluster
from tests.cluster.kube import Kubectl, eventually
from tests.cluster.pods import make_namespace
from workloads import lease, naming, watching
from workloads.lease import Leadership
from workloads.running import Operator

pytestmark = pytest.mark.cluster

NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
SPEC: dict[str, Any] = {"displayName": "Anna", "email": "anna@example.com", "team": "red"}


def host_of(name: str) -> str:
    return f"{name}.{django_settings.INGRESS_DOMAIN}"


class People:
    """What people do with kubectl in the operator's namespace."""

    def __init__(self) -> None:
        self.tenants = Kubectl(TENANTS)
        self.policies = Kubectl(ACCESS_POLICIES)

    def live(self, resource: Resource, name: str, namespace: str | None = None) -> KubeObject | None:
        return cluster_client().get(resource, name, namespace=namespace)

    def there(self, resource: Resource, name: str, namespace: str | None = None) -> KubeObject:
        return eventually(f"{resource.kind} {name} is there", lambda: self.live(resource, name, namespace))

    def status(self, name: str) -> dict[str, Any]:
        return (self.tenants.get(name) or {}).get("status") or {}

    def phase(self, name: str, phase: str) -> dict[str, Any]:
        """Wait for a phase that belongs to the present spec."""

        def reached() -> dict[str, Any] | None:
            live = self.tenants.get(name) or {}
            status = live.get("status") or {}
            is_current = status.get("observedGeneration") == live["metadata"]["generation"]
            return status if is_current and status.get("phase") == phase else None

        found: dict[str, Any] = eventually(f"{name} is {phase}: {self.status(name)}", reached)
        return found

    def says(self, name: str, text: str) -> dict[str, Any]:
        """Wait for an error that says so."""
        eventually(f"{name} says {text}: {self.status(name)}", lambda: text in self.status(name).get("message", ""))
        assert self.status(name)["phase"] == "Error"
        return self.status(name)

    def gone(self, resource: Resource, name: str, namespace: str | None = None) -> None:
        eventually(f"{resource.kind} {name} is gone", lambda: self.live(resource, name, namespace) is None)

    def told(self, name: str, reason: str) -> KubeObject:
        """Wait for the event about a tenant that has this reason: it is written after the status."""
        event: KubeObject = eventually(f"{reason} of {name} is told", lambda: self.events(name).get(reason))
        return event

    def events(self, name: str) -> dict[str, KubeObject]:
        """Events about a tenant, by reason, found as `kubectl describe` finds them."""
        fields = f"involvedObject.kind=Tenant,involvedObject.name={name}"
        pages = cluster_client().list_pages(EVENTS, field_selector=fields)
        return {event["reason"]: event for page, _ in pages for event in page}

    def patch(self, resource: Resource, name: str, body: dict[str, Any], namespace: str | None = None) -> None:
        client = cluster_client()
        path = resource.path(namespace or client.namespace, name)
        status, answer = client.request(
            "PATCH", path, query={"fieldManager": "kubectl-edit"}, body=body, content_type=MERGE_PATCH
        )
        assert status == 200, answer

    def delete(self, resource: Resource, name: str, namespace: str | None = None) -> None:
        client = cluster_client()
        client.request("DELETE", resource.path(namespace or client.namespace, name))


@pytest.fixture(scope="module")
def people(cluster_namespace: str) -> Iterator[People]:
    """An operator at work in a namespace of its own."""
    before = django_settings.NAMESPACE
    domain = django_settings.INGRESS_DOMAIN
    django_settings.NAMESPACE = f"{cluster_namespace}-op"
    # A cluster has each host once.
    django_settings.INGRESS_DOMAIN = f"{django_settings.NAMESPACE}.example.com"
    cluster_module.reset_cluster_client()
    make_namespace(django_settings.NAMESPACE)
    # Streams that are over soon: threads that read them end with the tests.
    seconds, watching.WATCH_SECONDS = watching.WATCH_SECONDS, 5
    operator = Operator(workers=2)
    assert operator.start()
    yield People()
    client = cluster_client()
    client.request("DELETE", TENANTS.path(client.namespace))
    eventually("every tenant is let go", lambda: not Kubectl(TENANTS).names())
    operator.end()
    watching.WATCH_SECONDS = seconds
    django_settings.NAMESPACE, django_settings.INGRESS_DOMAIN = before, domain
    cluster_module.reset_cluster_client()


@pytest.fixture(scope="module")
def runs_anything(people: People) -> bool:
    """Whether pods become ready whatever their image."""
    return people.live(NODES, "development-node") is not None


@pytest.fixture(scope="module")
def has_controllers(people: People) -> bool:
    """Whether anybody looks after Deployments; a bare API server has nobody who does."""
    return any(page for page, _ in cluster_client().list_pages(NODES))


def test_a_tenant_made_with_kubectl_runs_is_suspended_resumed_and_cleaned_up(
    people: People, runs_anything: bool, has_controllers: bool
) -> None:
    made = people.tenants.create("anna", SPEC)
    uid = made["metadata"]["uid"]
    for resource in (SERVICE_ACCOUNTS, CONFIG_MAPS, NETWORK_POLICIES, DEPLOYMENTS, SERVICES, INGRESSES):
        owners = people.there(resource, "openclaw-anna")["metadata"]["ownerReferences"]
        assert [owner["uid"] for owner in owners] == [uid]
    claim, key = f"openclaw-anna-data-{uid}", f"openclaw-anna-key-{uid}"
    people.there(VOLUME_CLAIMS, claim)
    secret = people.there(SECRETS, key)
    if runs_anything:
        status = people.phase("anna", "Running")
        pod = people.there(PODS, status["podName"])
        assert pod["metadata"]["labels"]["opencrane.io/tenant"] == "anna"
        settled = {"Present", "Available", "Bound", "Ready"}
        eventually(
            "all of its objects are settled",
            lambda: {entry["state"] for entry in people.status("anna")["objects"]} <= settled,
        )
    eventually("the host is known", lambda: people.status("anna").get("ingressHost") == host_of("anna"))

    token, _ = request_token(
        namespace=cluster_client().namespace, service_account="openclaw-anna", audience="control-plane", seconds=600
    )
    assert token.count(".") == 2
    if runs_anything:
        ready = people.told("anna", "Running")
        assert (ready["type"], ready["source"]["component"]) == ("Normal", "opencrane-operator")
        assert ready["involvedObject"]["uid"] == uid

        def is_shown() -> bool:
            shown = {(each["reason"], each["object"]) for each in people.status("anna")["events"]}
            return {("Running", "Tenant/anna"), ("Started", f"Pod/{status['podName']}")} <= shown

        eventually("its own and its pod's events are shown", is_shown)

    people.tenants.edit("anna", {"spec": {"suspended": True}})
    eventually("it is scaled to zero", lambda: people.there(DEPLOYMENTS, "openclaw-anna")["spec"]["replicas"] == 0)
    if has_controllers:
        people.phase("anna", "Suspended")
    assert people.live(VOLUME_CLAIMS, claim) is not None
    people.tenants.edit("anna", {"spec": {"suspended": False}})
    if runs_anything:
        people.phase("anna", "Running")
        eventually("what happens again is counted", lambda: people.told("anna", "Running")["count"] == 2)
        assert people.told("anna", "Suspended")["type"] == "Normal"
    assert people.there(SECRETS, key)["data"] == secret["data"]

    people.tenants.delete("anna")
    people.gone(TENANTS, "anna")
    said = people.told("anna", "Deleted")
    assert said["message"] == "Its objects are gone; volume claim and key stay."
    for resource in (DEPLOYMENTS, SERVICES, INGRESSES, CONFIG_MAPS, SERVICE_ACCOUNTS, NETWORK_POLICIES):
        people.gone(resource, "openclaw-anna")
    assert people.there(SECRETS, key)["metadata"]["uid"] == secret["metadata"]["uid"], "data outlives its tenant"
    assert people.live(VOLUME_CLAIMS, claim) is not None

    again = people.tenants.create("anna", SPEC)
    fresh = people.there(SECRETS, f"openclaw-anna-key-{again['metadata']['uid']}")
    assert fresh["data"] != secret["data"], "a new tenant of an old name gets nothing of the old one"


def test_data_is_taken_over_only_when_asked_for_and_purged_only_when_asked_for(people: People) -> None:
    made = people.tenants.create("berta", SPEC)
    uid = made["metadata"]["uid"]
    people.there(DEPLOYMENTS, "openclaw-berta")
    people.tenants.delete("berta")
    people.gone(TENANTS, "berta")
    people.tenants.create("berta", SPEC, annotations={naming.DATA_UID: uid})
    deployment = people.there(DEPLOYMENTS, "openclaw-berta")
    volumes = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == f"openclaw-berta-data-{uid}"
    people.tenants.edit("berta", {"metadata": {"annotations": {naming.PURGE: "true"}}})
    people.tenants.delete("berta")
    people.gone(TENANTS, "berta")
    people.gone(SECRETS, f"openclaw-berta-key-{uid}")
    people.gone(VOLUME_CLAIMS, f"openclaw-berta-data-{uid}")

    people.tenants.create("carla", SPEC, annotations={naming.DATA_UID: uid})
    people.says("carla", "no retained volume claim")
    assert people.live(DEPLOYMENTS, "openclaw-carla") is None


def test_what_is_changed_or_deleted_by_hand_comes_back_and_what_others_add_stays(people: People) -> None:
    people.tenants.create("dora", SPEC)
    service = people.there(SERVICES, "openclaw-dora")
    people.there(INGRESSES, "openclaw-dora")
    people.patch(
        SERVICES,
        "openclaw-dora",
        {"metadata": {"annotations": {"theirs": "stays"}}, "spec": {"selector": {"opencrane.io/tenant": "eve"}}},
    )
    eventually(
        "the selector is back",
        lambda: people.there(SERVICES, "openclaw-dora")["spec"]["selector"] == service["spec"]["selector"],
    )
    assert people.there(SERVICES, "openclaw-dora")["metadata"]["annotations"]["theirs"] == "stays"
    people.patch(DEPLOYMENTS, "openclaw-dora", {"spec": {"replicas": 0}})
    eventually("it is scaled up", lambda: people.there(DEPLOYMENTS, "openclaw-dora")["spec"]["replicas"] == 1)
    policy = people.there(NETWORK_POLICIES, "openclaw-dora")
    people.patch(NETWORK_POLICIES, "openclaw-dora", {"spec": {"ingress": [{}]}})
    eventually(
        "the network is closed again",
        lambda: people.there(NETWORK_POLICIES, "openclaw-dora")["spec"] == policy["spec"],
    )
    config = people.there(CONFIG_MAPS, "openclaw-dora")
    people.delete(CONFIG_MAPS, "openclaw-dora")

    def is_made_again() -> bool:
        live = people.live(CONFIG_MAPS, "openclaw-dora")
        return live is not None and live["metadata"]["uid"] != config["metadata"]["uid"]

    eventually("the configuration is made again", is_made_again)
    assert people.there(CONFIG_MAPS, "openclaw-dora")["data"] == config["data"]


def test_a_changed_policy_is_a_changed_network(people: People, has_controllers: bool) -> None:
    people.policies.create("closed", {"tenantSelector": {"matchTeam": "blue"}, "domains": {"defaultDeny": True}})
    people.tenants.create("elsa", SPEC | {"team": "blue"})
    egress = people.there(NETWORK_POLICIES, "openclaw-elsa")["spec"]["egress"]
    assert {port["port"] for port in egress[0]["ports"]} == {53}
    eventually(
        "the policy is named",
        lambda: people.status("elsa").get("effectivePolicy") == {"name": "closed", "source": "selector"},
    )
    people.policies.edit("closed", {"spec": {"egressRules": [{"cidr": "192.0.2.0/24", "ports": [443]}]}})
    rule = {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 443, "protocol": "TCP"}]}
    eventually(
        "the rule is enforced",
        lambda: rule in people.there(NETWORK_POLICIES, "openclaw-elsa")["spec"]["egress"],
    )
    people.policies.edit("closed", {"spec": {"domains": {"allow": ["api.example.com"], "defaultDeny": True}}})

    def complains() -> bool:
        conditions = {each["type"]: each for each in people.status("elsa")["conditions"]}
        enforced = conditions["PolicyEnforced"]
        return enforced["status"] == "False" and "cannot be let through by name" in enforced["message"]

    if people.live(CRDS, "ciliumnetworkpolicies.cilium.io") is None:
        eventually("the tenant says what is not enforced", complains)
        eventually(
            "so does the policy",
            lambda: (
                "cannot be let through" in (people.policies.get("closed") or {}).get("status", {}).get("message", "")
            ),
        )
    people.policies.create("other", {"tenantSelector": {"matchTeam": "blue"}})
    people.says("elsa", "Several access policies pick this tenant: closed, other.")
    assert people.live(NETWORK_POLICIES, "openclaw-elsa") is not None, "what there is stays closed meanwhile"
    people.tenants.edit("elsa", {"spec": {"suspended": True}})
    eventually("an error does not keep it running", lambda: not people.there(
        DEPLOYMENTS, "openclaw-elsa"
    )["spec"]["replicas"])  # fmt: skip
    people.delete(ACCESS_POLICIES, "other")
    if has_controllers:
        people.phase("elsa", "Suspended")
    people.delete(ACCESS_POLICIES, "closed")
    eventually("the network is open", lambda: "egress" not in people.there(NETWORK_POLICIES, "openclaw-elsa")["spec"])


def test_a_broken_image_is_said_in_a_sentence_and_mended_by_another(people: People, runs_anything: bool) -> None:
    if not runs_anything:
        pytest.skip("only the development cluster knows at once which image is broken")
    people.tenants.create("frida", SPEC | {"openclawImage": "fail:latest"})
    status = people.says("frida", "The image cannot be pulled")
    assert {each["type"]: each for each in status["conditions"]}["Ready"]["reason"] == "ImagePull"
    eventually("the warning is shown", lambda: len(people.status("frida")["events"]) == 2)
    warning = people.told("frida", "ImagePull")
    assert (warning["type"], warning["message"]) == ("Warning", status["message"])
    people.tenants.edit("frida", {"spec": {"openclawImage": "claw:1"}})
    assert "message" not in people.phase("frida", "Running")


def test_a_cluster_tenants_namespace_is_where_it_runs(people: People) -> None:
    customer = f"{cluster_client().namespace[-20:]}-acme".strip("-")
    namespace = f"opencrane-{customer}"
    customers = Kubectl(CLUSTER_TENANTS)
    people.tenants.create("gerda", SPEC | {"clusterTenantRef": customer})
    people.says("gerda", f"There is no cluster tenant named {customer}")
    try:
        spec = {"displayName": "Acme", "isolationTier": "shared", "baseDomain": "acme.example.com"}
        customers.create(customer, spec)
        people.says("gerda", "is not ready")
        make_namespace(namespace)
        customers.set_status(customer, phase="ready", boundNamespace=namespace)
        people.there(DEPLOYMENTS, "openclaw-gerda", namespace)
        assert people.live(DEPLOYMENTS, "openclaw-gerda") is None
        eventually("the host", lambda: people.status("gerda").get("ingressHost") == "gerda.acme.example.com")
        people.tenants.delete("gerda")
        people.gone(TENANTS, "gerda")
        people.gone(DEPLOYMENTS, "openclaw-gerda", namespace)
    finally:
        customers.delete(customer)


def test_what_belongs_to_somebody_else_is_left_alone(people: People) -> None:
    cluster_client().create(
        SERVICES,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "openclaw-hanna"},
            "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80, "targetPort": 1, "name": "x"}]},
        },
        manager="somebody",
    )
    people.tenants.create("hanna", SPEC)
    people.says("hanna", "Service openclaw-hanna is there already and is not this tenant's")
    assert people.there(SERVICES, "openclaw-hanna")["spec"]["selector"] == {"app": "theirs"}


def ingress(name: str, *hosts: str, path: str = "/") -> KubeObject:
    backend = {"service": {"name": "theirs", "port": {"number": 80}}}
    http = {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}
    return {
        "apiVersion": INGRESSES.api_version,
        "kind": INGRESSES.kind,
        "metadata": {"name": name},
        "spec": {"rules": [{"host": host, "http": http} for host in hosts]},
    }


def test_a_host_that_is_taken_is_not_taken_twice(people: People, cluster_namespace: str) -> None:
    elsewhere = f"{cluster_namespace}-else"
    make_namespace(elsewhere)
    client = cluster_client()
    taken = ingress("shop", host_of("jana"), host_of("karla"))
    client.create(INGRESSES, taken, namespace=elsewhere, manager="somebody")
    wide = ingress("wide", host_of("*"))
    challenge = ingress("solver", host_of("karla"), path="/.well-known/acme-challenge/abc")
    for other in (wide, challenge):
        client.create(INGRESSES, other, namespace=elsewhere, manager="somebody")
    people.tenants.create("jana", SPEC)
    status = people.says("jana", f"belongs to Ingress {elsewhere}/shop")
    assert {each["type"]: each for each in status["conditions"]}["Ready"]["reason"] == "HostTaken"
    assert "ingressHost" not in status, "nobody is sent to another's"
    assert people.live(INGRESSES, "openclaw-jana") is None

    # Given up by its owner, it is had at once; what comes later does not take it away.
    people.patch(INGRESSES, "shop", {"spec": {"rules": taken["spec"]["rules"][1:]}}, elsewhere)
    ours = people.there(INGRESSES, "openclaw-jana")
    people.patch(INGRESSES, "shop", {"spec": {"rules": taken["spec"]["rules"]}}, elsewhere)

    def shared() -> dict[str, Any] | None:
        return {each["type"]: each for each in people.status("jana")["conditions"]}.get("HostExclusive")

    message = f"Ingress {elsewhere}/shop claims the host {host_of('jana')} as well."
    assert eventually("it is said", shared)["message"] == message
    assert people.there(INGRESSES, "openclaw-jana")["spec"] == ours["spec"]
    people.delete(INGRESSES, "shop", elsewhere)
    eventually("it has the host for itself", lambda: shared() is None)
    people.tenants.create("karla", SPEC)
    people.there(INGRESSES, "openclaw-karla")

    # An Ingress whose labels were taken away is still the tenant's.
    people.patch(INGRESSES, "openclaw-jana", {"metadata": {"labels": {naming.HOME_LABEL: None}}})
    eventually(
        "the label is back",
        lambda: naming.is_of_tenant(people.there(INGRESSES, "openclaw-jana"), client.namespace),
    )


def test_a_lost_key_is_never_replaced(people: People) -> None:
    made = people.tenants.create("ilse", SPEC)
    key = f"openclaw-ilse-key-{made['metadata']['uid']}"
    secret = people.there(SECRETS, key)
    people.there(VOLUME_CLAIMS, f"openclaw-ilse-data-{made['metadata']['uid']}")
    people.there(INGRESSES, "openclaw-ilse")
    people.delete(SECRETS, key)
    people.says("ilse", "Restore the Secret")
    body = {name: secret[name] for name in ("apiVersion", "kind", "type", "data")}
    metadata = {"name": key, "labels": secret["metadata"]["labels"]}
    cluster_client().create(SECRETS, body | {"metadata": metadata})
    eventually("the restored key will do", lambda: people.status("ilse").get("phase") != "Error")


# -- crashes, and nothing to do ---------------------------------------------------------------------------------------


class KilledError(BaseException):
    """The process ends here."""


class DyingClient(ClusterClient):
    """A client whose process is killed right after it has made some number of writes."""

    def __init__(self, base: ClusterClient, writes: int) -> None:
        super().__init__(base.configuration, base.namespace)
        self.writes = writes
        self.made = 0
        self.thread = threading.get_ident()

    def request(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        answer = super().request(method, path, **options)
        # Another operator of this process may be at work in its own namespace.
        if method != "GET" and threading.get_ident() == self.thread:
            self.made += 1
            if self.made == self.writes:
                raise KilledError
        return answer


def listed(operator: Operator) -> None:
    """Let an operator that works on nothing by itself learn what there is."""
    assert operator.start()


def versions(*without: Resource) -> dict[str, tuple[str, str]]:
    """Uid and version of everything that belongs to a tenant, by kind and name."""
    client = cluster_client()
    found = {}
    for resource in (TENANTS, EVENTS, *naming.CHILDREN):
        if resource.group == "cilium.io" or resource in without:
            continue
        for page, _ in client.list_pages(resource):
            for live in page:
                # Clusters up to 1.23 make a token for every account by themselves.
                is_ours = live.get("type") != "kubernetes.io/service-account-token"
                if resource in (TENANTS, EVENTS) or ("openclaw-" in live["metadata"]["name"] and is_ours):
                    metadata = live["metadata"]
                    found[f"{resource.kind}/{metadata['name']}"] = (metadata["uid"], metadata["resourceVersion"])
    return found


@pytest.fixture
def quiet_namespace(cluster_namespace: str, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubectl]:
    """A namespace in which no operator works but those of the test."""
    settings.NAMESPACE = f"{cluster_namespace}-quiet"
    settings.INGRESS_DOMAIN = f"{settings.NAMESPACE}.example.com"
    monkeypatch.setattr(watching, "WATCH_SECONDS", 2)
    cluster_module.reset_cluster_client()
    make_namespace(settings.NAMESPACE)
    tenants = Kubectl(TENANTS)
    yield tenants
    for name in tenants.names():
        tenants.edit(name, {"metadata": {"finalizers": None}})
        tenants.delete(name)
    monkeypatch.undo()
    cluster_module.reset_cluster_client()


def test_killed_after_every_single_write_it_converges_and_makes_nothing_twice(
    quiet_namespace: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_namespace.create("anna", SPEC)
    base = cluster_client()
    known: dict[str, str] = {}
    deaths = 0
    is_done = False
    while not is_done:
        # Nobody works in the background: the test does, and dies.
        operator = Operator(workers=0)
        listed(operator)
        dying = DyingClient(base, 1)
        monkeypatch.setattr(cluster_module, "_clients", {os.getpid(): dying})
        try:
            operator.reconciler.look_at("anna")
            is_done = dying.made == 0
        except KilledError:
            deaths += 1
        finally:
            monkeypatch.setattr(cluster_module, "_clients", {os.getpid(): base})
            operator.end()
            dying.close()
        uids = {name: uid for name, (uid, _) in versions(EVENTS).items()}
        for name, uid in known.items():
            assert uids.get(name) == uid, f"{name} was made again"
        known = uids
        assert deaths < 40, "it never came to an end"
    assert {name.partition("/")[0] for name in known} == {
        resource.kind for resource in (TENANTS, *naming.CHILDREN) if resource.group != "cilium.io"
    }
    assert len(known) == 9
    assert deaths > 9


def test_looking_again_at_an_unchanged_fleet_writes_nothing(quiet_namespace: Kubectl, runs_anything: bool) -> None:
    for number in range(5):
        quiet_namespace.create(f"t{number}", SPEC | {"resources": {"cpu": "0.5", "memory": "1024Mi"}})
    first = Operator(workers=2)
    assert first.start()

    def settled() -> bool:
        phases = {(quiet_namespace.get(f"t{number}") or {}).get("status", {}).get("phase") for number in range(5)}
        return (phases == {"Running"} if runs_anything else None not in phases) and first.queue.is_idle()

    eventually("all of them run", settled)
    first.end()
    # Elsewhere the cluster's own controllers may go on changing what has a status.
    moving = () if runs_anything else (TENANTS, EVENTS, DEPLOYMENTS, VOLUME_CLAIMS)
    before = versions(*moving)
    second = Operator(workers=2)
    assert second.start()
    eventually("all of them were looked at", second.queue.is_idle)
    second.fleet.look_at_everything()
    eventually("all of them were looked at again", second.queue.is_idle)
    second.end()
    assert versions(*moving) == before


def test_a_cluster_that_goes_away_and_comes_back_finds_the_operator_where_it_was(
    own_cluster: OwnCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "WATCH_SECONDS", 5)
    monkeypatch.setattr(watching, "MAX_DELAY", 0.5)
    people = People()
    operator = Operator(workers=1)
    assert operator.start()
    people.tenants.create("anna", SPEC | {"team": "red"})
    people.there(SERVICES, "openclaw-anna")
    own_cluster.kill()
    own_cluster.start()
    people.tenants.create("berta", SPEC | {"team": "red"})
    people.there(SERVICES, "openclaw-berta")
    people.delete(SERVICES, "openclaw-anna")
    eventually("what was deleted meanwhile is back", lambda: people.live(SERVICES, "openclaw-anna"))
    operator.end()


def test_where_the_cluster_has_cilium_domains_are_let_through_by_name(
    own_cluster: OwnCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "WATCH_SECONDS", 5)
    names = {"kind": CILIUM_POLICIES.kind, "plural": CILIUM_POLICIES.plural}
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v2", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{CILIUM_POLICIES.plural}.{CILIUM_POLICIES.group}"},
        "spec": {"group": CILIUM_POLICIES.group, "scope": "Namespaced", "names": names, "versions": [version]},
    }
    cluster_client().apply(CRDS, definition, force=True)
    people = People()
    operator = Operator(workers=1)
    assert operator.start()
    domains = {"allow": ["api.example.com", "*.bad.example.com"], "deny": ["*.bad.example.com"], "defaultDeny": True}
    people.policies.create("names", {"tenantSelector": {}, "domains": domains})
    people.tenants.create("anna", SPEC)
    spec = people.there(CILIUM_POLICIES, "openclaw-anna")["spec"]
    assert [rule["toFQDNs"] for rule in spec["egress"] if "toFQDNs" in rule] == [[{"matchName": "api.example.com"}]]
    people.there(DEPLOYMENTS, "openclaw-anna")
    conditions = eventually("it has a status", lambda: people.status("anna").get("conditions"))
    assert {each["type"]: each["status"] for each in conditions}["PolicyEnforced"] == "True"
    people.policies.edit("names", {"spec": {"domains": {"defaultDeny": True, "allow": None, "deny": None}}})
    people.gone(CILIUM_POLICIES, "openclaw-anna")
    operator.end()


def test_what_does_not_go_holds_a_tenant_up_and_not_for_ever(quiet_namespace: Kubectl, settings: Any) -> None:
    people = People()
    settings.DELETION_SECONDS = 3
    operator = Operator(workers=1)
    assert operator.start()
    quiet_namespace.create("anna", SPEC)
    people.there(INGRESSES, "openclaw-anna")
    people.patch(INGRESSES, "openclaw-anna", {"metadata": {"finalizers": ["example.com/hold"]}})
    quiet_namespace.delete("anna")
    # Pods may take a moment to go too, and are named meanwhile.
    eventually("it says what it waits for", lambda: "Ingress openclaw-anna" in people.status("anna").get("message", ""))
    people.gone(TENANTS, "anna")
    people.gone(DEPLOYMENTS, "openclaw-anna")
    assert people.live(INGRESSES, "openclaw-anna") is not None
    people.patch(INGRESSES, "openclaw-anna", {"metadata": {"finalizers": None}})
    people.gone(INGRESSES, "openclaw-anna")
    operator.end()


def test_only_one_leads_and_the_other_follows_when_it_dies(
    quiet_namespace: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "DURATION_SECONDS", 2)
    monkeypatch.setattr(lease, "MARGIN_SECONDS", 0.5)
    monkeypatch.setattr(lease, "RETRY_SECONDS", 0.1)
    stop = threading.Event()
    first, second = Leadership("test", "first"), Leadership("test", "second")
    assert first.acquire(stop)
    assert first.is_held()
    began = time.monotonic()
    assert not second._take()
    assert not second.is_held()
    # The first one is killed: it renews nothing. Nobody compares clocks, so the other waits for the duration.
    assert second.acquire(stop)
    assert time.monotonic() - began >= lease.DURATION_SECONDS
    assert not first.is_held(), "it stops writing before the other begins"
    live = cluster_client().get(LEASES, "test")
    assert live is not None
    assert (live["spec"]["holderIdentity"], live["spec"]["leaseTransitions"]) == ("second", 1)
    # One that is stopped lets the other in at once.
    second.release()
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    assert first.acquire(stop)
    keeper = threading.Thread(target=first.keep)
    keeper.start()
    first.release()
    keeper.join(10)
    assert not keeper.is_alive(), "nothing renews what was given back"
    assert (cluster_client().get(LEASES, "test") or {})["spec"]["holderIdentity"] == ""
