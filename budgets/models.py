"""What is spent, what may be spent, and the virtual keys by which LiteLLM enforces it.

Money is US dollars, months are calendar months of UTC and named by their first day. Nothing here refers to a tenant by
foreign key: usage, keys and what was raised outlive it, under its UUID and its name.
"""

import uuid

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from opencrane.encryption import EncryptedTextField

# The tenant of usage that belongs to nobody we know.
NOBODY = uuid.UUID(int=0)


class Budget(models.Model):
    """How much may be spent in a month: by everybody together, or by one account. 0 is no ceiling.

    Tenants' own budgets stand in their rows. `key` is what the budget is found by: empty, or the lower-case user id.
    """

    class Scope(models.TextChoices):
        GLOBAL = "global"
        ACCOUNT = "account"

    scope = models.CharField(max_length=10, choices=Scope)
    key = models.CharField(max_length=254, blank=True, default="", db_collation="C")
    user_id = models.CharField(max_length=254, blank=True, default="")
    monthly_limit_usd = models.DecimalField(max_digits=18, decimal_places=6, default=0)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["scope", "key"], name="budget_once"),
            models.CheckConstraint(name="budget_not_negative", condition=Q(monthly_limit_usd__gte=0)),
            models.CheckConstraint(
                name="budget_of_somebody", condition=Q(scope="global", key="") | Q(scope="account") & ~Q(key="")
            ),
        ]
        indexes = [models.Index(fields=["scope", "-created_at", "-id"], name="budget_newest")]

    def __str__(self) -> str:
        return f"{self.scope} {self.user_id}".strip()


class TokenUsage(models.Model):
    """One call of a model: the ledger. A request id is in it once, whoever reports it and how often.

    `recorded_at` decides on the month. It is what was reported, save for a time of the future, which comes from a
    wrong clock and counts as of its arrival; `reported_at` keeps the word of the reporter then.
    `tenant_id` is None for a name that no tenant has: shown as unattributed, and counted for nobody but all.
    """

    class Source(models.TextChoices):
        LITELLM = "litellm"
        PUSH = "push"

    request_id = models.CharField(max_length=200, db_collation="C")
    source = models.CharField(max_length=10, choices=Source)
    tenant_id = models.UUIDField(null=True)
    tenant = models.CharField(max_length=253, blank=True, default="", db_collation="C")
    model = models.CharField(max_length=200, db_collation="C")
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    cost_usd = models.DecimalField(max_digits=20, decimal_places=10)
    recorded_at = models.DateTimeField()
    reported_at = models.DateTimeField(null=True)
    received_at = models.DateTimeField(db_default=Now())
    corrected_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-recorded_at", "-id"]
        constraints = [models.UniqueConstraint(fields=["request_id"], name="usage_request_once")]
        indexes = [
            models.Index(fields=["-recorded_at", "-id"], name="usage_newest"),
            models.Index(fields=["tenant", "-recorded_at", "-id"], name="usage_tenant"),
            models.Index(fields=["model", "-recorded_at", "-id"], name="usage_model"),
            models.Index(fields=["-recorded_at", "-id"], name="usage_unattributed", condition=Q(tenant_id=None)),
        ]

    def __str__(self) -> str:
        return self.request_id


class UsageMonth(models.Model):
    """What one tenant used of one model in one month; the row with an empty model is that of all models.

    Kept in the transaction that changes the ledger.

    `tenant_id` is NOBODY for unattributed usage.
    """

    month = models.DateField()
    tenant_id = models.UUIDField()
    tenant = models.CharField(max_length=253, blank=True, default="", db_collation="C")
    model = models.CharField(max_length=200, blank=True, db_collation="C")
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost_usd = models.DecimalField(max_digits=24, decimal_places=10, default=0)
    requests = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["-month", "tenant", "model"]
        constraints = [
            models.UniqueConstraint(fields=["tenant_id", "month", "tenant", "model"], name="usage_month_once")
        ]
        indexes = [models.Index(fields=["month", "-cost_usd"], name="usage_month_most", condition=Q(model=""))]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m} {self.tenant} {self.model}"


