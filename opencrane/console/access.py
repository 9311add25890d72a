"""Who may see or change what in the console: the same role table as the API's, named by a setting."""

import functools
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

READ, WRITE = "read", "write"


@functools.cache
def _table() -> Callable[[str, str, str], bool]:
    found: Callable[[str, str, str], bool] = import_string(settings.CONSOLE_ALLOWS)
    return found


def may(user: Any, resource: str, access: str) -> bool:
    """Whether a signed-in, active person may `read` or `write` a resource. Superusers may everything."""
    if not (user.is_authenticated and user.is_active):
        return False
    return bool(user.is_superuser) or _table()(user.role, resource, access)
