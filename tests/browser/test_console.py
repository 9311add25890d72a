"""What an operator does in the console, in a browser."""

import datetime
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from budgets.services.usage import Usage, record_usage
from opencrane.actor import SYSTEM
from operations.models import AuditEntry, ServerSample
from tenants.models import Tenant
from tenants.services import lifecycle
from tests.cluster.kube import Kubectl

pytestmark = [pytest.mark.browser]

LONGEST = "anna-with-the-longest-name-that-there-is".ljust(53, "e")
FOCUSED = "(e => (e.getAttribute('aria-label') || e.innerText || '').trim())(document.activeElement)"


def make(*names: str) -> None:
    for name in names:
        values = {"displayName": name.title(), "email": f"{name}@example.com", "team": "red"}
        lifecycle.create_tenant(name=name, values=values, actor=SYSTEM)


def overflows(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


def test_a_tenant_is_made_found_suspended_and_deleted(console: Page, live_server: Any, kubectl: Kubectl) -> None:
    console.get_by_role("link", name="New tenant").click()
    console.locator("#f-name").fill("Anna")
    console.get_by_label("Display name").fill("Anna Arden")
    console.get_by_label("E-mail").fill("anna@example.com")
    console.get_by_label("Config overrides").fill("model:\n  default: small")
    console.get_by_role("button", name="Create tenant").click()
    expect(console.get_by_text("Has to be lower-case letters")).to_be_visible()
    expect(console.get_by_label("Config overrides")).to_have_value("model:\n  default: small")
    console.locator("#f-name").fill("anna")
    console.get_by_role("button", name="Create tenant").click()
    expect(console.get_by_text("Tenant anna is in the cluster.")).to_be_visible()
    assert kubectl.spec("anna")["configOverrides"] == {"model": {"default": "small"}}

    console.goto(f"{live_server.url}/admin/tenants/")
    console.get_by_role("searchbox").fill("arden")
    console.get_by_role("searchbox").press("Enter")
    console.get_by_role("link", name="anna", exact=True).click()

    console.get_by_role("button", name="Suspend").click()
    dialog = console.get_by_role("dialog")
    expect(dialog).to_contain_text("Suspend tenant anna?")
    dialog.get_by_label("Reason").fill("on leave")
    dialog.get_by_role("button", name="Suspend anna").click()
    expect(console.get_by_text("Tenant anna is suspended.")).to_be_visible()
    expect(console.locator("#tenant-header").get_by_text("Suspended")).to_be_visible()
    assert kubectl.spec("anna")["suspended"] is True

    console.get_by_role("button", name="Delete").click()
    button = console.get_by_role("button", name="Delete anna")
    expect(button).to_be_disabled()
    console.get_by_label("Type anna to confirm").fill("anna")
    button.click()
    expect(console.get_by_text("Tenant anna is deleted.")).to_be_visible()
    assert not Tenant.objects.exists()
    assert AuditEntry.objects.filter(message__contains="on leave", actor_name="ines").exists()


def test_drift_is_shown_field_by_field_and_repaired(console: Page, live_server: Any, kubectl: Kubectl) -> None:
    make("anna", "bert")
    kubectl.edit("anna", {"spec": {"team": "green"}})
    kubectl.edit("bert", {"spec": {"team": "blue"}})
    console.goto(f"{live_server.url}/admin/drift/Tenant/")
    console.get_by_role("button", name="Check now").click()
    finding = console.get_by_role("article", name="anna")
    expect(finding.get_by_role("row", name="team")).to_contain_text("green")
    expect(finding.get_by_role("row", name="team")).to_contain_text("red")
    expect(console.get_by_role("button", name="Preview repair of selected")).to_be_disabled()
    finding.get_by_role("checkbox").check()
    console.get_by_role("button", name="Preview repair of selected").click()
    expect(console.get_by_role("heading", name="Repair would change 1 row")).to_be_visible()
    assert Tenant.objects.get(name="anna").team == "red"
    console.get_by_role("button", name="Repair 1 row").click()
    expect(console.get_by_text("Succeeded")).to_be_visible()
    expect(console.get_by_role("row", name="anna")).to_contain_text("updated")
    assert dict(Tenant.objects.values_list("name", "team")) == {"anna": "green", "bert": "red"}


def test_many_are_suspended_at_once(console: Page, live_server: Any, kubectl: Kubectl) -> None:
    make("anna", "bert", "carl")
    console.goto(f"{live_server.url}/admin/tenants/")
    expect(console.get_by_role("button", name="Suspend…")).to_be_disabled()
    console.get_by_label("Select all on this page").check()
    console.get_by_label("Select carl").uncheck()
    expect(console.get_by_text("2 selected")).to_be_visible()
    console.get_by_role("button", name="Suspend…").click()
    expect(console.get_by_test_id("names")).to_have_text("anna, bert")
    console.get_by_role("button", name="Suspend 2 tenants").click()
    expect(console.get_by_text("Succeeded")).to_be_visible()
    expect(console.get_by_text("2 of 2 done")).to_be_visible()
    assert dict(Tenant.objects.values_list("name", "suspended")) == {"anna": True, "bert": True, "carl": False}


def test_the_first_tab_leads_past_the_navigation(console: Page, live_server: Any) -> None:
    console.goto(f"{live_server.url}/admin/health/")
    skip = console.get_by_role("link", name="Skip to content")
    expect(skip).not_to_be_in_viewport()
    console.keyboard.press("Tab")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    console.keyboard.press("Enter")
    expect(console.get_by_role("main")).to_be_focused()


def test_the_main_actions_are_reached_by_keyboard(console: Page, live_server: Any, kubectl: Kubectl) -> None:
    make("anna")
    console.goto(f"{live_server.url}/admin/tenants/anna/")
    expect(console.get_by_role("button", name="Suspend")).to_be_visible()
    reached = []
    for _ in range(40):
        console.keyboard.press("Tab")
        reached.append(console.evaluate(FOCUSED))
        if "Overview" in reached[-1]:
            break
    for wanted in ("Tenants", "Edit", "Suspend", "Delete", "Copy as"):
        assert any(wanted in text for text in reached), (wanted, reached)
    console.get_by_role("button", name="Suspend").focus()
    console.keyboard.press("Enter")
    expect(console.locator("#suspend-reason")).to_be_focused()
    console.keyboard.press("Escape")
    expect(console.get_by_role("dialog")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_in_both_themes(console: Page, live_server: Any, kubectl: Kubectl, scheme: Any) -> None:
    make(LONGEST, "bert")
    kubectl.edit("bert", {"spec": {"configOverrides": {"key": "value-without-any-space-" * 10}}})
    console.emulate_media(color_scheme=scheme)
    console.set_viewport_size({"width": 400, "height": 800})
    console.goto(f"{live_server.url}/admin/drift/Tenant/")
    console.get_by_role("button", name="Check now").click()
    expect(console.get_by_role("article", name="bert")).to_be_visible()
    long = f"/admin/tenants/{LONGEST}/"
    paths = ["/admin/", "/admin/tenants/", long, f"{long}?tab=spec", f"{long}?tab=sync", f"{long}edit/",
             "/admin/drift/Tenant/", "/admin/jobs/", "/admin/audit/", "/admin/health/",
             "/admin/new-tenant/"]  # fmt: skip
    for path in paths:
        console.goto(f"{live_server.url}{path}")
        expect(console.locator("h1")).to_be_visible()
        assert not overflows(console), path
        is_dark = console.evaluate("document.documentElement.classList.contains('dark')")
        assert is_dark == (scheme == "dark")
    console.get_by_role("button", name="Navigation").click()
    console.get_by_role("link", name="Audit", exact=True).click()
    expect(console).to_have_url(f"{live_server.url}/admin/audit/")


def test_charts_are_drawn_and_follow_the_theme(console: Page, live_server: Any, kubectl: Kubectl) -> None:
    """Of two pages that hand over the same kind of document; what the browser complains about fails the test."""
    make("anna")
    sizes = {"memory_used": 2**30, "memory_total": 2**32, "storage_used": 9, "storage_total": 10, "active_tenants": 7}
    for minutes in (1, 20):
        at = timezone.now() - datetime.timedelta(minutes=minutes)
        ServerSample.objects.create(at=at, source="host", cpu_percent=12, **sizes)
    record_usage([Usage("r1", "anna", "gpt-4o", 9, 9, Decimal("1.5"), timezone.now())], source="push")
    drawn = """() => Array.from(document.querySelectorAll("canvas[data-chart]"), canvas => {
        const chart = Chart.getChart(canvas);
        return [chart.options.scales.y.ticks.callback(1.5), chart.data.datasets[0].data.at(-1),
                chart.data.datasets[0].borderColor];
    })"""
    console.emulate_media(color_scheme="light")
    console.goto(f"{live_server.url}/admin/metrics/?span=3h")
    found = console.evaluate(drawn)
    assert [each[:2] for each in found] == [["1.5 %", 12], ["1.5 GiB", 1], ["1.5 GiB", 9 / 2**30], ["1.5", 7]]
    console.get_by_role("button", name="Account of").click()
    console.get_by_role("button", name="Dark", exact=True).click()
    expect(console.locator("html.dark")).to_have_count(1)
    assert {each[2] for each in found}.isdisjoint({each[2] for each in console.evaluate(drawn)})
    console.goto(f"{live_server.url}/admin/tenants/anna/?tab=spend")
    assert [each[:2] for each in console.evaluate(drawn)] == [["$1.50", 1.5]]
