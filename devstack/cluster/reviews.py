"""Questions to the API server that store nothing: token and access reviews, token requests, scale."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from devstack.cluster import errors, rbac, tokens
from devstack.cluster.errors import Cause
from devstack.cluster.store import Store
from devstack.cluster.tokens import InvalidTokenError, Tokens, User
from devstack.cluster.writes import timestamp

Object = dict[str, Any]


def _spec(body: Any) -> Object:
    spec = body.get("spec") if isinstance(body, dict) else None
    if not isinstance(spec, dict):
        return {}
    return spec


def _meta() -> Object:
    return {"creationTimestamp": None}


def review(plural: str, body: Any, user: User, issuer: Tokens, store: Store) -> Object:
    """The body of an answered review."""
    spec = _spec(body)
    if plural == "tokenreviews":
        kind, group, status = "TokenReview", "authentication.k8s.io", _token_status(spec, issuer)
    elif plural == "selfsubjectreviews":
        status = {"userInfo": user.as_dict()}
        return {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1",
                "metadata": {"creationTimestamp": timestamp()}, "status": status}  # fmt: skip
    else:
        kind = {
            "selfsubjectaccessreviews": "SelfSubjectAccessReview",
            "subjectaccessreviews": "SubjectAccessReview",
            "localsubjectaccessreviews": "LocalSubjectAccessReview",
        }[plural]
        group = "authorization.k8s.io"
        if not plural.startswith("self"):
            groups = tuple(spec.get("groups") or ())
            user = User(str(spec.get("user") or ""), groups=groups, admin="system:masters" in groups)
        status = {"allowed": rbac.may(store, user, _asked(spec.get("resourceAttributes") or {}))}
    return {"kind": kind, "apiVersion": f"{group}/v1", "metadata": _meta(), "spec": spec, "status": status}


def _asked(attributes: Object) -> rbac.Request:
    plural, subresource = str(attributes.get("resource") or ""), attributes.get("subresource")
    verb, group, namespace, name = (str(attributes.get(key) or "") for key in ("verb", "group", "namespace", "name"))
    return rbac.Request(verb, group, f"{plural}/{subresource}" if subresource else plural, namespace, name)


def _token_status(spec: Object, issuer: Tokens) -> Object:
    token, audiences = spec.get("token"), spec.get("audiences") or []
    if not isinstance(token, str) or not token:
        cause = Cause("FieldValueRequired", "spec.token", "Required value: token is required for TokenReview")
        raise errors.invalid("authentication.k8s.io", "TokenReview", "", [cause])
    if not isinstance(audiences, list) or not all(isinstance(audience, str) for audience in audiences):
        raise errors.bad_request("TokenReview cannot be handled: spec.audiences wants a list of strings")
    try:
        user, shared = issuer.authenticate(token, audiences)
    except InvalidTokenError as exc:
        return {"user": {}, "error": str(exc)}
    return {"authenticated": True, "user": user.as_dict(), "audiences": shared}


def request_token(body: Any, namespace: str, name: str, uid: str, issuer: Tokens) -> Object:
    """TokenRequest for one ServiceAccount: the token is in `status`."""
    spec = _spec(body)
    seconds = spec.get("expirationSeconds") or tokens.DEFAULT_SECONDS
    audiences = spec.get("audiences") or [tokens.ISSUER]
    fits = isinstance(audiences, list) and all(isinstance(audience, str) for audience in audiences)
    if not fits or not isinstance(seconds, int):
        raise errors.bad_request("TokenRequest cannot be handled: wrongly typed spec")
    why = ""
    if seconds < tokens.MIN_SECONDS:
        why = "may not specify a duration less than 10 minutes"
    elif seconds > tokens.MAX_SECONDS:
        why = "may not specify a duration larger than 2^32 seconds"
    if why:
        cause = Cause("FieldValueInvalid", "spec.expirationSeconds", f"Invalid value: {seconds}: {why}")
        raise errors.invalid("authentication.k8s.io", "TokenRequest", "", [cause])
    token, expires = issuer.issue(namespace, name, uid, audiences, seconds)
    until = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": timestamp()},
        "spec": {
            "audiences": audiences,
            "expirationSeconds": seconds,
            "boundObjectRef": spec.get("boundObjectRef"),
        },
        "status": {"token": token, "expirationTimestamp": until},
    }


def scale_of(obj: Object) -> Object:
    """The autoscaling/v1 Scale of a Deployment."""
    metadata = obj["metadata"]
    labels = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": obj["spec"].get("replicas", 1)},
        "status": {
            "replicas": (obj.get("status") or {}).get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        },
    }
