"""Spend: the month at a glance, and of one tenant; notices of budgets that were reached."""

import json
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from budgets import litellm, reading, selectors
from budgets.errors import LitellmFailedError
from budgets.services import crossings, spending
from opencrane.console.pages import ConsoleAction, ConsolePage
from opencrane.errors import InvalidError
from tenants.selectors import tenant_named

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
                "forecast_state": STATES[selectors.Spend(view.spend.limit_usd, view.forecast_usd).state],
                "tenants": [{"row": row, "state": STATES[row.spend.state]} for row in view.tenants],
                "is_empty": not view.requests,
                "chart": chart(view),
                "notices": notices[:NOTICES_SHOWN],
                "more_notices": notices[NOTICES_SHOWN:],
                "litellm": is_configured,
                "import": state,
                "is_stale": is_configured and reading.is_stale(state),
                "keys": reading.key_counts(),
                "api_url": request.build_absolute_uri("/api"),
            }
        )


def chart(view: reading.MonthView) -> dict[str, str]:
    """What the canvas draws: bars for days, a line for the sum so far, another for the limit."""
    limit = float(view.spend.limit_usd)
    datasets: list[dict[str, Any]] = [
        {"label": "Spent so far", "type": "line", "data": [running for _, _, running in view.days], "tone": "sum"},
        {"label": "Per day", "type": "bar", "data": [round(cost, 4) for _, cost, _ in view.days], "tone": "day"},
    ]
    if limit:
        datasets.append({"label": "Budget", "type": "line", "data": [limit] * len(view.days), "tone": "limit"})
    return {"data": json.dumps({"labels": [f"{day:%d}" for day, _, _ in view.days], "datasets": datasets})}


class TenantSpendPage(ConsolePage):
    resource = "ai-budget"
    template_name = "budgets/tenant_spend.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        tenant = tenant_named(name)
        error = ""
        try:
            shown = spending.tenant_spend(tenant_name=name)
        except LitellmFailedError as exc:
            shown, error = None, exc.message
        limit = tenant.monthly_budget_usd or 0
        months = reading.tenant_months(tenant.pk)
        return self.render(
            {
                "title": f"Spend of {name}",
                "tenant": tenant,
                "shown": shown,
                "error": error,
                "limit": limit,
                "percent": float(shown["currentSpendUsd"]) * 100 / float(limit) if shown and limit else None,
                "state": STATES[shown["budgetAlertState"]] if shown else None,
                "models": reading.tenant_models(tenant.pk),
                "months": months,
                "key": next(iter(selectors.keys_of(tenant.pk, 1)), None),
            }
        )


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
    site: Any = admin.site
    site.add_page("spend/", SpendDashboard.as_view(), "spend")
    site.add_page("spend/tenants/<str:name>/", TenantSpendPage.as_view(), "tenant_spend")
    site.add_page("spend/dismiss/", DismissNotice.as_view(), "spend_dismiss")
    site.add_navigation("Money", "Spend", "payments", "admin:spend", resource="ai-budget", position=39)
