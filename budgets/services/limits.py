"""Budgets of everybody together and of accounts. They warn; what stops a tenant is its own budget, in LiteLLM."""

from decimal import Decimal
from typing import Any

from django.db import transaction
from django.utils import timezone

from budgets.errors import AccountBudgetNotFoundError
from budgets.models import Budget
from budgets.services.usage import CROSSINGS_TASK
from opencrane.actor import Actor
from opencrane.tasks import enqueue_on_commit
from operations.services import audit


def set_global_budget(*, monthly_limit_usd: Decimal, actor: Actor) -> None:
    """Say how much everybody together may spend in a month; 0 is no ceiling."""
    _set(Budget.Scope.GLOBAL, "", monthly_limit_usd, actor)


def set_account_budget(*, user_id: str, monthly_limit_usd: Decimal, actor: Actor) -> None:
    """Say how much an account may spend in a month. User ids that differ in case only are one account."""
    _set(Budget.Scope.ACCOUNT, user_id, monthly_limit_usd, actor)


@transaction.atomic(durable=True)
def delete_account_budget(*, user_id: str, actor: Actor) -> None:
    """Take an account's budget away; what it has spent stays.

    Raises:
        AccountBudgetNotFoundError
    """
    found = Budget.objects.select_for_update().filter(scope=Budget.Scope.ACCOUNT, key=user_id.lower()).first()
    if found is None:
        raise AccountBudgetNotFoundError(f"There is no budget of {user_id}.")
    found.delete()
    before = {"monthlyLimitUsd": float(found.monthly_limit_usd)}
    message = f"Removed the budget of account {found.user_id}."
    audit.record(
        action="budget.deleted", resource=_resource(found), message=message, before=before, after=None, actor=actor
    )


@transaction.atomic(durable=True)
def _set(scope: Budget.Scope, user_id: str, limit: Decimal, actor: Actor) -> None:
    made, is_new = Budget.objects.get_or_create(
        scope=scope, key=user_id.lower(), defaults={"user_id": user_id, "monthly_limit_usd": limit}
    )
    budget = Budget.objects.select_for_update().get(pk=made.pk)
    before: dict[str, Any] | None = None if is_new else {"monthlyLimitUsd": float(budget.monthly_limit_usd)}
    if not is_new:
        if budget.monthly_limit_usd == limit:
            return
        budget.monthly_limit_usd, budget.updated_at = limit, timezone.now()
        budget.save(update_fields=["monthly_limit_usd", "updated_at"])
    whose = f"account {budget.user_id}" if user_id else "everybody together"
    audit.record(
        action="budget.created" if is_new else "budget.updated",
        resource=_resource(budget),
        message=f"The monthly budget of {whose} is {'$' + format(limit, ',.2f') if limit else 'without a ceiling'}.",
        before=before,
        after={"monthlyLimitUsd": float(limit)},
        actor=actor,
    )
    enqueue_on_commit(CROSSINGS_TASK)


def _resource(budget: Budget) -> str:
    return f"Budget/{budget.user_id or 'global'}"
