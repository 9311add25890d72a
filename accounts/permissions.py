"""What each role may do: one table, consulted by every view through its `resource`."""

from collections.abc import Mapping
from typing import Any

from rest_framework.permissions import SAFE_METHODS, BasePermission

from accounts.models import Role
from opencrane.api.identity import caller_of

READ, WRITE = "read", "write"
_ALL = frozenset({READ, WRITE})
_READ = frozenset({READ})
_NONE: frozenset[str] = frozenset()

# Role -> resource -> what is allowed; `*` stands for every resource that is not named. Where objects belong to
# somebody, a queryset says which of them a caller may see: of access tokens, everybody below admin has only their own
# (accounts/selectors.py). tests/roles/expected.py says the same a second time.
TABLE: Mapping[str, Mapping[str, frozenset[str]]] = {
    Role.ADMIN: {"*": _ALL},
    Role.OPERATOR: {"*": _ALL, "provider-keys": _NONE, "roles": _NONE, "platform-dns": _NONE},
    Role.VIEWER: {"*": _READ, "auth": _ALL, "provider-keys": _NONE, "roles": _NONE, "platform-dns": _NONE},
    Role.MEMBER: {"*": _NONE, "auth": _ALL},
}


def allows(role: str, resource: str, access: str) -> bool:
    """Whether `role` may `read` or `write` a resource; an unknown role may nothing."""
    row = TABLE.get(role)
    return row is not None and access in row.get(resource, row["*"])


class RolePermission(BasePermission):
    """Lets a caller in when the role table does. A view without `resource` lets nobody in, unless it is `public`."""

    def has_permission(self, request: Any, view: Any) -> bool:
        if view.public:
            return True
        caller = caller_of(request)
        if caller is None or not view.resource:
            return False
        return allows(caller.role, view.resource, READ if request.method in SAFE_METHODS else WRITE)
