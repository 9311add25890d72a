"""What the first start makes: an administrator and a token. Whoever has used them up makes the next ones by hand."""

from django.db import connection, transaction

from accounts.models import AccessToken, Role, User
from accounts.services import tokens
from opencrane.actor import SYSTEM
from operations.services import audit

FIRST_TOKEN = "bootstrap"  # noqa: S105  (a label)
_LOCK = 0x0C_BA5E


def _one_at_a_time() -> None:
    """Several web processes may start at once; the lock goes with the transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])


@transaction.atomic(durable=True)
def make_first_admin(*, username: str, password: str) -> bool:
    """Make an administrator unless there is one. Returns whether it was made.

    An account of that name that exists is left as it is: its password is not ours to change.
    """
    _one_at_a_time()
    if User.objects.filter(role=Role.ADMIN, is_active=True).exists():
        return False
    user, is_new = User.objects.get_or_create(username=username, defaults={"role": Role.ADMIN})
    if not is_new:
        return False
    user.is_staff = user.is_superuser = True
    user.set_password(password)
    user.save()
    audit.record(
        action="user.created",
        resource=f"User/{username}",
        message=f"Made the first administrator {username}",
        after={"username": username, "role": Role.ADMIN.value},
        actor=SYSTEM,
    )
    return True


def issue_first_token() -> str | None:
    """The secret of an admin token, once in the installation's life; None ever after, also when it was revoked."""
    with transaction.atomic(durable=True):
        _one_at_a_time()
        if AccessToken.objects.filter(name=FIRST_TOKEN, created_by=None).exists():
            return None
        return tokens.create_token(
            name=FIRST_TOKEN, role=Role.ADMIN, owner="", expires_at=None, creator_role=Role.ADMIN, actor=SYSTEM
        ).secret
