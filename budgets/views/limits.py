"""Budgets: that of everybody together, and those of accounts."""

from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from rest_framework import serializers

from budgets import rules, selectors
from budgets.api.serializers import BudgetBodySerializer
from budgets.services import limits
from budgets.views.spend import STATES
from opencrane.api.serializers import flatten_errors
from opencrane.console.listing import Filter, FilterBar, listing_by
from opencrane.console.pages import ActionSet, ConsolePage
from opencrane.errors import InvalidError


class BudgetsPage(ConsolePage):
    resource = "ai-budget"
    title = "Budgets"
    template_name = "budgets/budgets.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        options = [(key, words[2]) for key, words in STATES.items()]
        bar = FilterBar(request, [Filter("state", "State", "choice", options)], "Search accounts")
        keyset = selectors.ACCOUNTS_NEWEST
        read = partial(selectors.account_budgets, bar.values())
        page = listing_by(request, keyset, read, key=lambda row: keyset.key(row[0]))
        everybody = selectors.global_spend()
        return self.render(
            {
                "everybody": everybody,
                "everybody_state": STATES[everybody.state],
                "bar": bar,
                "rows": [{"budget": row, "spend": spend, "state": STATES[spend.state]} for row, spend in page.rows],
                "listing": page,
                "is_filtered": bool(bar.active),
            }
        )


class BudgetActions(ActionSet):
    resource = "ai-budget"

    def do_set_global(self) -> None:
        limits.set_global_budget(monthly_limit_usd=self._limit(), actor=self.actor)
        messages.success(self.request, "The budget of everybody together is saved.")

    def do_set_account(self) -> None:
        user_id = self._user_id
        if not user_id or len(user_id) > rules.USER_ID_MAX or not user_id.isprintable():
            raise InvalidError(f"Nothing was saved: an account has 1 to {rules.USER_ID_MAX} characters.")
        limits.set_account_budget(user_id=user_id, monthly_limit_usd=self._limit(), actor=self.actor)
        messages.success(self.request, f"The budget of {user_id} is saved.")

    def do_delete_account(self) -> None:
        user_id = self._user_id
        limits.delete_account_budget(user_id=user_id, actor=self.actor)
        messages.success(self.request, f"{user_id} has no budget any more.")

    @property
    def _user_id(self) -> str:
        return self.request.POST.get("userId", "").strip()

    def _limit(self) -> Any:
        text = self.request.POST.get("monthlyLimitUsd", "").strip()
        try:
            serializer: Any = BudgetBodySerializer(data={"monthlyLimitUsd": float(text)})
            serializer.is_valid(raise_exception=True)
        except ValueError as exc:
            raise InvalidError("Nothing was saved: the limit is no number.") from exc
        except serializers.ValidationError as exc:
            reasons = [reason for found in flatten_errors(exc.detail).values() for reason in found]
            raise InvalidError(f"Nothing was saved: {' '.join(reasons)}") from exc
        return serializer.validated_data["monthly_limit_usd"]

    def back(self, **path: str) -> str:
        return self.next_or(reverse("admin:budgets"))


def register() -> None:
    """Called by `budgets.admin`."""
    site: Any = admin.site
    site.add_page("budgets/", BudgetsPage.as_view(), "budgets")
    site.add_page("budgets/do/<str:action>/", BudgetActions.as_view(), "budget_do")
    site.add_navigation("Money", "Budgets", "savings", "admin:budgets", resource="ai-budget", position=39)
