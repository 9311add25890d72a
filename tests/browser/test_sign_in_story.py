"""People at a real OpenID provider, in a browser: into the console, for a command line, and to their own pod."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from accounts.models import AccessToken, User
from accounts.oidc.provider import forget_provider
from accounts.reviews import reviews
from cluster.client import cluster_client
from conftest import ApiClient
from tenants.models import Tenant
from tests.browser.conftest import PATIENCE_MILLISECONDS
from tests.browser.test_console import overflows
from tests.cluster.kube import Kubectl
from tests.cluster.pods import make_account
from tests.oidc.provider import CLIENT_ID, CLIENT_SECRET, running_provider

pytestmark = [
    pytest.mark.browser,
    # The live server's threads may end with their database connection still open, which only the collector notices.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def site(page: Page, live_server: Any, settings: Any, kubectl: Kubectl) -> Iterator[str]:
    """Our address, with a provider behind it; the browser reaches nothing but this machine."""
    page.set_default_timeout(PATIENCE_MILLISECONDS)
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    page.route(lambda url: not url.startswith(("http://localhost:", "http://127.0.0.1:")), lambda route: route.abort())
    with running_provider(f"{live_server.url}/api/v1/auth/callback", f"{live_server.url}/admin/login/") as issuer:
        # Another provider may have had this port before.
        forget_provider()
        settings.OIDC_ISSUER = issuer
        settings.OIDC_RP_CLIENT_ID, settings.OIDC_RP_CLIENT_SECRET = CLIENT_ID, CLIENT_SECRET
        settings.OIDC_SCOPES = "openid email profile groups"
        settings.OIDC_GROUP_ROLES = {"crane-operators": "operator"}
        yield live_server.url


def at_the_provider(page: Page, name: str) -> None:
    """Sign in on the provider's own pages, and let it tell us who that is."""
    page.get_by_placeholder("Enter any login").fill(name)
    page.get_by_placeholder("and password").fill("any")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()


def test_somebody_signs_in_approves_a_device_and_reaches_their_pod(page: Page, site: str) -> None:
    Tenant.objects.create(name="olga", display_name="Olga", email="olga@example.com", ingress_host="olga.example.com")
    make_account("openclaw-olga")

    # A deep link, through the login page and the provider, ends where it leads.
    page.goto(f"{site}/admin/tenants/olga/?tab=sync")
    expect(page.get_by_label("Password")).to_be_visible()
    page.get_by_test_id("oidc").click()
    at_the_provider(page, "olga")
    expect(page).to_have_url(f"{site}/admin/tenants/olga/?tab=sync")
    expect(page.get_by_role("heading", name="olga", exact=True)).to_be_visible()
    user = User.objects.get()
    assert (user.email, user.role, user.oidc_subject) == ("Olga@example.com", "operator", "olga")

    # A command line asks; its person compares, chooses and approves, in the dark.
    device = ApiClient()
    said = device.post("/auth/device", headers={"User-Agent": "crane-cli/1.0"}).json()
    query = {"deviceCode": said["deviceCode"]}
    assert device.get("/auth/device/token", query).status_code == 202
    page.emulate_media(color_scheme="dark")
    page.goto(f"{site}{said['verificationUri']}")
    expect(page.get_by_test_id("user-code")).to_have_text(said["userCode"])
    expect(page.get_by_test_id("agent")).to_have_text("crane-cli/1.0")
    expect(page.get_by_test_id("role")).to_contain_text("operator")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(11, 17, 32)"
    page.set_viewport_size({"width": 400, "height": 800})
    assert not overflows(page)
    page.get_by_label("Role that is granted").select_option("viewer")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("heading", name="Approved")).to_be_visible()
    answer = device.get("/auth/device/token", query)
    assert answer.status_code == 200, answer.content
    me = ApiClient(answer.json()["token"]).get("/auth/me").json()
    assert (me["role"], me["user"]["email"]) == ("viewer", "Olga@example.com")
    assert device.get("/auth/device/token", query).status_code == 410
    assert AccessToken.objects.get().created_by == user

    # A page of the console asks for a token of the person's own pod.
    page.goto(f"{site}/admin/jobs/")
    found = page.evaluate(
        """async () => {
            const token = document.cookie.match(/csrftoken=([^;]+)/)[1];
            const answer = await fetch("/api/v1/auth/pod-token", {method: "POST", headers: {"X-CSRFToken": token}});
            return [answer.status, await answer.json()];
        }"""
    )
    assert (found[0], found[1]["tenant"], found[1]["ingressHost"]) == (200, "olga", "olga.example.com")
    holder = reviews.holder_of(found[1]["token"], frozenset({"openclaw-session"}))
    assert holder is not None
    assert holder.username == f"system:serviceaccount:{cluster_client().namespace}:openclaw-olga"


def test_members_stay_outside_and_unverified_people_stay_strangers(page: Page, site: str) -> None:
    page.goto(f"{site}/admin/")
    page.get_by_test_id("oidc").click()
    at_the_provider(page, "mara")
    expect(page.get_by_text("You are signed in as mara@example.com, with the role member.")).to_be_visible()
    page.goto(f"{site}/admin/tenants/")
    expect(page.get_by_text("You are signed in as mara@example.com")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()

    page.context.clear_cookies()
    page.goto(f"{site}/admin/")
    page.get_by_test_id("oidc").click()
    at_the_provider(page, "newcomer")
    expect(page.get_by_role("heading", name="Your e-mail address is not verified.")).to_be_visible()
    assert not User.objects.filter(email="newcomer@example.com").exists()


def test_who_signs_out_is_asked_again_who_they_are(page: Page, site: str, settings: Any) -> None:
    settings.OIDC_END_SESSION = True
    page.goto(f"{site}/admin/jobs/")
    page.get_by_test_id("oidc").click()
    at_the_provider(page, "olga")
    expect(page).to_have_url(f"{site}/admin/jobs/")
    page.get_by_role("button", name="Account of").click()
    page.get_by_role("button", name="Log out").click()
    # The provider's own page asks whether that is meant, and sends the browser back.
    page.get_by_role("button", name="Yes, sign me out").click()
    expect(page).to_have_url(f"{site}/admin/login/")
    page.get_by_test_id("oidc").click()
    at_the_provider(page, "mara")
    expect(page.get_by_text("You are signed in as mara@example.com")).to_be_visible()
