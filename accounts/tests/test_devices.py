"""The device grant (RFC 8628), over HTTP, from both sides."""

import datetime
import re
import threading
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import AccessToken, DeviceGrant, Role, User
from accounts.services import cleanup
from accounts.tests.people import PAGE, Browser
from conftest import ApiClient
from operations.models import AuditEntry

pytestmark = pytest.mark.django_db

FORM = "application/x-www-form-urlencoded"


@pytest.fixture(autouse=True)
def no_limit(settings: Any) -> None:
    """These tests ask for more codes in a minute than an address may."""
    settings.RATE_LIMIT_DEVICE = 0


class Device:
    """A command line that asks for a token."""

    def __init__(self, **options: Any) -> None:
        self.client = ApiClient(**options)
        answer = self.client.post("/auth/device", headers={"User-Agent": "crane-cli/1.0 <b>"}, REMOTE_ADDR="192.0.2.9")
        assert answer.status_code == 200, answer.content
        self.said = answer.json()

    def poll(self) -> tuple[int, Any]:
        answer = self.client.get("/auth/device/token", {"deviceCode": self.said["deviceCode"]})
        return answer.status_code, answer.json()

    def wait(self) -> None:
        """As if the interval had gone by."""
        past = timezone.now() - datetime.timedelta(seconds=self.said["interval"])
        DeviceGrant.objects.filter(polled_at__isnull=False).update(polled_at=past)


def test_a_device_gets_a_token_that_a_person_approved() -> None:
    device = Device()
    said = device.said
    assert re.fullmatch(r"[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}", said["userCode"])
    assert said["verificationUri"].startswith("/api/v1/")
    assert (said["expiresIn"], said["interval"]) == (300, 5)
    assert device.poll() == (202, {"status": "pending"})

    browser = Browser(username="olga")
    page = browser.open(said["verificationUri"])
    for shown in (said["userCode"], "192.0.2.9", "crane-cli/1.0 &lt;b&gt;", "olga@example.com", "operator"):
        assert shown in page
    assert DeviceGrant.objects.get().state == "pending", "opening the page approved it"
    done = browser.press(page, "approve")
    assert done.status_code == 200
    assert "Approved" in done.content.decode()
    assert not AccessToken.objects.exists(), "a token waits in the database"

    device.wait()
    status, body = device.poll()
    assert (status, body["status"]) == (200, "authorized")
    me = ApiClient(body["token"]).get("/auth/me").json()
    assert (me["role"], me["user"]["email"]) == ("operator", "olga@example.com")
    token = AccessToken.objects.get()
    assert (token.created_by_name, token.owner, token.role) == ("olga", "olga@example.com", "operator")
    assert token.expires_at is not None
    status, body = device.poll()
    assert (status, body["code"], body["status"]) == (410, "DEVICE_GRANT_EXPIRED", "expired")
    assert AccessToken.objects.count() == 1
    assert [(each.action, each.actor_name) for each in AuditEntry.objects.order_by("id")] == [
        ("device_grant.approved", "olga"),
        ("access_token.created", "olga"),
    ]


def test_codes_are_kept_as_digests_only() -> None:
    said = Device().said
    stored = str(DeviceGrant.objects.values().get())
    assert said["deviceCode"] not in stored
    assert said["userCode"] not in stored
    assert said["userCode"].replace("-", "") not in stored


def test_a_refused_device_learns_that_it_is_over() -> None:
    device = Device()
    browser = Browser()
    assert "Refused" in browser.press(browser.open(device.said["verificationUri"]), "deny").content.decode()
    status, body = device.poll()
    assert (status, body["code"], body["status"], body["detail"]) == (
        410,
        "DEVICE_GRANT_EXPIRED",
        "expired",
        "access_denied",
    )
    assert not AccessToken.objects.exists()
    assert AuditEntry.objects.get().action == "device_grant.denied"


