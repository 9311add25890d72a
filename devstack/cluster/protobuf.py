"""Reading the protobuf bodies that kubectl sends for what `kubectl create` makes; answers are always JSON.

Only those kinds, and only their usual fields: anything else is refused, so that nothing is lost unseen.
Source: the generated.proto files of k8s.io/api and k8s.io/apimachinery (field numbers never change).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from devstack.cluster.errors import bad_request

MAGIC = b"k8s\x00"

# A field is (JSON name, type). Types: s string, i integer, p integer that may be zero, b boolean, y bytes, t time,
# q quantity, o int-or-string, - ignored; a dictionary is a message, "*" before it a list, "m" a map of such values.
Message = dict[int, tuple[str, Any]]

_OWNER: Message = {
    1: ("kind", "s"), 3: ("name", "s"), 4: ("uid", "s"), 5: ("apiVersion", "s"), 6: ("controller", "b"),
    7: ("blockOwnerDeletion", "b"),
}  # fmt: skip
_META: Message = {
    1: ("name", "s"), 2: ("generateName", "s"), 3: ("namespace", "s"), 4: ("selfLink", "s"), 5: ("uid", "s"),
    6: ("resourceVersion", "s"), 7: ("generation", "i"), 8: ("creationTimestamp", "t"), 9: ("deletionTimestamp", "t"),
    10: ("deletionGracePeriodSeconds", "p"), 11: ("labels", ("m", "s")), 12: ("annotations", ("m", "s")),
    13: ("ownerReferences", ("*", _OWNER)), 14: ("finalizers", ("*", "s")), 17: ("managedFields", "-"),
}  # fmt: skip
_REQUIREMENT: Message = {1: ("key", "s"), 2: ("operator", "s"), 3: ("values", ("*", "s"))}
_SELECTOR: Message = {1: ("matchLabels", ("m", "s")), 2: ("matchExpressions", ("*", _REQUIREMENT))}
_RESOURCES: Message = {1: ("limits", ("m", "q")), 2: ("requests", ("m", "q"))}
_CONTAINER_PORT: Message = {
    1: ("name", "s"), 2: ("hostPort", "i"), 3: ("containerPort", "i"), 4: ("protocol", "s"), 5: ("hostIP", "s")
}  # fmt: skip
_CONTAINER: Message = {
    1: ("name", "s"), 2: ("image", "s"), 3: ("command", ("*", "s")), 4: ("args", ("*", "s")), 5: ("workingDir", "s"),
    6: ("ports", ("*", _CONTAINER_PORT)), 7: ("env", ("*", {1: ("name", "s"), 2: ("value", "s")})),
    8: ("resources", _RESOURCES), 13: ("terminationMessagePath", "s"), 14: ("imagePullPolicy", "s"),
    16: ("stdin", "b"), 17: ("stdinOnce", "b"), 18: ("tty", "b"), 20: ("terminationMessagePolicy", "s"),
}  # fmt: skip
_POD_SPEC: Message = {
    2: ("containers", ("*", _CONTAINER)), 3: ("restartPolicy", "s"), 4: ("terminationGracePeriodSeconds", "p"),
    6: ("dnsPolicy", "s"), 7: ("nodeSelector", ("m", "s")), 8: ("serviceAccountName", "s"), 9: ("serviceAccount", "s"),
    10: ("nodeName", "s"), 11: ("hostNetwork", "b"), 12: ("hostPID", "b"), 13: ("hostIPC", "b"),
    16: ("hostname", "s"), 17: ("subdomain", "s"), 19: ("schedulerName", "s"), 24: ("priorityClassName", "s"),
}  # fmt: skip
_SERVICE_PORT: Message = {
    1: ("name", "s"), 2: ("protocol", "s"), 3: ("port", "i"), 4: ("targetPort", "o"), 5: ("nodePort", "i"),
    6: ("appProtocol", "s"),
}  # fmt: skip
_SERVICE_SPEC: Message = {
    1: ("ports", ("*", _SERVICE_PORT)), 2: ("selector", ("m", "s")), 3: ("clusterIP", "s"), 4: ("type", "s"),
    5: ("externalIPs", ("*", "s")), 7: ("sessionAffinity", "s"), 8: ("loadBalancerIP", "s"), 10: ("externalName", "s"),
    11: ("externalTrafficPolicy", "s"), 12: ("healthCheckNodePort", "i"), 13: ("publishNotReadyAddresses", "b"),
    17: ("ipFamilyPolicy", "s"), 18: ("clusterIPs", ("*", "s")), 19: ("ipFamilies", ("*", "s")),
}  # fmt: skip
_ROLLING: Message = {1: ("maxUnavailable", "o"), 2: ("maxSurge", "o")}
_DEPLOYMENT_SPEC: Message = {
    1: ("replicas", "p"), 2: ("selector", _SELECTOR),
    3: ("template", {1: ("metadata", _META), 2: ("spec", _POD_SPEC)}),
    4: ("strategy", {1: ("type", "s"), 2: ("rollingUpdate", _ROLLING)}), 5: ("minReadySeconds", "i"),
    6: ("revisionHistoryLimit", "p"), 7: ("paused", "b"), 9: ("progressDeadlineSeconds", "p"),
}  # fmt: skip
_BACKEND: Message = {4: ("service", {1: ("name", "s"), 2: ("port", {1: ("name", "s"), 2: ("number", "i")})})}
_PATH: Message = {1: ("path", "s"), 2: ("backend", _BACKEND), 3: ("pathType", "s")}
# IngressRuleValue is a message of its own here and inlined in JSON, hence the empty name.
_INGRESS_RULE: Message = {1: ("host", "s"), 2: ("", {1: ("http", {1: ("paths", ("*", _PATH))})})}
_INGRESS_SPEC: Message = {
    1: ("defaultBackend", _BACKEND), 2: ("tls", ("*", {1: ("hosts", ("*", "s")), 2: ("secretName", "s")})),
    3: ("rules", ("*", _INGRESS_RULE)), 4: ("ingressClassName", "s"),
}  # fmt: skip
_ACCESS: Message = {
    1: ("namespace", "s"), 2: ("verb", "s"), 3: ("group", "s"), 4: ("version", "s"), 5: ("resource", "s"),
    6: ("subresource", "s"), 7: ("name", "s"),
}  # fmt: skip
_ACCESS_SPEC: Message = {
    1: ("resourceAttributes", _ACCESS), 2: ("nonResourceAttributes", {1: ("path", "s"), 2: ("verb", "s")})
}  # fmt: skip
_BOUND: Message = {1: ("kind", "s"), 2: ("apiVersion", "s"), 3: ("name", "s"), 4: ("uid", "s")}
_TOKEN_SPEC: Message = {1: ("audiences", ("*", "s")), 3: ("boundObjectRef", _BOUND), 4: ("expirationSeconds", "i")}


def _object(spec: Message) -> Message:
    return {1: ("metadata", _META), 2: ("spec", spec), 3: ("status", "-")}


_KINDS: dict[tuple[str, str], Message] = {
    ("v1", "Namespace"): _object({1: ("finalizers", ("*", "s"))}),
    ("v1", "ConfigMap"): {
        1: ("metadata", _META), 2: ("data", ("m", "s")), 3: ("binaryData", ("m", "y")), 4: ("immutable", "b")
    },
    ("v1", "Secret"): {
        1: ("metadata", _META), 2: ("data", ("m", "y")), 3: ("type", "s"), 4: ("stringData", ("m", "s")),
        5: ("immutable", "b"),
    },
    ("v1", "ServiceAccount"): {1: ("metadata", _META), 4: ("automountServiceAccountToken", "b")},
    ("v1", "Pod"): _object(_POD_SPEC),
    ("v1", "Service"): _object(_SERVICE_SPEC),
    ("v1", "ResourceQuota"): _object({1: ("hard", ("m", "q")), 2: ("scopes", ("*", "s"))}),
    ("apps/v1", "Deployment"): _object(_DEPLOYMENT_SPEC),
    ("networking.k8s.io/v1", "Ingress"): _object(_INGRESS_SPEC),
    ("authentication.k8s.io/v1", "TokenRequest"): _object(_TOKEN_SPEC),
    ("authentication.k8s.io/v1", "SelfSubjectReview"): {1: ("metadata", _META), 2: ("status", "-")},
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): _object(_ACCESS_SPEC),
}  # fmt: skip


class UnknownFieldError(Exception):
    """A field or kind that this reader does not know."""


def decode(body: bytes) -> dict[str, Any]:
    """The object in a `application/vnd.kubernetes.protobuf` body.

    Raises:
        StatusError: 400 when the bytes make no sense.
        UnknownFieldError: something is in it that is not known here.
    """
    try:
        if not body.startswith(MAGIC):
            raise ValueError("no magic number")
        envelope = {number: value for number, value in _fields(body[4:])}  # noqa: C416 - the last of each wins
        about = {number: value for number, value in _fields(_bytes(envelope[1]))}  # noqa: C416
        api_version, kind = _bytes(about[1]).decode(), _bytes(about[2]).decode()
        message = _KINDS.get((api_version, kind))
        if message is None:
            raise UnknownFieldError(f"{api_version} {kind}")
        return {"apiVersion": api_version, "kind": kind, **_message(_bytes(envelope.get(2, b"")), message)}
    except (ValueError, KeyError, IndexError) as exc:
        raise bad_request(f"the protobuf body cannot be read: {exc}") from exc


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes belong")
    return value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            number, at = _varint(data, at)
            yield key >> 3, number - (1 << 64) if number >= 1 << 63 else number
        elif key & 7 == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("it ends too early")
            yield key >> 3, data[at : at + length]
            at += length
        else:
            raise ValueError(f"wire type {key & 7}")


def _message(data: bytes, message: Message) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for number, value in _fields(data):
        if number not in message:
            raise UnknownFieldError(f"field {number}")
        name, kind = message[number]
        if isinstance(kind, tuple) and kind[0] == "*":
            out.setdefault(name, []).append(_value(value, kind[1]))
        elif isinstance(kind, tuple):
            pair: dict[int, int | bytes] = dict(_fields(_bytes(value)))
            out.setdefault(name, {})[_bytes(pair.get(1, b"")).decode()] = _value(pair.get(2, b""), kind[1])
        elif kind != "-":
            found = _value(value, kind)
            if name == "" and found:
                out.update(found)
            elif found or kind == "p":
                # Go writes empty strings and zeros out; in JSON they are left out.
                out[name] = found
    return out


def _value(value: int | bytes, kind: Any) -> Any:
    if isinstance(kind, dict):
        return _message(_bytes(value), kind)
    if kind in {"i", "p"}:
        return value
    if kind == "b":
        return bool(value)
    data = _bytes(value)
    if kind == "s":
        return data.decode()
    if kind == "y":
        return base64.b64encode(data).decode()
    parts: dict[int, int | bytes] = dict(_fields(data))
    if kind == "q":
        return _bytes(parts.get(1, b"")).decode()
    if kind == "o":
        return _bytes(parts.get(3, b"")).decode() if parts.get(1) == 1 else parts.get(2, 0)
    seconds = parts.get(1, 0)
    return (
        datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if isinstance(seconds, int) and parts
        else ""
    )
