"""A real browser at a real server: chromium as the machine has it, tasks run as they are sent."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.signals import request_finished
from playwright.sync_api import Browser, Page, expect, sync_playwright

from accounts.models import Role
from accounts.tests.people import PASSWORD, person
from cluster.client import cluster_client
from cluster.locks import close_lock_connection
from cluster.resources import TENANTS
from tests.cluster.kube import Kubectl

# Playwright's synchronous API runs an event loop in this thread, which Django takes for asynchronous code.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "1")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Generous, because several test processes may share two cores; waiting ends as soon as the condition holds.
PATIENCE_MILLISECONDS = 30_000


# Not for the session: while Playwright is at work its event loop runs in this thread, and other tests need one too.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        yield context.new_page()


@pytest.fixture
def kubectl(transactional_db: None, cluster_namespace: str) -> Kubectl:
    """Somebody else at the cluster, in a namespace without tenants."""
    client = cluster_client()
    client.request("DELETE", TENANTS.path(client.namespace))
    return Kubectl()


@pytest.fixture(autouse=True)
def no_locks_left() -> Iterator[None]:
    """Tasks run in the server's threads here, which end with their requests; a worker's keeps its lock connection."""

    def close(**_: Any) -> None:
        close_lock_connection()

    request_finished.connect(close, weak=False)
    yield
    request_finished.disconnect(close)


@pytest.fixture
def console(page: Page, live_server: Any, kubectl: Kubectl) -> Iterator[Page]:
    """The console, signed in as an administrator. Ends with a look at what the browser had to complain about."""
    complaints: list[str] = []
    page.on("console", lambda message: _note_error(message.type, message.text, complaints))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: _note_stranger(request.url, live_server.url, complaints))
    page.set_default_timeout(PATIENCE_MILLISECONDS)
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    user = person(Role.ADMIN, "ines")
    page.goto(f"{live_server.url}/admin/")
    page.get_by_label("Username").fill(user.username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Fleet at a glance")).to_be_visible()
    yield page
    assert complaints == []


def _note_error(kind: str, text: str, complaints: list[str]) -> None:
    # A form that comes back with errors is a 400, which the browser notes as well.
    if kind == "error" and "400 (Bad Request)" not in text:
        complaints.append(text)


def _note_stranger(url: str, ours: str, complaints: list[str]) -> None:
    if not url.startswith((ours, "data:", "blob:")):
        complaints.append(f"asked another host for {url}")
