"""People who operate OpenCrane, their roles, and the access tokens they hand to programs."""

import uuid

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower, Now


class Role(models.TextChoices):
    """What a caller may do; accounts/permissions.py says what each means. Ordered from most to least."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"
    MEMBER = "member"

    @property
    def rank(self) -> int:
        """Higher may do more."""
        return len(Role) - list(Role).index(self)


class User(AbstractUser):
    """A person who signs in to the console or by OpenID Connect.

    `role` decides alone; Django's groups and permissions are not consulted. E-mail addresses are unique, ignoring
    case, because pod tokens find a person's tenant by them.

    A person who signs in by OpenID Connect is known by `oidc_issuer` and `oidc_subject`; the address may change. Their
    role follows the provider's groups at each sign-in unless it is pinned, which setting it by hand does.
    """

    role = models.CharField(max_length=16, choices=Role.choices, default=Role.MEMBER)
    role_pinned = models.BooleanField(
        "keep this role", default=False, help_text="Sign-ins by OpenID Connect leave the role as it is."
    )
    oidc_issuer = models.CharField(max_length=500, blank=True, default="", editable=False)
    oidc_subject = models.CharField(max_length=255, blank=True, default="", editable=False)

    class Meta(AbstractUser.Meta):
        ordering = ["username"]
        constraints = [
            models.UniqueConstraint(Lower("email"), name="user_email_unique", condition=~Q(email="")),
            models.CheckConstraint(name="user_role_known", condition=Q(role__in=[role.value for role in Role])),
            models.UniqueConstraint(
                fields=["oidc_issuer", "oidc_subject"], name="user_oidc_unique", condition=~Q(oidc_subject="")
            ),
        ]

    def __str__(self) -> str:
        return self.username


class AccessToken(models.Model):
    """A bearer credential for a program; only its SHA-256 is kept.

    `name` and `owner` are labels. The identity is `created_by_name`; a token without `created_by` was made by the
    static token or on the command line. Deleting a person deletes their tokens.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200)
    owner = models.CharField(max_length=200, blank=True)
    role = models.CharField(max_length=16, choices=Role.choices)
    prefix = models.CharField(max_length=12, help_text="The token's first characters, to tell tokens apart.")
    digest = models.CharField(max_length=64, unique=True)
    created_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.CASCADE, related_name="access_tokens")
    created_by_name = models.CharField(max_length=200)
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(name="access_token_role_known", condition=Q(role__in=[role.value for role in Role])),
        ]
        indexes = [models.Index(name="access_token_newest", fields=["-created_at", "-id"])]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class DeviceGrant(models.Model):
    """One request of a command line to act for a person (RFC 8628), from its codes to its token.

    Codes are kept as digests. Approval notes who and with which role; the token itself is made by the poll that
    delivers it, so that none waits in the database.
    """

    class State(models.TextChoices):
        PENDING = "pending"
        APPROVED = "approved"
        DENIED = "denied"
        REDEEMED = "redeemed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    device_digest = models.CharField(max_length=64, unique=True)
    user_digest = models.CharField(max_length=64, unique=True)
    state = models.CharField(max_length=16, choices=State.choices, default=State.PENDING)
    address = models.CharField(max_length=64, blank=True, help_text="Where the request came from.")
    agent = models.CharField(max_length=200, blank=True, help_text="The program that asked, in its own words.")
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    polled_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.CASCADE, related_name="device_grants")
    decided_at = models.DateTimeField(null=True, blank=True)
    role = models.CharField(max_length=16, choices=Role.choices, blank=True, default="")

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                name="device_grant_decided",
                condition=Q(state__in=["pending", "denied"]) | (Q(decided_by__isnull=False) & ~Q(role="")),
            ),
        ]
        indexes = [models.Index(name="device_grant_expiry", fields=["expires_at"])]

    def __str__(self) -> str:
        return f"device grant {self.pk} ({self.state})"
