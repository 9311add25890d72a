"""Typed readers for settings that come from the environment.

A missing or bad value stops the process with one sentence that names the variable; nothing falls back silently.
Values of secrets may be `file:///path`, so that mounted Kubernetes Secrets work; the trailing newline is dropped.
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from opencrane.addresses import Network, parse_networks


class ConfigurationError(SystemExit):
    """A setting is missing or bad. Ends the process with its sentence on stderr and exit status 1."""

    def __init__(self, variable: str, why: str) -> None:
        super().__init__(f"OpenCrane cannot start: {variable} {why}")
        self.variable = variable


def _raw(name: str) -> str | None:
    value = os.environ.get(name)
    return value.strip() if value is not None and value.strip() else None


def text(name: str, default: str = "") -> str:
    """The variable's text, or `default` when it is unset or blank."""
    return _raw(name) or default


def secret(name: str) -> str:
    """A secret's text, read from the file it names when it is a `file://` URL; empty when unset."""
    value = _raw(name)
    if value is None:
        return ""
    if not value.startswith("file://"):
        return value
    path = Path(unquote(urlsplit(value).path))
    try:
        content = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(name, f"names the file {path}, which cannot be read: {exc}") from exc
    if not content:
        raise ConfigurationError(name, f"names the file {path}, which is empty")
    return content


def required_secret(name: str, hint: str) -> str:
    """A secret that has no default; `hint` says how to get one."""
    value = secret(name)
    if not value:
        raise ConfigurationError(name, f"is not set; {hint}")
    return value


def boolean(name: str, default: bool) -> bool:
    """`true/false`, `yes/no`, `on/off` or `1/0`."""
    value = _raw(name)
    if value is None:
        return default
    lowered = value.lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off"}:
        return False
    raise ConfigurationError(name, f"is {value!r}, but has to be true or false")


def integer(name: str, default: int, *, minimum: int | None = None, maximum: int | None = None) -> int:
    """A whole number within the given bounds."""
    value = _raw(name)
    if value is None:
        return default
    try:
        number = int(value)
    except ValueError as exc:
        raise ConfigurationError(name, f"is {value!r}, but has to be a whole number") from exc
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        bounds = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise ConfigurationError(name, f"is {number}, but has to be {bounds}")
    return number


def choice(name: str, default: str, choices: Sequence[str]) -> str:
    """One of `choices`."""
    value = _raw(name) or default
    if value not in choices:
        raise ConfigurationError(name, f"is {value!r}, but has to be one of {', '.join(choices)}")
    return value


def words(name: str, default: Sequence[str] = ()) -> list[str]:
    """A comma-separated list; blanks are dropped."""
    value = _raw(name)
    return [part.strip() for part in value.split(",") if part.strip()] if value is not None else list(default)


def url(name: str, *, schemes: Sequence[str] = ("http", "https"), is_secret: bool = False) -> str:
    """An absolute URL of one of `schemes` without its trailing slash, or empty when unset."""
    value = secret(name) if is_secret else text(name)
    if not value:
        return ""
    try:
        parts = urlsplit(value)
        bad = parts.scheme not in schemes or not (parts.netloc or parts.path)
    except ValueError:
        bad = True
    if bad:
        # The value itself stays out of the message: URLs carry passwords.
        raise ConfigurationError(name, f"has to be a URL starting with {' or '.join(s + '://' for s in schemes)}")
    return value.rstrip("/")


def named_urls(name: str) -> dict[str, str]:
    """A comma-separated list of `name=https://…`; names are DNS labels."""
    found: dict[str, str] = {}
    for entry in words(name):
        label, _, address = entry.partition("=")
        parts = urlsplit(address)
        if not re.fullmatch(_LABEL, label) or parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ConfigurationError(name, "has an entry that does not look like name=https://host/path")
        found[label] = address
    return found


