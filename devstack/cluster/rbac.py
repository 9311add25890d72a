"""What ServiceAccounts may do: Roles and ClusterRoles, and who they are bound to.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from devstack.cluster.store import Store
from devstack.cluster.tokens import User

Object = dict[str, Any]
_GROUP = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Request:
    """One thing that somebody wants to do. `resource` is `plural` or `plural/subresource`; `name` may be empty."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str


def may(store: Store, user: User, request: Request) -> bool:
    """Whether a rule of a role that is bound to `user` allows the request."""
    return user.admin or any(allows(rule, request) for rule in _rules(store, user, request.namespace))


def allows(rule: Object, request: Request) -> bool:
    """Whether one rule of a role allows the request."""
    names = rule.get("resourceNames") or ()
    return (
        _has(rule.get("verbs"), request.verb)
        and _has(rule.get("apiGroups"), request.group)
        and _has(rule.get("resources"), request.resource)
        and (not names or request.name in names)
    )


def _has(listed: list[str] | None, value: str) -> bool:
    return listed is not None and (value in listed or "*" in listed)


def _rules(store: Store, user: User, namespace: str) -> Iterator[Object]:
    bindings = [entry.load() for entry in store.shelf(f"clusterrolebindings.{_GROUP}").slice(None, None)]
    if namespace:
        bindings += [entry.load() for entry in store.shelf(f"rolebindings.{_GROUP}").slice(namespace, None)]
    for binding in bindings:
        if any(_is(subject, user, binding) for subject in binding.get("subjects") or ()):
            role = binding["roleRef"]
            is_local = role["kind"] == "Role"
            plural = "roles" if is_local else "clusterroles"
            found = store.get(f"{plural}.{_GROUP}", namespace if is_local else "", role["name"])
            yield from (found.load().get("rules") or ()) if found is not None else ()


def _is(subject: Object, user: User, binding: Object) -> bool:
    if subject.get("kind") == "ServiceAccount":
        namespace = subject.get("namespace") or binding["metadata"].get("namespace", "")
        return user.name == f"system:serviceaccount:{namespace}:{subject['name']}"
    return subject.get("name") in (user.groups if subject.get("kind") == "Group" else (user.name,))
