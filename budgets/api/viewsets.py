"""The API of money: parse, call one service, answer."""

from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action

from budgets import rules, selectors, usage_export
from budgets.api.serializers import (
    AccountBudgetSerializer,
    AccountBudgetStatusSerializer,
    BudgetBodySerializer,
    BudgetSerializer,
    LitellmKeySerializer,
    ProviderKeyBodySerializer,
    ProviderKeySerializer,
    ProviderKeyTestSerializer,
    RotateKeySerializer,
    TenantSpendSerializer,
    TokenUsageSerializer,
)
from budgets.models import LitellmKey, ProviderKey
from budgets.providers import WELL_KNOWN
from budgets.services import keys, limits, provider_keys, spending
from opencrane.api import params
from opencrane.api.parameters import CURSOR, LIMIT, limit_parameter, query
from opencrane.api.responses import json_response, no_content, page_response
from opencrane.api.serializers import AcceptedSerializer
from opencrane.api.viewsets import ApiRequest, ApiViewSet
from opencrane.errors import InvalidError
from operations import job_files
from tenants.selectors import tenant_named


class BudgetViewSet(ApiViewSet):
    """Budgets of everybody together and of accounts."""

    resource = "ai-budget"
    lookup_field = "userId"
    serializer_class = BudgetSerializer

    @extend_schema(methods=["GET"], responses={200: BudgetSerializer})
    @extend_schema(methods=["PUT"], request=BudgetBodySerializer, responses={200: BudgetSerializer})
    @action(detail=False, methods=["get", "put"], url_path="global")
    def everybody(self, request: ApiRequest) -> HttpResponse:
        """What everybody together may spend in a month, and has spent. It warns and stops nobody."""
        if request.method == "PUT":
            limits.set_global_budget(actor=self.actor, **self.parsed_body(BudgetBodySerializer))
        return json_response(selectors.global_spend().shown())

    @extend_schema(
        parameters=[
            query("q", "Text in the user id."),
            OpenApiParameter("state", str, enum=list(rules.ALERT_STATES)),
            LIMIT,
            CURSOR,
        ],
        responses={200: AccountBudgetSerializer(many=True)},
    )
    def list(self, request: ApiRequest) -> HttpResponse:
        """Accounts with a budget, newest first."""
        filters = {"q": text} if (text := params.text(request, "q")) else {}
        if state := params.choice(request, "state", rules.ALERT_STATES):
            filters["state"] = state
        keyset = selectors.ACCOUNTS_NEWEST
        page = keyset.page(request)
        rows = selectors.account_budgets(filters, page)
        rows, headers = keyset.finish(request, rows, page, lambda row: keyset.key(row[0]))
        found = [
            {
                "userId": budget.user_id,
                **spend.shown(),
                "createdAt": budget.created_at,
                "updatedAt": budget.updated_at,
            }
            for budget, spend in rows
        ]
        return json_response(found, headers=headers)

    @extend_schema(request=BudgetBodySerializer, responses={200: AccountBudgetSerializer})
    def update(self, request: ApiRequest, **path: str) -> HttpResponse:
        """Sets the account's budget, or makes it one."""
        user_id = _user_id(path["userId"])
        limits.set_account_budget(user_id=user_id, actor=self.actor, **self.parsed_body(BudgetBodySerializer))
        budget = selectors.account_budget(user_id)
        spend = selectors.account_spend(user_id)
        times = {"createdAt": budget.created_at, "updatedAt": budget.updated_at}
        return json_response({"userId": budget.user_id, **spend.shown(), **times})

    @extend_schema(responses={200: AccountBudgetStatusSerializer})
    def destroy(self, request: ApiRequest, **path: str) -> HttpResponse:
        """Takes the account's budget away; what it has spent stays."""
        user_id = _user_id(path["userId"])
        limits.delete_account_budget(user_id=user_id, actor=self.actor)
        return json_response({"userId": user_id, "status": "deleted"})