def together(needed: Mapping[str, str], optional: Mapping[str, object]) -> bool:
    """Whether a group of settings that only make sense together is there: all of `needed`, or nothing of the group.

    Args:
        needed: value by variable.
        optional: value by variable; these may be absent, but need the others.
    """
    given = [name for name, value in {**needed, **optional}.items() if value]
    missing = [name for name, value in needed.items() if not value]
    if given and missing:
        names = " and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
        raise ConfigurationError(names, f"{'is' if len(missing) == 1 else 'are'} not set, but {given[0]} is")
    return not missing


def pairs(name: str, values: Sequence[str]) -> dict[str, str]:
    """A comma-separated list of `key=value`, or a JSON object where keys have commas; each value one of `values`."""
    given = _raw(name)
    if given is None:
        return {}
    entries: list[tuple[str, object]]
    if given.startswith("{"):
        try:
            entries = list(json.loads(given).items())
        except ValueError as exc:
            raise ConfigurationError(name, f"starts like JSON, but is none: {exc}") from exc
    else:
        # The last sign counts: keys, such as distinguished names, may have some.
        entries = [(key, value.strip()) for key, _, value in (entry.rpartition("=") for entry in words(name))]
    found: dict[str, str] = {}
    for key, value in entries:
        plain = key.strip()
        if not plain or not isinstance(value, str) or value not in values:
            raise ConfigurationError(name, f"has the entry {plain!r}, but entries look like name={'|'.join(values)}")
        if plain in found:
            raise ConfigurationError(name, f"has {plain!r} twice")
        found[plain] = value
    return found


def check_issuer(name: str, issuer: str, *, needs_tls: bool) -> None:
    """Refuse what cannot be an OpenID issuer: a URL without query and fragment, by TLS except on this machine."""
    try:
        parts = urlsplit(issuer)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and not (parts.query or parts.fragment)
    except ValueError:
        is_url = False
    if not is_url:
        raise ConfigurationError(name, "has to be a URL starting with https://, without query and fragment")
    if needs_tls and parts.scheme != "https" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise ConfigurationError(name, "has to start with https:// in production")


_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_WORKLOAD = re.compile(rf"(?P<account>{_LABEL}/{_LABEL}(\.{_LABEL})*):(?P<audience>[!-+\--~]{{1,256}})")


def workloads(name: str) -> dict[str, str]:
    """A comma-separated list of `namespace/name:audience`: the audience by the ServiceAccount it is expected of."""
    found: dict[str, str] = {}
    for entry in words(name):
        match = _WORKLOAD.fullmatch(entry)
        if match is None:
            raise ConfigurationError(name, f"has the entry {entry!r}, but entries look like namespace/name:audience")
        account = match["account"]
        if account.partition("/")[2].startswith("openclaw-"):
            raise ConfigurationError(name, f"has the entry {entry!r}, but tenants run as openclaw-…")
        if account in found:
            raise ConfigurationError(name, f"has {account} twice")
        found[account] = match["audience"]
    return found


def encryption_keys(name: str) -> tuple[bytes, ...]:
    """Keys of 32 bytes in URL-safe base64, separated by commas or line ends; the variable is a secret.

    The values stay out of the message when one is bad.
    """
    keys: list[bytes] = []
    for number, entry in enumerate(re.split(r"[\s,]+", secret(name).strip(" ,\n")), 1):
        if not entry:
            continue
        try:
            key = base64.b64decode(entry.encode("ascii"), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            key = b""
        if len(key) != 32:
            raise ConfigurationError(name, f"has a key, number {number}, that is not 32 bytes in URL-safe base64")
        if key in keys:
            raise ConfigurationError(name, f"has the same key twice, number {number} is the second")
        keys.append(key)
    return tuple(keys)


def networks(name: str) -> tuple[Network, ...]:
    """A comma-separated list of addresses and networks in CIDR notation."""
    try:
        return parse_networks(words(name))
    except ValueError as exc:
        raise ConfigurationError(name, f"is a list of networks, but {exc}") from exc
