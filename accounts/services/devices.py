"""The device authorization grant (RFC 8628): a command line gets a token that a person approves in a browser.

All state is in PostgreSQL, so any web process may serve any step.
"""

import datetime
import hashlib
import secrets
from dataclasses import dataclass, replace

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.crypto import salted_hmac

from accounts.errors import DeviceCodeNotFoundError, DeviceGrantExpiredError, SlowDownError
from accounts.models import DeviceGrant, Role, User
from accounts.services.tokens import create_token
from opencrane.actor import Actor
from opencrane.errors import ForbiddenError
from operations.services import audit

# No vowels, so no words; no digits, so nothing that looks like a letter (RFC 8628, 6.1).
ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
LIFE_SECONDS = 300
INTERVAL_SECONDS = 5
# A client's clock and the network are no reason to call it too fast.
_TOLERANCE = datetime.timedelta(seconds=0.5)
_KEPT = datetime.timedelta(hours=1)
_AGENT_MAX = 200


@dataclass(frozen=True, slots=True)
class DeviceCodes:
    """What a device is given, once."""

    device_code: str
    user_code: str

    def __repr__(self) -> str:
        return f"DeviceCodes({self.user_code})"


def normalized(user_code: str) -> str:
    """What somebody typed as `XXXX-XXXX`; empty when it cannot be a code."""
    letters = "".join(each for each in user_code.upper() if each not in "- \t")
    if len(letters) != 8 or not set(letters) <= set(ALPHABET):
        return ""
    return f"{letters[:4]}-{letters[4:]}"


def _device_digest(device_code: str) -> str:
    return hashlib.sha256(device_code.encode("utf-8", "surrogateescape")).hexdigest()


def _user_digest(user_code: str) -> str:
    # Keyed, because eight letters could be found from a plain digest.
    return salted_hmac("accounts.devices.user_code", user_code, algorithm="sha256").hexdigest()


def start_grant(*, address: str, agent: str) -> DeviceCodes:
    """Begin a grant of five minutes.

    Args:
        address: where the request came from; shown to whoever approves.
        agent: the program's User-Agent; shown as well, cut to 200 characters.
    """
    agent = "".join(each if each.isprintable() else " " for each in agent)[:_AGENT_MAX].strip()
    while True:
        letters = "".join(secrets.choice(ALPHABET) for _ in range(8))
        codes = DeviceCodes(secrets.token_urlsafe(32), f"{letters[:4]}-{letters[4:]}")
        try:
            with transaction.atomic():
                DeviceGrant.objects.create(
                    device_digest=_device_digest(codes.device_code),
                    user_digest=_user_digest(codes.user_code),
                    address=address,
                    agent=agent,
                    expires_at=timezone.now() + datetime.timedelta(seconds=LIFE_SECONDS),
                )
        except IntegrityError:
            continue  # the code is taken, once in 25 billion times
        return codes


def waiting_grant(user_code: str) -> DeviceGrant:
    """The grant that waits for a decision under this code.

    Raises:
        DeviceCodeNotFoundError: none does.
    """
    code = normalized(user_code)
    grant = DeviceGrant.objects.filter(user_digest=_user_digest(code)).first() if code else None
    if grant is None or not _is_waiting(grant):
        raise DeviceCodeNotFoundError
    return grant


def _is_waiting(grant: DeviceGrant) -> bool:
    return grant.state == DeviceGrant.State.PENDING and grant.expires_at > timezone.now()


@transaction.atomic(durable=True)
def decide_grant(*, user_code: str, approve: bool, role: Role | None = None, actor: Actor) -> DeviceGrant:
    """Approve or refuse a waiting grant.

    Args:
        role: what the token may do, at most the person's own role; that one, if None.
        actor: the person, signed in.

    Raises:
        DeviceCodeNotFoundError: no grant waits under this code.
        ForbiddenError: the role is more than the person's.
    """
    person = _active(actor.user_id)
    if person is None:
        raise ForbiddenError("Only a person can decide about a device.")
    code = normalized(user_code)
    grant = DeviceGrant.objects.select_for_update().filter(user_digest=_user_digest(code)).first() if code else None
    if grant is None or not _is_waiting(grant):
        raise DeviceCodeNotFoundError
    own = Role(person.role)
    role = role or own
    if role.rank > own.rank:
        raise ForbiddenError(f"A device may not have more than your own role, {own}.")
    grant.state = DeviceGrant.State.APPROVED if approve else DeviceGrant.State.DENIED
    grant.decided_by, grant.decided_at, grant.role = person, timezone.now(), role
    grant.save(update_fields=["state", "decided_by", "decided_at", "role"])
    verb, whence = "Approved" if approve else "Refused", grant.address or "an unknown address"
    audit.record(
        action=f"device_grant.{grant.state}",
        resource=f"DeviceGrant/{grant.pk}",
        message=f"{verb} a device that asked from {whence}",
        after={"address": grant.address, "agent": grant.agent} | ({"role": str(role)} if approve else {}),
        actor=actor,
    )
    return grant


@transaction.atomic(durable=True)
def poll_grant(*, device_code: str, actor: Actor) -> str | None:
    """The token, once, when the grant was approved; None while it waits.

    The token is made here, in the transaction that marks the grant as redeemed, for the person who approved.

    Args:
        actor: whoever polls; its address and request id go into the audit entry.

    Raises:
        DeviceGrantExpiredError: expired, refused, redeemed or unknown.
        SlowDownError: it waits, and the last poll was less than the interval ago. The first poll is never too fast.
    """
    grant = DeviceGrant.objects.select_for_update().filter(device_digest=_device_digest(device_code)).first()
    now = timezone.now()
    if grant is None or grant.expires_at <= now or grant.state == DeviceGrant.State.REDEEMED:
        raise DeviceGrantExpiredError
    if grant.state == DeviceGrant.State.DENIED:
        raise DeviceGrantExpiredError("The request was refused.", detail="access_denied")
    if grant.state == DeviceGrant.State.PENDING:
        interval = datetime.timedelta(seconds=INTERVAL_SECONDS)
        if grant.polled_at is not None and now < grant.polled_at + interval - _TOLERANCE:
            left = max(1, round((grant.polled_at + interval - now).total_seconds() + 0.5))
            raise SlowDownError(headers={"Retry-After": str(left)})
        grant.polled_at = now
        grant.save(update_fields=["polled_at"])
        return None
    person = _active(grant.decided_by_id)
    if person is None:
        raise DeviceGrantExpiredError("The request was refused.", detail="access_denied")
    role = min(Role(grant.role), Role(person.role), key=lambda each: each.rank)
    days: int = settings.DEVICE_TOKEN_DAYS
    issued = create_token(
        name=f"device: {grant.agent or 'unknown program'}"[:200],
        owner=person.email or person.username,
        role=role,
        expires_at=now + datetime.timedelta(days=days) if days else None,
        creator_role=Role(person.role),
        actor=replace(actor, kind="user", name=person.username, user_id=person.pk),
    )
    grant.state = DeviceGrant.State.REDEEMED
    grant.save(update_fields=["state"])
    return issued.secret


def _active(user_id: int | None) -> User | None:
    return User.objects.filter(pk=user_id, is_active=True).first() if user_id is not None else None


def purge_grants() -> int:
    """Drop grants that ended more than an hour ago; returns how many."""
    deleted, _ = DeviceGrant.objects.filter(expires_at__lt=timezone.now() - _KEPT).delete()
    return deleted
