"""Who calls /api/internal: a tenant's pod, or another workload that the settings name, by ServiceAccount token.

Access tokens and sessions count for nothing here. The tenant comes from the token, never from what is sent.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from django.db import connection
from drf_spectacular.utils import extend_schema
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission

from opencrane import limits
from opencrane.api.identity import Caller
from opencrane.api.viewsets import ApiViewSet
from opencrane.errors import ForbiddenError

CONTROL_PLANE = "control-plane"
SKILL_REGISTRY = "skill-registry"
POD, WORKLOAD = "pod", "workload"
# Clocks may differ by some seconds, and for ten the API server itself goes on with what it has found of a token
# (its authenticators keep a success that long).
_SETTLING_SECONDS = 10.0 + 5.0
_PREFIX = "system:serviceaccount:"
_REFUSED = "The token is no ServiceAccount token that counts here."


@dataclass(frozen=True, slots=True)
class ClusterCaller(Caller):
    """A workload of the cluster.

    Attributes:
        audiences: those of ours that its token is meant for.
        tenant_id: whose pod it is, `name` being the tenant's; None for a workload that the settings name.
    """

    audiences: frozenset[str] = frozenset()
    tenant_id: UUID | None = None


class ServiceAccountAuthentication(BaseAuthentication):
    """`Authorization: Bearer …` with a ServiceAccount token for one of the audiences that this server answers to."""

    def authenticate(self, request: Any) -> tuple[Any, ClusterCaller] | None:
        header = request.META.get("HTTP_AUTHORIZATION")
        if header is None:
            return None
        scheme, _, token = header.partition(" ")
        caller = caller_by_token(token.strip()) if scheme.lower() == "bearer" else None
        if caller is None:
            limits.hit(limits.BAD_CREDENTIAL, limits.address_of(request))
            raise exceptions.AuthenticationFailed(_REFUSED)
        return caller, caller

    def authenticate_header(self, request: Any) -> str:
        return "Bearer"


def caller_by_token(token: str) -> ClusterCaller | None:
    """Whom a ServiceAccount token stands for; None when it is not valid, or of nobody whom we know.

    Raises:
        DependencyUnavailableError, UpstreamError: the cluster could not be asked.
    """
    # The Kubernetes client takes long to import; a web process that no pod calls does without.
    from accounts.reviews import reviews

    callers: dict[str, str] = settings.INTERNAL_CALLERS
    audiences = frozenset({CONTROL_PLANE, SKILL_REGISTRY, *callers.values()})
    holder = reviews.holder_of(token, audiences)
    if holder is None or not holder.username.startswith(_PREFIX):
        return None
    namespace, _, name = holder.username.removeprefix(_PREFIX).partition(":")
    expected = callers.get(f"{namespace}/{name}")
    if expected is not None:
        if expected not in holder.audiences:
            return None
        return ClusterCaller(WORKLOAD, f"{namespace}/{name}", "", audiences=holder.audiences)
    found = _tenant_of(namespace, name)
    if found is None:
        return None
    tenant_id, tenant_name, created_at = found
    # A new tenant of an old name: the old one's pod must not speak for it by an answer that is kept.
    since = created_at.timestamp() + _SETTLING_SECONDS
    if holder.reviewed_at < since and reviews.holder_of(token, audiences, since=since) is None:
        return None
    return ClusterCaller(POD, tenant_name, "", audiences=holder.audiences, tenant_id=tenant_id)


def _tenant_of(namespace: str, account: str) -> tuple[UUID, str, datetime] | None:
    """Id, name and age of the tenant whose pod runs as this ServiceAccount; not one that is being deleted."""
    from tenants.workloads import SERVICE_ACCOUNT_PREFIX, namespace_of

    if not account.startswith(SERVICE_ACCOUNT_PREFIX):
        return None
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, name, created_at, cluster_tenant_ref FROM tenants_tenant WHERE name = %s AND NOT deleting",
            [account.removeprefix(SERVICE_ACCOUNT_PREFIX)],
        )
        row = cursor.fetchone()
    if row is None:
        return None
    *found, cluster_tenant = row
    return tuple(found) if namespace_of(cluster_tenant) == namespace else None


class InternalPermission(BasePermission):
    """Lets in what the view is for: pods with the right audience, or workloads that the settings name."""

    def has_permission(self, request: Any, view: Any) -> bool:
        caller = request.auth
        if not isinstance(caller, ClusterCaller):
            return False
        if caller.kind != view.callers:
            raise ForbiddenError(f"This is not for a {caller.kind}.")
        if caller.kind == POD and view.audience not in caller.audiences:
            raise exceptions.AuthenticationFailed(f"The token has to be for the audience {view.audience}.")
        return True


@extend_schema(exclude=True)
class InternalViewSet(ApiViewSet):
    """The base of views under /api/internal.

    Attributes:
        callers: `pod` or `workload`.
        audience: what a pod's token has to be meant for; of a workload, the settings say it.
    """

    authentication_classes = [ServiceAccountAuthentication]
    permission_classes = [InternalPermission]
    callers: ClassVar[str] = POD
    audience: ClassVar[str] = CONTROL_PLANE

    @property
    def caller(self) -> ClusterCaller:
        """Who is calling."""
        caller = self.request.auth
        if not isinstance(caller, ClusterCaller):
            raise ForbiddenError
        return caller

    @property
    def tenant_id(self) -> UUID:
        """Whose pod is calling; only where pods call."""
        tenant_id = self.caller.tenant_id
        if tenant_id is None:
            raise ForbiddenError("This is for pods of tenants.")
        return tenant_id
