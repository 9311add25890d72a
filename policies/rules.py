"""What a policy's fields may hold. The API's serializers and repair go by the same rules. Pure."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

from cluster.kinds import Spec

NAME_MAX = 63
DESCRIPTION_MAX = 2000
DOMAIN_MAX = 253
ITEM_MAX = 253
MAX_ITEMS = 1000
MAX_PORTS = 100
PROTOCOLS = ("TCP", "UDP")
LABEL_MAX = 63
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
# The last label has a letter, so that no address passes for a name. IDNs are written in their xn-- form.
DOMAIN_PATTERN = rf"^(\*\.)?({_LABEL}\.)*(?=[-0-9]*[a-z]){_LABEL}$"
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
LABEL_KEY_PATTERN = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
LABEL_KEY_MAX = 253 + 1 + 63


def domain(value: Any) -> str:
    """A domain in its normal form, lower case; it may start with `*.`.

    Raises:
        ValueError: it is none.
    """
    text = _text(value, DOMAIN_MAX + 2).lower()
    if len(text.removeprefix("*.")) > DOMAIN_MAX or not re.match(DOMAIN_PATTERN, text):
        raise ValueError("Has to be a domain name such as example.com or *.example.com.")
    return text


def network(value: Any) -> str:
    """A network in its normal form: lower case, zeros compressed.

    Raises:
        ValueError: it is no network, or an address within one: whether the network or the one address was meant,
            nobody can tell.
    """
    text = _text(value, 64)
    if "%" in text or not re.fullmatch(r".+/[0-9]{1,3}", text):
        raise ValueError(
            "Has to be a network such as 10.0.0.0/8 or 2001:db8::/32; a single address ends in /32 or /128."
        )
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError as exc:
        raise ValueError("Has to be a network such as 10.0.0.0/8 or 2001:db8::/32.") from exc
    raise ValueError(f"Is an address within {meant}; write that network, or the address with /{meant.max_prefixlen}.")


def port(value: Any) -> int:
    """Raises ValueError unless it is a port number."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise ValueError("Has to be a port from 1 to 65535.")
    return value


def label_key(value: Any) -> str:
    """Raises ValueError unless it is the key of a Kubernetes label."""
    text = _text(value, LABEL_KEY_MAX)
    if not re.match(LABEL_KEY_PATTERN, text) or len(text.rpartition("/")[0]) > 253:
        raise ValueError("Has to be the key of a Kubernetes label.")
    return text


def label_value(value: Any) -> str:
    """Raises ValueError unless it is a value of a Kubernetes label; empty is one."""
    if not isinstance(value, str) or len(value) > LABEL_MAX or not re.fullmatch(LABEL_VALUE_PATTERN, value):
        raise ValueError("Has to be a value of a Kubernetes label.")
    return value


def checked_spec(spec: Mapping[str, Any]) -> Spec:
    """The fields of a custom resource's spec that a policy's row can hold, as they are.

    Raises:
        ValueError: one of them breaks a rule; the sentence names it.
    """
    out: Spec = {}
    for name, check in _CHECKS.items():
        value = spec.get(name)
        if value is None:
            continue
        try:
            check(value)
        except (ValueError, TypeError) as exc:
            raise ValueError(f"{name}: {exc}") from exc
        out[name] = value
    return out


def _text(value: Any, maximum: int) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > maximum:
        raise ValueError(f"Has to be text of 1 to {maximum} characters.")
    if "\x00" in value or value.endswith("\n"):
        raise ValueError("Holds a character that it may not.")
    return value


def _description(value: Any) -> None:
    if value != "":
        _text(value, DESCRIPTION_MAX)


def _object(value: Any, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or not set(value) <= keys:
        raise ValueError(f"Has to be an object of {', '.join(sorted(keys))}.")
    return value


def _list(value: Any, check: Callable[[Any], object], maximum: int = MAX_ITEMS) -> None:
    if value is None:
        return
    if not isinstance(value, list) or len(value) > maximum:
        raise ValueError(f"Has to be a list of at most {maximum}.")
    for item in value:
        check(item)


def _selector(value: Any) -> None:
    selector = _object(value, {"matchLabels", "matchTeam"})
    if selector.get("matchTeam") is not None:
        label_value(selector["matchTeam"])
    labels = selector.get("matchLabels")
    if labels is not None and not isinstance(labels, dict):
        raise ValueError("matchLabels has to be an object.")
    for key, text in (labels or {}).items():
        label_key(key)
        label_value(text)


def _domains(value: Any) -> None:
    lists = _object(value, {"allow", "deny", "defaultDeny"})
    _list(lists.get("allow"), domain)
    _list(lists.get("deny"), domain)
    if not isinstance(lists.get("defaultDeny", False), bool):
        raise ValueError("defaultDeny has to be true or false.")


def _egress(value: Any) -> None:
    def check(rule: Any) -> None:
        found = _object(rule, {"cidr", "ports", "protocol"})
        network(found.get("cidr"))
        _list(found.get("ports"), port, MAX_PORTS)
        if found.get("protocol", "TCP") not in PROTOCOLS:
            raise ValueError("protocol has to be TCP or UDP.")

    _list(value, check)


def _servers(value: Any) -> None:
    for names in _object(value, {"allow", "deny"}).values():
        _list(names, lambda name: _text(name, ITEM_MAX))


_CHECKS: dict[str, Callable[[Any], None]] = {
    "description": _description,
    "tenantSelector": _selector,
    "domains": _domains,
    "egressRules": _egress,
    "mcpServers": _servers,
}
