"""Reading policies."""

from django.db import connection


def policy_exists(name: str) -> bool:
    """Whether a policy of that name can be referred to; one that is being deleted counts as missing.

    The policy is kept from being marked for deletion until the caller's transaction ends.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM policies_accesspolicy WHERE name = %s AND NOT deleting FOR KEY SHARE", [name])
        return cursor.fetchone() is not None