class FormerTenant(models.Model):
    """A tenant that is gone, for usage that is reported late and for what its account has spent.

    `account` is its e-mail in lower case.
    """

    tenant_id = models.UUIDField(primary_key=True)
    name = models.CharField(max_length=253, db_collation="C")
    account = models.CharField(max_length=254, blank=True, default="", db_collation="C")
    team = models.CharField(max_length=63, blank=True, default="")
    created_at = models.DateTimeField()
    deleted_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-deleted_at"]
        indexes = [
            models.Index(fields=["name", "deleted_at"], name="former_tenant_name"),
            models.Index(fields=["account"], name="former_tenant_account"),
        ]

    def __str__(self) -> str:
        return self.name


class UsageDay(models.Model):
    """What everybody together used of one model on one day (UTC); the row with an empty model is that of all models.

    Kept in the transaction that changes the ledger. A month's spend is the sum of at most 31 rows.
    """

    day = models.DateField()
    model = models.CharField(max_length=200, blank=True, db_collation="C")
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost_usd = models.DecimalField(max_digits=24, decimal_places=10, default=0)
    requests = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["-day", "model"]
        constraints = [models.UniqueConstraint(fields=["model", "day"], name="usage_day_once")]
        indexes = [models.Index(fields=["day"], name="usage_day")]

    def __str__(self) -> str:
        return f"{self.day} {self.model or 'all'}"


class BudgetCrossing(models.Model):
    """That a month's spend has reached 50, 80 or 100 % of a limit; raised once for each month, budget and threshold.

    `key` is empty for the global budget, the lower-case user id, or the tenant's UUID; `label` is what people read.
    """

    class Scope(models.TextChoices):
        GLOBAL = "global"
        ACCOUNT = "account"
        TENANT = "tenant"

    month = models.DateField()
    scope = models.CharField(max_length=10, choices=Scope)
    key = models.CharField(max_length=254, blank=True, default="", db_collation="C")
    label = models.CharField(max_length=254, blank=True, default="")
    threshold_percent = models.PositiveSmallIntegerField()
    spend_usd = models.DecimalField(max_digits=24, decimal_places=10)
    limit_usd = models.DecimalField(max_digits=18, decimal_places=6)
    at = models.DateTimeField(db_default=Now())
    dismissed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["month", "scope", "key", "threshold_percent"], name="budget_crossed_once")
        ]
        indexes = [
            models.Index(fields=["-at", "-id"], name="budget_crossing_newest"),
            models.Index(fields=["-at", "-id"], name="budget_crossing_notice", condition=Q(dismissed_at=None)),
        ]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m} {self.scope} {self.label} {self.threshold_percent} %"


