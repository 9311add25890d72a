"""Routes under /api/v1."""

from django.urls import path

from budgets.api.viewsets import BudgetViewSet, ProviderKeyViewSet, TenantMoneyViewSet, TokenUsageViewSet

_TENANT = "ai-budget/<str:tenantName>"
urlpatterns = [
    path("ai-budget/global", BudgetViewSet.as_view({"get": "everybody", "put": "everybody"})),
    path("ai-budget/accounts", BudgetViewSet.as_view({"get": "list"})),
    path("ai-budget/accounts/<str:userId>", BudgetViewSet.as_view({"put": "update", "delete": "destroy"})),
    path(f"{_TENANT}/spend", TenantMoneyViewSet.as_view({"get": "spend"})),
    path(f"{_TENANT}/litellm-key", TenantMoneyViewSet.as_view({"get": "litellm_key"})),
    path(f"{_TENANT}/litellm-key/revoke", TenantMoneyViewSet.as_view({"post": "revoke"})),
    path(f"{_TENANT}/litellm-key/rotate", TenantMoneyViewSet.as_view({"post": "rotate"})),
    path(f"{_TENANT}/litellm-key/sync", TenantMoneyViewSet.as_view({"post": "sync"})),
    path("token-usage", TokenUsageViewSet.as_view({"get": "list"})),
    path("token-usage/export", TokenUsageViewSet.as_view({"post": "export"})),
    path("providers/keys", ProviderKeyViewSet.as_view({"get": "list"})),
    path("providers/keys/<str:provider>", ProviderKeyViewSet.as_view({"put": "update", "delete": "destroy"})),
    path("providers/keys/<str:provider>/test", ProviderKeyViewSet.as_view({"post": "test"})),
]
