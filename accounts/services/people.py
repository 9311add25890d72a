"""Accounts of people: make and change them, with an audit entry in the same transaction."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, transaction

from accounts.errors import SignInRefusedError
from accounts.models import Role, User
from opencrane.actor import Actor
from operations.services import audit

if TYPE_CHECKING:
    from accounts.oidc.claims import Profile

_AUDITED = ("username", "email", "first_name", "last_name", "role", "role_pinned", "is_active")
_USERNAME_MAX = 150


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


def sign_in_person(*, profile: Profile, actor: Actor) -> User:
    """The account of somebody whom an OpenID provider vouches for, made or brought up to date.

    Known by issuer and subject. At the first sign-in an account that an administrator made for the address, without a
    password and without a provider's identity, becomes theirs. Names and address follow the provider; so does the role,
    unless it is pinned.

    Args:
        actor: who the audit trail should name when something changed.

    Raises:
        SignInRefusedError: the account is switched off, or the address belongs to another account.
    """
    try:
        return _sign_in_person(profile, actor)
    except IntegrityError:
        # Somebody signed in twice at the same moment: the other one made the account.
        return _sign_in_person(profile, actor)


@transaction.atomic(durable=True)
def _sign_in_person(profile: Profile, actor: Actor) -> User:
    locked = User.objects.select_for_update()
    user = locked.filter(oidc_issuer=profile.issuer, oidc_subject=profile.subject).first()
    holder = locked.filter(email__iexact=profile.email).first()
    if user is None:
        user = holder
        if user is not None and (user.oidc_subject or user.has_usable_password()):
            raise _address_taken()
    elif holder is not None and holder.pk != user.pk:
        raise _address_taken()
    if user is None:
        user = User(username=_free_username(profile.email))
        user.set_unusable_password()
    if not user.is_active:
        raise SignInRefusedError("Your account is switched off.")
    user.oidc_issuer, user.oidc_subject, user.email = profile.issuer, profile.subject, profile.email
    user.first_name, user.last_name = profile.first_name, profile.last_name
    if not user.role_pinned:
        user.role = profile.role
    return save_user(user=user, actor=actor)


def _address_taken() -> SignInRefusedError:
    return SignInRefusedError(
        "Another account has your e-mail address already.",
        detail="An administrator can change that account's address, or switch its password off.",
    )


def _free_username(email: str) -> str:
    """The address; shortened, or told apart by a few letters, where it has to be."""
    name = email.lower()
    if len(name) <= _USERNAME_MAX and not User.objects.filter(username__iexact=name).exists():
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{name[: _USERNAME_MAX - 11]}-{mark}"