def _user_id(text: str) -> str:
    user_id = text.strip()
    if not user_id or len(user_id) > rules.USER_ID_MAX or not user_id.isprintable():
        raise InvalidError(fields={"userId": [f"Has to be text of 1 to {rules.USER_ID_MAX} characters."]})
    return user_id


class TenantMoneyViewSet(ApiViewSet):
    """What a tenant spends, and the key by which LiteLLM enforces its budget."""

    resource = "ai-budget"
    lookup_field = "tenantName"
    serializer_class = TenantSpendSerializer
    failures = {"spend": ("502",), "revoke": ("502", "503"), "rotate": ("409", "503"), "sync": ("503",)}

    @extend_schema(responses={200: TenantSpendSerializer})
    @action(detail=True, methods=["get"])
    def spend(self, request: ApiRequest, **path: str) -> HttpResponse:
        """What the tenant has spent this month: by LiteLLM if it answers, else what was known last."""
        return json_response(spending.tenant_spend(tenant_name=path["tenantName"]))

    @extend_schema(responses={200: LitellmKeySerializer})
    @action(detail=True, methods=["get"], url_path="litellm-key")
    def litellm_key(self, request: ApiRequest, **path: str) -> HttpResponse:
        """About the tenant's key; the key itself is in its Secret alone."""
        tenant = tenant_named(path["tenantName"])
        return json_response(shown_key(selectors.current_key(tenant.pk)))

    @extend_schema(request=None, responses={200: LitellmKeySerializer})
    @action(detail=True, methods=["post"], url_path="litellm-key/revoke")
    def revoke(self, request: ApiRequest, **path: str) -> HttpResponse:
        """Has the key dead in LiteLLM, then its Secret gone; 502 while one of them is alive, and it is tried on.

        No new key is issued until somebody rotates.
        """
        return json_response(shown_key(keys.revoke_key(tenant_name=path["tenantName"], actor=self.actor)))

    @extend_schema(request=RotateKeySerializer, responses={202: LitellmKeySerializer})
    @action(detail=True, methods=["post"], url_path="litellm-key/rotate")
    def rotate(self, request: ApiRequest, **path: str) -> HttpResponse:
        """Has a new key issued; the old one goes on working for the grace."""
        body: Any = request.data
        values = {} if body is None else self.parsed_body(RotateKeySerializer)
        key = keys.rotate_key(
            tenant_name=path["tenantName"], grace_seconds=values.get("grace_seconds"), actor=self.actor
        )
        key.refresh_from_db()
        return json_response(shown_key(key), status=202)

    @extend_schema(request=None, responses={202: LitellmKeySerializer})
    @action(detail=True, methods=["post"], url_path="litellm-key/sync")
    def sync(self, request: ApiRequest, **path: str) -> HttpResponse:
        """Has LiteLLM and the Secret brought in line with what is meant, now."""
        key = keys.resync_key(tenant_name=path["tenantName"], actor=self.actor)
        key.refresh_from_db()
        return json_response(shown_key(key), status=202)


def shown_key(key: LitellmKey) -> dict[str, Any]:
    """A key as the API gives it."""
    return {
        "tenant": key.tenant,
        "keyAlias": key.alias,
        "secretName": key.secret_name,
        "namespace": key.namespace,
        "monthlyBudgetUsd": key.max_budget_usd,
        "issuedAt": key.issued_at,
        "revokedAt": key.revoked_at,
        "state": key.state,
        "drift": key.drift or None,
        "checkedAt": key.checked_at,
        "error": key.error or None,
        "failingSince": key.failing_since,
    }


_USAGE_FILTERS = [
    query("tenant", "Its name, exactly."),
    query("tenantId", "Its UUID, which tells it from another tenant of the name.", "uuid"),
    query("model", "Its name, exactly."),
    query("since", "From this time on, included.", "date-time"),
    query("until", "To this time, excluded.", "date-time"),
    OpenApiParameter("unattributed", bool, description="Only usage of tenants that are not known."),
]