class UsageImport(models.Model):
    """How far the import of LiteLLM's spend logs has come; one row.

    Everything that LiteLLM logged before `imported_until` has been read; each run starts an overlap earlier, and now
    and then (`deep_at`) much earlier.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    imported_until = models.DateTimeField(null=True)
    deep_at = models.DateTimeField(null=True)
    last_run_at = models.DateTimeField(null=True)
    last_success_at = models.DateTimeField(null=True)
    last_seen = models.PositiveIntegerField(default=0)
    last_new = models.PositiveIntegerField(default=0)
    last_skipped = models.PositiveIntegerField(default=0)
    failing_since = models.DateTimeField(null=True)
    error = models.TextField(blank=True, default="")

    def __str__(self) -> str:
        return f"until {self.imported_until}"


class LitellmKey(models.Model):
    """A virtual key of a tenant at LiteLLM. The key itself is in LiteLLM and the tenant's Secret, and nowhere else.

    A tenant has at most one key that is wanted or active. One that is being revoked outlives the tenant, until it is
    dead in LiteLLM (`dead_at`) and its Secret is gone (`secret_gone_at`), in this order. `token` is the SHA-256 by
    which LiteLLM itself names the key.
    """

    class State(models.TextChoices):
        WANTED = "wanted"
        ACTIVE = "active"
        RETIRING = "retiring"
        REVOKING = "revoking"
        REVOKED = "revoked"

    class Cause(models.TextChoices):
        OPERATOR = "operator"
        ROTATED = "rotated"
        TENANT_DELETED = "tenant-deleted"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant_id = models.UUIDField()
    tenant = models.CharField(max_length=253, db_collation="C")
    alias = models.CharField(max_length=300, db_collation="C")
    namespace = models.CharField(max_length=253)
    secret_name = models.CharField(max_length=253)
    token = models.CharField(max_length=64, blank=True, default="", db_collation="C")
    state = models.CharField(max_length=10, choices=State, default=State.WANTED)
    cause = models.CharField(max_length=20, choices=Cause, blank=True, default="")
    # Of a wanted key: which one it takes the place of, and how long that one goes on working.
    replaces = models.UUIDField(null=True)
    grace_seconds = models.PositiveIntegerField(default=0)

    # What LiteLLM has been told to enforce; None is no ceiling.
    max_budget_usd = models.DecimalField(max_digits=18, decimal_places=6, null=True)
    known_spend_usd = models.DecimalField(max_digits=24, decimal_places=10, null=True)
    known_spend_at = models.DateTimeField(null=True)
    # What the last comparison found: a sentence for each thing that is not as we mean it, or empty.
    checked_at = models.DateTimeField(null=True)
    drift = models.TextField(blank=True, default="")

    created_at = models.DateTimeField(db_default=Now(), editable=False)
    issued_at = models.DateTimeField(null=True)
    grace_until = models.DateTimeField(null=True)
    dead_at = models.DateTimeField(null=True)
    secret_gone_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    attempts = models.PositiveIntegerField(default=0)
    not_before = models.DateTimeField(db_default=Now())
    failing_since = models.DateTimeField(null=True)
    error = models.TextField(blank=True, default="")

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant_id"], name="litellm_key_current", condition=Q(state__in=["wanted", "active"])
            )
        ]
        indexes = [
            models.Index(fields=["tenant_id", "-created_at"], name="litellm_key_tenant"),
            models.Index(fields=["token"], name="litellm_key_token", condition=~Q(token="")),
            models.Index(
                fields=["not_before"],
                name="litellm_key_due",
                condition=Q(state__in=["wanted", "retiring", "revoking"]),
            ),
            models.Index(
                fields=["-failing_since"], name="litellm_key_failing", condition=Q(failing_since__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return self.alias


class ProviderKey(models.Model):
    """The API key of a provider of models, sealed. Workers put all of them into one Secret, for LiteLLM to read."""

    provider = models.CharField(max_length=63, primary_key=True, db_collation="C")
    api_key = EncryptedTextField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_by = models.CharField(max_length=254, blank=True, default="")
    # What the provider said when an operator asked it last.
    tested_at = models.DateTimeField(null=True)
    test_passed = models.BooleanField(null=True)
    test_result = models.TextField(blank=True, default="")

    class Meta:
        ordering = ["provider"]

    def __str__(self) -> str:
        return self.provider


class ProviderSecret(models.Model):
    """How far the Secret of provider keys lags behind the rows; one row.

    `generation` is raised by every change, `observed_generation` is what the Secret holds.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    generation = models.PositiveBigIntegerField(default=0)
    observed_generation = models.PositiveBigIntegerField(default=0)
    synced_at = models.DateTimeField(null=True)
    checked_at = models.DateTimeField(null=True)
    drift = models.TextField(blank=True, default="")
    attempts = models.PositiveIntegerField(default=0)
    not_before = models.DateTimeField(db_default=Now())
    failing_since = models.DateTimeField(null=True)
    error = models.TextField(blank=True, default="")

    def __str__(self) -> str:
        return f"{self.observed_generation}/{self.generation}"
