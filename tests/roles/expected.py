"""What each role may do, written down a second time, so that a slip in accounts/permissions.py or in a view shows.

A new view usually needs one line: its `resource` in RESOURCES. Only what goes by other rules stands below it.
"""

from collections.abc import Mapping

ROLES = ("member", "viewer", "operator", "admin")

# resource -> what member, viewer, operator and admin may: nothing, read, or read and write.
RESOURCES: Mapping[str, tuple[str, str, str, str]] = {
    # A member may ask who they are, and for the token of their own pod.
    "auth": ("rw", "rw", "rw", "rw"),
    # Below admin: only those one has made oneself.
    "access-tokens": ("", "r", "rw", "rw"),
    "accounts": ("", "r", "r", "rw"),
    "audit": ("", "r", "rw", "rw"),
    "awareness": ("", "r", "rw", "rw"),
    "groups": ("", "r", "rw", "rw"),
    "jobs": ("", "r", "rw", "rw"),
    "mcp-servers": ("", "r", "rw", "rw"),
    "metrics": ("", "r", "rw", "rw"),
    "policies": ("", "r", "rw", "rw"),
    "sessions": ("", "r", "rw", "rw"),
    "skills": ("", "r", "rw", "rw"),
    "tenants": ("", "r", "rw", "rw"),
    "webhooks": ("", "r", "rw", "rw"),
    "ai-budget": ("", "r", "rw", "rw"),
    "token-usage": ("", "r", "rw", "rw"),
    "cluster-tenants": ("", "r", "rw", "rw"),
    "third-party-sources": ("", "r", "rw", "rw"),
    "platform-dns": ("", "", "", "rw"),
    "provider-keys": ("", "", "", "rw"),
    "roles": ("", "", "", "rw"),
}

# API views that let callers without credentials in.
PUBLIC = {
    "GET /api/v1/auth/me",
    "POST /api/v1/auth/logout",
    "GET /api/v1/auth/login",
    "GET /api/v1/auth/callback",
    "POST /api/v1/auth/device",
    "GET /api/v1/auth/device/activate",
    "POST /api/v1/auth/device/activate",
    "GET /api/v1/auth/device/token",
    "GET /api/v1/openapi.json",
    "GET /api/docs",
    "GET /api/docs/",
}

# API operations where some callers get another answer than their role's: caller -> status.
API_EXCEPTIONS: Mapping[str, Mapping[str, int]] = {
    # For people, not for their tokens.
    "POST /api/v1/auth/pod-token": dict.fromkeys((*ROLES, "static"), 403),
}

# Views that are plain functions: `open` to everybody, for those who may enter the `console`, for `nobody`, or by a
# resource; with `:read`, a form sent there changes nothing.
OTHERS: Mapping[str, str] = {
    "GET /healthz": "open",
    "POST /healthz": "open",
    "GET /readyz": "open",
    "POST /readyz": "open",
    "GET /": "open",
    "POST /": "open",
    "GET /admin/login/": "open",
    "POST /admin/login/": "open",
    "GET /admin/": "console",
    "POST /admin/": "tenants",
    "GET /admin/logout/": "open",
    "POST /admin/logout/": "open",
    "GET /admin/search/": "console",
    "POST /admin/search/": "console",
    "GET /admin/password_change/": "console",
    "POST /admin/password_change/": "console",
    "GET /admin/password_change/done/": "console",
    "POST /admin/password_change/done/": "console",
    "GET /admin/jsi18n/": "console",
    "POST /admin/jsi18n/": "console",
    "GET /admin/autocomplete/": "nobody",
    "POST /admin/autocomplete/": "console",
    "GET /admin/r/<path:content_type_id>/<path:object_id>/": "console",
    "POST /admin/r/<path:content_type_id>/<path:object_id>/": "console",
    "GET /admin/accounts/user/": "accounts",
    "POST /admin/accounts/user/": "accounts:read",
    "GET /admin/accounts/user/add/": "roles",
    "POST /admin/accounts/user/add/": "roles",
    "GET /admin/accounts/user/<id>/password/": "roles",
    "POST /admin/accounts/user/<id>/password/": "roles",
    "GET /admin/accounts/user/<path:object_id>/history/": "accounts",
    "POST /admin/accounts/user/<path:object_id>/history/": "accounts:read",
    "GET /admin/accounts/user/<path:object_id>/delete/": "nobody",
    "POST /admin/accounts/user/<path:object_id>/delete/": "nobody",
    "GET /admin/accounts/user/<path:object_id>/change/": "accounts",
    "POST /admin/accounts/user/<path:object_id>/change/": "accounts",
    "GET /admin/accounts/user/<path:object_id>/": "console",
    "POST /admin/accounts/user/<path:object_id>/": "console",
    "GET /admin/^(?P<app_label>accounts)/$": "console",
    "POST /admin/^(?P<app_label>accounts)/$": "console",
    "GET /admin/(?P<url>.*)$": "console",
    "POST /admin/(?P<url>.*)$": "console",
}


def may(role: str, resource: str, *, write: bool) -> bool:
    """Whether the lines above let a role in."""
    return ("w" if write else "r") in RESOURCES[resource][ROLES.index(role)]