def test_polling_too_fast_is_told_and_the_first_poll_never_is() -> None:
    device = Device()
    assert device.poll()[0] == 202
    answer = device.client.get("/auth/device/token", {"deviceCode": device.said["deviceCode"]})
    assert (answer.status_code, answer.json()["code"], answer.json()["status"]) == (429, "RATE_LIMITED", "slow_down")
    assert 1 <= int(answer["Retry-After"]) <= 6
    device.wait()
    assert device.poll()[0] == 202


def test_a_grant_ends_after_five_minutes_for_both_sides() -> None:
    device = Device()
    browser = Browser()
    page = browser.open(device.said["verificationUri"])
    left = DeviceGrant.objects.get().expires_at - timezone.now()
    assert datetime.timedelta(seconds=280) < left <= datetime.timedelta(seconds=300)
    DeviceGrant.objects.update(expires_at=timezone.now())
    assert browser.press(page, "approve").status_code == 404
    assert browser.get(device.said["verificationUri"]).json()["code"] == "DEVICE_CODE_NOT_FOUND"
    assert device.poll()[0] == 410


def test_an_approval_that_nobody_fetches_ends_too() -> None:
    device = Device()
    browser = Browser()
    browser.press(browser.open(device.said["verificationUri"]), "approve")
    DeviceGrant.objects.update(expires_at=timezone.now())
    assert device.poll()[0] == 410
    assert not AccessToken.objects.exists()


@pytest.mark.parametrize("code", ["unknown", "x" * 5000, "é\ud800".encode("utf-8", "surrogatepass").decode("latin-1")])
def test_an_unknown_device_code_is_a_410(anonymous_api: ApiClient, code: str) -> None:
    answer = anonymous_api.get("/auth/device/token", {"deviceCode": code})
    assert (answer.status_code, answer.json()["status"]) == (410, "expired")


def test_a_head_request_does_not_use_the_token_up() -> None:
    device = Device()
    browser = Browser()
    browser.press(browser.open(device.said["verificationUri"]), "approve")
    query = {"deviceCode": device.said["deviceCode"]}
    assert device.client.head("/auth/device/token", query).status_code == 405
    assert device.poll()[0] == 200


def test_no_device_code_is_a_400(anonymous_api: ApiClient) -> None:
    answer = anonymous_api.get("/auth/device/token")
    assert (answer.status_code, list(answer.json()["fields"])) == (400, ["deviceCode"])


def test_a_code_may_be_typed_in_any_way() -> None:
    device = Device()
    browser = Browser()
    page = browser.open("/api/v1/auth/device/activate")
    assert 'name="userCode"' in page
    typed = device.said["userCode"].replace("-", " ").lower()
    assert device.said["userCode"] in browser.open(f"/api/v1/auth/device/activate?userCode={typed}")


