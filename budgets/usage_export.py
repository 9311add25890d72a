"""Export of the ledger."""

from budgets import selectors
from operations import exports

COLUMNS = (
    "recordedAt", "tenant", "tenantId", "model", "inputTokens", "outputTokens", "totalCostUsd", "requestId", "origin",
    "correctedAt",
)  # fmt: skip
USAGE = exports.Export(
    "budgets.export", "usage", selectors.UsageFilter, COLUMNS, selectors.USAGE_NEWEST, selectors.usage_page
)
exports.register(USAGE)
