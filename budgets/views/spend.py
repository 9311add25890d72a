"""Spend: the month at a glance, and on a tenant's page; notices of budgets that were reached."""

from decimal import Decimal
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone

from budgets import litellm, reading, rules, selectors
from budgets.errors import LitellmFailedError
from budgets.selectors import Spend
from budgets.services import crossings, spending
from budgets.views.keys import STATES as KEY_STATES
from opencrane.console.charts import Chart, Series, chart
from opencrane.console.objects import AddedTab
from opencrane.console.pages import ConsoleAction, ConsolePage
from opencrane.errors import InvalidError
from tenants.models import Tenant
from tenants.views.detail import TenantPage

NOTICES_SHOWN = 5
STATES = {
    "ok": ("ok", "check_circle", "Within budget"),
    "warning": ("warn", "warning", "Above 80 %"),
    "exceeded": ("bad", "error", "Exceeded"),
}


class SpendDashboard(ConsolePage):
    resource = "ai-budget"
    title = "Spend"
    template_name = "budgets/spend.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        view = reading.month_view()
        notices = [(each, crossings.sentence(each)) for each in reading.notices()]
        state = reading.import_state()
        is_configured = litellm.is_configured()
        return self.render(
            {
                "title": f"Spend in {view.month:%B %Y}",
                "view": view,
                "state": STATES[view.spend.state],
                "forecast_state": STATES[Spend(view.spend.limit_usd, view.forecast_usd).state],
                "tenants": [{"row": row, "state": STATES[row.spend.state]} for row in view.tenants],
                "is_empty": not view.requests,
                "chart": month_chart(view),
                "notices": notices[:NOTICES_SHOWN],
                "more_notices": notices[NOTICES_SHOWN:],
                "litellm": is_configured,
                "import": state,
                "is_stale": is_configured and reading.is_stale(state),
                "keys": reading.key_counts(),
                "api_url": request.build_absolute_uri("/api"),
            }
        )


def month_chart(view: reading.MonthView) -> Chart:
    """Bars for days, a line for the sum so far, another for the limit."""
    series = [
        Series("Spent so far", [running for _, _, running in view.days]),
        Series("Per day", [round(cost, 4) for _, cost, _ in view.days], kind="bar", tone="second"),
    ]
    if limit := float(view.spend.limit_usd):
        series.append(Series("Budget", [limit] * len(view.days), tone="limit"))
    title = "Spend of each day of the month, and the sum so far"
    return chart(title, "usd", [f"{day:%d}" for day, _, _ in view.days], series)


def tenant_values(_request: HttpRequest, tenant: Tenant) -> dict[str, Any]:
    """The spend tab of a tenant's page: the month by LiteLLM's own word where it has one, the rest by the ledger."""
    shown, error = None, ""
    try:
        shown = spending.tenant_spend(tenant_name=tenant.name)
    except LitellmFailedError as exc:
        error = exc.message
    now = timezone.now()
    limit = tenant.monthly_budget_usd or Decimal(0)
    spend = Spend(limit, Decimal(str(shown["currentSpendUsd"]))) if shown else None
    forecast = rules.forecast(spend.spend_usd, now) if spend else None
    forecast_state = Spend(limit, forecast).state if forecast is not None else "ok"
    months = reading.tenant_months(tenant.pk)
    key = next(iter(selectors.keys_of(tenant.pk, 1)), None)
    imported = reading.import_state()
    is_configured = litellm.is_configured()
    return {
        "month": selectors.this_month(),
        "shown": shown,
        "error": error,
        "litellm": is_configured,
        "import": imported,
        "is_import_stale": is_configured and reading.is_stale(imported),
        "limit": limit,
        "spend": spend,
        "budget_state": STATES[spend.state] if spend and limit else None,
        "forecast": forecast,
        "forecast_state": STATES[forecast_state] if forecast_state != "ok" else None,
        "requests": sum(each.requests for each in months if each.month == selectors.this_month()),
        "models": reading.tenant_models(tenant.pk),
        "months": months,
        "chart": months_chart(months, limit),
        "key": key,
        "key_state": KEY_STATES[key.state] if key else None,
    }


def months_chart(months: list[reading.TenantMonth], limit: Decimal) -> Chart:
    """A bar for each month, the oldest first, and today's budget across them."""
    found = months[::-1]
    series = [Series("Spent", [round(float(each.cost), 4) for each in found], kind="bar")]
    if limit:
        series.append(Series("Budget now", [float(limit)] * len(found), tone="limit"))
    return chart("Spend of the last months", "usd", [f"{each.month:%b %Y}" for each in found], series)


class DismissNotice(ConsoleAction):
    resource = "ai-budget"

    def act(self) -> str:
        chosen = self.request.POST.get("notice", "")
        if chosen != "all" and not (chosen.isascii() and chosen.isdigit() and len(chosen) < 19):
            raise InvalidError("There is no such notice.")
        crossings.dismiss(crossing_id=None if chosen == "all" else int(chosen), actor=self.actor)
        messages.success(self.request, "Dismissed. The audit trail keeps what happened.")
        return reverse("admin:spend")

    def back(self) -> str:
        return reverse("admin:spend")


def register() -> None:
    """Called by `budgets.admin`."""
    TenantPage.added["spend"] = AddedTab("Spend", "ai-budget", "budgets/tenant_tab.html", tenant_values)
    site: Any = admin.site
    site.add_page("spend/", SpendDashboard.as_view(), "spend")
    site.add_page("spend/dismiss/", DismissNotice.as_view(), "spend_dismiss")
    site.add_navigation(
        "Money",
        "Spend",
        "payments",
        "admin:spend",
        resource="ai-budget",
        position=39,
        badge=reading.notice_count,
        badge_means="budgets that were reached",
    )