@pytest.mark.parametrize("code", ["BBBB-BBBB", "nonsense", "0000-0000", "<script>"])
def test_a_code_that_nobody_waits_under_is_a_404(code: str) -> None:
    Device()
    answer = Browser().get("/api/v1/auth/device/activate", {"userCode": code})
    assert (answer.status_code, answer.json()["code"]) == (404, "DEVICE_CODE_NOT_FOUND")
    page = Browser(Role.ADMIN).get("/api/v1/auth/device/activate", {"userCode": code}, headers=PAGE)
    assert (page.status_code, page["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert code not in page.content.decode() or code == "nonsense"


def test_without_a_session_the_browser_signs_in_first_and_comes_back(settings: Any, anonymous_api: ApiClient) -> None:
    uri = Device().said["verificationUri"]
    answer = anonymous_api.get(uri)
    assert answer.status_code == 302
    assert answer["Location"].startswith("/admin/login/?next=%2Fapi%2Fv1%2Fauth%2Fdevice%2Factivate%3FuserCode%3D")
    settings.OIDC_ISSUER = "https://id.example.com"
    assert anonymous_api.get(uri)["Location"].startswith(
        "/api/v1/auth/login?returnTo=%2Fapi%2Fv1%2Fauth%2Fdevice%2Factivate%3FuserCode%3D"
    )
    # The same for codes that nobody was given: without a session nothing is told.
    assert anonymous_api.get("/auth/device/activate?userCode=BBBB-BBBB").status_code == 302


def test_a_token_is_no_session(api: ApiClient) -> None:
    uri = Device().said["verificationUri"]
    assert api.get(uri).status_code == 302
    form = {"userCode": uri.rpartition("=")[2], "decision": "approve"}
    assert api.post("/auth/device/activate", urlencode(form), FORM).status_code == 302
    assert DeviceGrant.objects.get().state == "pending"


def test_a_link_or_another_site_approves_nothing() -> None:
    device = Device()
    browser = Browser()
    page = browser.open(device.said["verificationUri"])
    code = device.said["userCode"]
    browser.get("/api/v1/auth/device/activate", {"userCode": code, "decision": "approve"})
    for form in ({}, {"csrfmiddlewaretoken": "x" * 64}):
        answer = browser.post("/api/v1/auth/device/activate", {"userCode": code, "decision": "approve", **form})
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    assert DeviceGrant.objects.get().state == "pending"
    assert browser.press(page, "approve").status_code == 200


def test_the_page_is_in_nobodys_frame_and_loads_nothing_of_others() -> None:
    browser = Browser()
    answer = browser.get(Device().said["verificationUri"], headers=PAGE)
    assert answer["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in answer["Content-Security-Policy"]
    assert "script-src" not in answer["Content-Security-Policy"]
    assert answer["Cache-Control"] == "no-store"


def test_a_person_can_give_less_than_they_have_and_never_more() -> None:
    device = Device()
    browser = Browser(Role.OPERATOR)
    page = browser.open(device.said["verificationUri"])
    assert browser.press(page, "approve", role="admin").status_code == 403
    assert browser.press(page, "approve", role="root").status_code == 400
    assert browser.press(page, "later").status_code == 400
    assert browser.press(page, "approve", role="viewer").status_code == 200
    assert ApiClient(device.poll()[1]["token"]).get("/auth/me").json()["role"] == "viewer"


def test_the_role_is_never_more_than_the_persons_is_when_the_token_is_made() -> None:
    device = Device()
    browser = Browser(Role.ADMIN)
    browser.press(browser.open(device.said["verificationUri"]), "approve")
    User.objects.update(role=Role.VIEWER)
    token = device.poll()[1]["token"]
    User.objects.update(role=Role.ADMIN)
    assert ApiClient(token).get("/auth/me").json()["role"] == "viewer"


def test_a_person_who_is_switched_off_meanwhile_gives_nothing() -> None:
    device = Device()
    browser = Browser(Role.ADMIN)
    browser.press(browser.open(device.said["verificationUri"]), "approve")
    User.objects.update(is_active=False)
    assert device.poll()[0] == 410
    assert not AccessToken.objects.exists()


def test_device_codes_are_limited_by_address(settings: Any) -> None:
    settings.RATE_LIMIT_DEVICE = 2
    client = ApiClient()
    address = f"2001:db8:{timezone.now().microsecond % 65536:x}:1::1"
    answers = [client.post("/auth/device", REMOTE_ADDR=address) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "Retry-After" in answers[2]
    assert client.post("/auth/device", REMOTE_ADDR="192.0.2.77").status_code == 200


def test_what_has_ended_is_dropped_an_hour_later() -> None:
    Device()
    Device()
    ended = timezone.now() - datetime.timedelta(minutes=61)
    DeviceGrant.objects.filter(pk=DeviceGrant.objects.order_by("pk")[0].pk).update(expires_at=ended)
    cleanup.purge_expired()
    assert DeviceGrant.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_polls_at_once_one_gets_the_token() -> None:
    device = Device()
    browser = Browser()
    browser.press(browser.open(device.said["verificationUri"]), "approve")
    barrier = threading.Barrier(4)
    found: list[int] = []

    def poll() -> None:
        client = ApiClient()
        barrier.wait(30)
        found.append(client.get("/auth/device/token", {"deviceCode": device.said["deviceCode"]}).status_code)
        connection.close()

    threads = [threading.Thread(target=poll) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200, 410, 410, 410]
    assert AccessToken.objects.count() == 1
