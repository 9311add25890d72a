"""What flags hold: text on the command line into what the API takes. Readers raise ValueError with a sentence."""

import datetime
import re
from typing import Any

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(\d+)([smhdw])")


def text(given: str) -> str:
    """As it is."""
    return given


def integer(given: str) -> int:
    """A whole number."""
    try:
        return int(given)
    except ValueError as exc:
        raise ValueError(f"{given} is no whole number") from exc


def count(given: str) -> int:
    """How many: a whole number from 0."""
    found = integer(given)
    if found < 0:
        raise ValueError("has to be 0 or more")
    return found


def money(given: str) -> float | int:
    """US dollars: `250`, `12.50`, `$12.50`."""
    plain = given.removeprefix("$")
    if not re.fullmatch(r"\d+(\.\d+)?", plain, re.ASCII):
        raise ValueError(f"{given} is no amount of US dollars; one looks like 12.50")
    return float(plain) if "." in plain else int(plain)


def seconds(given: str) -> float:
    """Seconds, or a length of time."""
    if re.fullmatch(r"\d+(\.\d+)?", given, re.ASCII):
        return float(given)
    return span(given)


def span(given: str) -> int:
    """A length of time in seconds: `90d`, `1h30m`, `45s`."""
    parts = _SPAN.findall(given)
    if not parts or "".join(f"{amount}{unit}" for amount, unit in parts) != given:
        raise ValueError(f"{given} is no length of time; one looks like 90d, 12h or 1h30m")
    return sum(int(amount) * _UNITS[unit] for amount, unit in parts)


def past(given: str) -> str:
    """A time, or how long ago: `2026-05-01`, `2026-05-01T12:00:00Z`, `24h`. Without an offset it is UTC."""
    return _time(given, -1)


def future(given: str) -> str:
    """A time, or how long until then: `90d`."""
    return _time(given, 1)


def _time(given: str, direction: int) -> str:
    if given[-1:] in _UNITS:
        try:
            moment = datetime.datetime.now(datetime.UTC) + direction * datetime.timedelta(seconds=span(given))
        except OverflowError as exc:
            raise ValueError(f"{given} is beyond the calendar") from exc
    else:
        try:
            moment = datetime.datetime.fromisoformat(given)
        except ValueError as exc:
            raise ValueError(f"{given} is no time; one looks like 2026-05-01, 2026-05-01T12:00:00Z or 24h") from exc
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return moment.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")


def pair(given: str) -> tuple[str, str]:
    """`key=value`."""
    key, equals, value = given.partition("=")
    if not key or not equals:
        raise ValueError(f"{given} is no KEY=VALUE")
    return key, value


def egress(given: str) -> dict[str, Any]:
    """An egress rule: `10.0.0.0/8`, `10.0.0.0/8:443`, `10.0.0.0/8:443,8443/TCP`, `[2001:db8::/32]:53/UDP`."""
    match = re.fullmatch(
        r"(?:\[(?P<six>[^\]]+)\]|(?P<four>[^:\[\]]+/\d+|[^:/\[\]]+))(?::(?P<ports>[\d,]+))?(?:/(?P<protocol>[A-Za-z]+))?",
        given,
    )
    if match is None:
        raise ValueError(f"{given} is no rule; one looks like 10.0.0.0/8:443,8443/TCP or [2001:db8::/32]:53/UDP")
    rule: dict[str, Any] = {"cidr": match["six"] or match["four"]}
    if match["ports"]:
        rule["ports"] = [int(port) for port in match["ports"].split(",") if port]
    if match["protocol"]:
        rule["protocol"] = match["protocol"].upper()
    return rule


def subject(given: str) -> dict[str, str]:
    """Whom a grant is for: `group:NAME`, `tenant:NAME` or `user:EMAIL`; an address alone is a user."""
    kind, colon, name = given.partition(":")
    if not colon and "@" in given:
        kind, name = "user", given
    if kind not in ("group", "tenant", "user") or not name:
        raise ValueError(f"{given} is nobody; say group:NAME, tenant:NAME or user:EMAIL")
    return {"subjectType": kind, "subjectName": name}


def selector(given: str) -> dict[str, str]:
    """A dataset in its scope: `project:atlas`."""
    scope, colon, payload = given.partition(":")
    if not colon or not scope or not payload:
        raise ValueError(f"{given} is no dataset in a scope; one looks like project:atlas")
    return {"scope": scope, "payloadId": payload}