class TokenUsageViewSet(ApiViewSet):
    resource = "token-usage"
    serializer_class = TokenUsageSerializer

    @extend_schema(
        parameters=[*_USAGE_FILTERS, limit_parameter(default=100), CURSOR],
        responses={200: TokenUsageSerializer(many=True)},
    )
    def list(self, request: ApiRequest) -> HttpResponse:
        """The ledger, newest first."""
        body, cursor = selectors.usage_page(_wanted_usage(request), selectors.USAGE_NEWEST.page(request))
        return page_response(request, body, cursor)

    @extend_schema(
        parameters=[query("format", "JSON lines, by default, or CSV.", enum=job_files.FORMATS), *_USAGE_FILTERS],
        request=None,
        responses={202: AcceptedSerializer},
    )
    @action(detail=False, methods=["post"])
    def export(self, request: ApiRequest) -> HttpResponse:
        """The ledger, or a part of it, as a file made by a job; the job's `file` gives it, for some days."""
        file_format = params.choice(request, "format", job_files.FORMATS) or "jsonl"
        job = usage_export.USAGE.start(wanted=_wanted_usage(request), file_format=file_format, actor=self.actor)
        return json_response({"jobId": job.pk, "status": job.status}, status=202)


def _wanted_usage(request: ApiRequest) -> selectors.UsageFilter:
    since, until = params.moment(request, "since"), params.moment(request, "until")
    if since is not None and until is not None and until < since:
        raise InvalidError(fields={"until": ["Has to be after `since`."]})
    return selectors.UsageFilter(
        tenant=params.text(request, "tenant") or "",
        tenant_id=params.uuid(request, "tenantId"),
        model=params.text(request, "model") or "",
        since=since,
        until=until,
        unattributed=params.boolean(request, "unattributed", False),
    )


class ProviderKeyViewSet(ApiViewSet):
    resource = "provider-keys"
    lookup_field = "provider"
    serializer_class = ProviderKeySerializer
    failures = {"update": ("503",)}

    @extend_schema(responses={200: ProviderKeySerializer(many=True)})
    def list(self, request: ApiRequest) -> HttpResponse:
        """Providers by name: those whose key is kept, and the well-known ones without."""
        kept = selectors.provider_keys()
        return json_response([_shown_provider(name, kept.get(name)) for name in sorted({*kept, *WELL_KNOWN})])

    @extend_schema(request=ProviderKeyBodySerializer, responses={200: ProviderKeySerializer})
    def update(self, request: ApiRequest, provider: str) -> HttpResponse:
        """Keeps the key, sealed, in the place of the one before; workers bring it to LiteLLM."""
        values = self.parsed_body(ProviderKeyBodySerializer)
        row = provider_keys.set_key(provider=provider, api_key=values["api_key"], actor=self.actor)
        return json_response(_shown_provider(provider, row))

    @extend_schema(responses={204: None})
    def destroy(self, request: ApiRequest, provider: str) -> HttpResponse:
        provider_keys.delete_key(provider=provider, actor=self.actor)
        return no_content()

    @extend_schema(request=None, responses={200: ProviderKeyTestSerializer})
    @action(detail=True, methods=["post"])
    def test(self, request: ApiRequest, provider: str) -> HttpResponse:
        """Asks the provider's models endpoint whether it takes the key; nothing else ever does."""
        row = provider_keys.test_key(provider=provider, actor=self.actor)
        told = {"passed": row.test_passed, "result": row.test_result, "testedAt": row.tested_at}
        return json_response(_shown_provider(provider, row) | told)


def _shown_provider(name: str, row: ProviderKey | None) -> dict[str, Any]:
    return {"provider": name, "configured": row is not None, "updatedAt": row.updated_at if row else None}
