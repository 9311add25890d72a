"""Accounts of people: make and change them, with an audit entry in the same transaction."""

from typing import Any

from django.db import transaction

from accounts.models import Role, User
from opencrane.actor import Actor
from operations.services import audit

_AUDITED = ("username", "email", "first_name", "last_name", "role", "is_active")


@transaction.atomic
def save_user(*, user: User, actor: Actor) -> User:
    """Insert or update an account; the role alone decides what it may do, Django's flags follow it.

    Args:
        user: with its new values, the password already hashed. Nothing is audited when nothing changed.
    """
    before = User.objects.select_for_update().filter(pk=user.pk).values(*_AUDITED).first() if user.pk else None
    user.is_staff = user.role != Role.MEMBER
    user.is_superuser = user.role == Role.ADMIN
    user.save()
    after = {field: getattr(user, field) for field in _AUDITED}
    if before is None:
        _record("user.created", f"Made the account {user.username}.", user, None, after, actor)
        return user
    changed = [field for field in _AUDITED if before[field] != after[field]]
    if changed:
        text = f"Changed {', '.join(changed)} of the account {user.username}."
        old, new = {f: before[f] for f in changed}, {f: after[f] for f in changed}
        _record("user.changed", text, user, old, new, actor)
    return user


@transaction.atomic
def note_password_change(*, user: User, actor: Actor) -> None:
    """Audit that somebody set an account's password."""
    _record("user.password_changed", f"Changed the password of {user.username}.", user, None, None, actor)


def _record(action: str, message: str, user: User, before: Any, after: Any, actor: Actor) -> None:
    audit.record(
        action=action, resource=f"User/{user.username}", message=message, before=before, after=after, actor=actor
    )
