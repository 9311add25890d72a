"""Judge what an OpenID provider says: whether a token is good, who it speaks of, whether they may come in, as what."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import structlog
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from accounts.errors import SignInFailedError, SignInRefusedError
from accounts.models import Role
from accounts.oidc.provider import ALGORITHMS, Provider

log = structlog.get_logger(__name__)

# How far the provider's clock may be off ours.
SKEW_SECONDS = 60
TOKEN_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Profile:
    """A person, as the provider vouches for them.

    Attributes:
        issuer, subject: by which the person is known for ever.
        email: verified by the provider.
        role: what groups and address give them here.
    """

    issuer: str
    subject: str
    email: str
    role: Role
    first_name: str = ""
    last_name: str = ""


def verified_claims(token: Any, *, provider: Provider, nonce: str, access_token: str) -> dict[str, Any]:
    """The claims of an ID token that is good for this client and this sign-in (OpenID Connect Core 3.1.3.7).

    Signature by RS256 or ES256 with a key that the provider publishes; issuer, audience, authorized party, expiry,
    time of issue and nonce; the access token's hash where it has one.

    Raises:
        SignInFailedError: it is not; the log says why.
        DependencyUnavailableError, UpstreamError: the provider's keys cannot be had.
    """
    if not isinstance(token, str) or len(token) > TOKEN_MAX:
        raise SignInFailedError(detail="It has no ID token.")
    client_id: str = settings.OIDC_RP_CLIENT_ID
    try:
        header = jwt.get_unverified_header(token)
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise jwt.InvalidAlgorithmError("it is signed by an algorithm other than RS256 and ES256")
        claims: dict[str, Any] = jwt.decode(
            token,
            provider.key_for(key_id if isinstance(key_id, str) else None, algorithm),
            algorithms=[algorithm],
            audience=client_id,
            issuer=provider.metadata().issuer,
            leeway=SKEW_SECONDS,
            options={"require": ["iss", "sub", "aud", "exp", "iat"]},
        )
    except jwt.PyJWTError as exc:
        # The library's sentences name claims, never their values' secrets.
        log.warning("an ID token was refused", reason=str(exc))
        raise SignInFailedError(detail=_REASONS.get(type(exc), "Its ID token is not valid.")) from exc
    subject, party = claims["sub"], claims.get("azp")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255 or "\x00" in subject:
        raise SignInFailedError(detail="Its ID token names no subject.")
    if (isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and party is None) or party not in {None, client_id}:
        raise SignInFailedError(detail="Its ID token was issued to another client.")
    given = claims.get("nonce")
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
        raise SignInFailedError(detail="Its ID token is of another sign-in.")
    if "at_hash" in claims and claims["at_hash"] != _half_hash(access_token):
        raise SignInFailedError(detail="Its access token does not belong to its ID token.")
    return claims


_REASONS: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "Its ID token has expired. If this happens at once, compare the clocks.",
    jwt.ImmatureSignatureError: "Its ID token is from the future: compare the clocks.",
    jwt.InvalidAudienceError: "Its ID token is meant for another client.",
    jwt.InvalidIssuerError: "Its ID token is from another issuer.",
    jwt.InvalidSignatureError: "Its ID token has a wrong signature.",
    jwt.InvalidAlgorithmError: "Its ID token is not signed by RS256 or ES256.",
}


def _half_hash(access_token: str) -> str:
    """`at_hash` for algorithms on SHA-256 (OpenID Connect Core 3.1.3.6)."""
    digest = hashlib.sha256(access_token.encode("ascii", "replace")).digest()
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


def profile_of(id_claims: Mapping[str, Any], userinfo: Mapping[str, Any], issuer: str) -> Profile:
    """The person that an ID token and userinfo speak of, if they may come in.

    Raises:
        SignInFailedError: userinfo is of somebody else.
        SignInRefusedError: no verified address, or one that is not on the allow-lists.
    """
    if userinfo and userinfo.get("sub") != id_claims["sub"]:
        # Otherwise one person could be given another's (OpenID Connect Core 5.3.2).
        raise SignInFailedError(detail="Its userinfo is of somebody else.")
    # The address and whether it is verified come from the same document.
    about = id_claims if "email" in id_claims and "email_verified" in id_claims else userinfo
    email = _email(about)
    if email is None:
        raise SignInRefusedError("The OpenID provider gave no e-mail address for you.")
    if about.get("email_verified") not in (True, "true"):
        raise SignInRefusedError(
            "Your e-mail address is not verified.", detail="Have the OpenID provider verify it, then sign in again."
        )
    domains, addresses = settings.OIDC_ALLOWED_DOMAINS, settings.OIDC_ALLOWED_EMAILS
    is_listed = email.lower() in addresses or email.lower().rpartition("@")[2] in domains
    if (domains or addresses) and not is_listed:
        raise SignInRefusedError("Your e-mail address is not among those that may sign in here.")
    claim: str = settings.OIDC_GROUPS_CLAIM
    groups = id_claims.get(claim, userinfo.get(claim))
    first, last = _names({**userinfo, **id_claims})
    return Profile(issuer, id_claims["sub"], email, role_for(email, groups), first, last)


def role_for(email: str, groups: Any) -> Role:
    """The most that the address and any of the groups give; `member` where nothing is mapped."""
    names = {groups} if isinstance(groups, str) else {each for each in groups or () if isinstance(each, str)}
    group_roles, email_roles = settings.OIDC_GROUP_ROLES, settings.OIDC_EMAIL_ROLES
    found = [Role(role) for name, role in group_roles.items() if name in names]
    found += [Role(role) for address, role in email_roles.items() if address.lower() == email.lower()]
    return max(found, key=lambda role: role.rank, default=Role.MEMBER)


def _email(claims: Mapping[str, Any]) -> str | None:
    value = claims.get("email")
    if not isinstance(value, str) or len(value) > 254:
        return None
    try:
        validate_email(value)
    except ValidationError:
        return None
    return value


def _names(claims: Mapping[str, Any]) -> tuple[str, str]:
    """First and last name, as far as they are told; at most 150 characters each."""

    def text(name: str) -> str:
        value = claims.get(name)
        return "".join(each for each in value if each.isprintable()).strip()[:150] if isinstance(value, str) else ""

    first, last = text("given_name"), text("family_name")
    if not (first or last):
        first, _, last = text("name").rpartition(" ")
        return (first, last) if first else (last, "")
    return first, last
