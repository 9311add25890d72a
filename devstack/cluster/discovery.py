"""What the server says about itself: version, discovery (plain and aggregated), and enough OpenAPI v3 for kubectl."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from devstack.cluster.kinds import VERBS, Registry, Resource

Object = dict[str, Any]

VERSION: Object = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.0+opencrane-development",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "none",
    "platform": "linux/amd64",
}

# Reviews are asked, never stored: (group, version, plural, kind, namespaced).
REVIEWS = (
    ("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", False),
    ("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", False),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False),
    ("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", False),
    ("authorization.k8s.io", "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", True),
)


def _singular(plural: str) -> str:
    return plural.removesuffix("s")


def group_versions(registry: Registry) -> dict[str, list[str]]:
    """Groups in the order of discovery, each with its versions, the preferred one first."""
    groups: dict[str, list[str]] = {"": ["v1"]}
    served = [(r.group, r.version) for r in registry] + [(review[0], review[1]) for review in REVIEWS]
    for group, version in served:
        versions = groups.setdefault(group, [])
        if version not in versions:
            versions.append(version)
    for versions in groups.values():
        # v1 before v1beta1 before v1alpha1
        versions.sort(key=lambda v: (("alpha" in v) * 2 + ("beta" in v), v))
    return groups


def _entries(resource: Resource) -> list[Object]:
    base: Object = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(VERBS),
    }
    if resource.short_names:
        base["shortNames"] = list(resource.short_names)
    if resource.categories:
        base["categories"] = list(resource.categories)
    out = [base]

    def sub(name: str, kind: str, verbs: list[str], **more: str) -> None:
        entry = {"name": f"{resource.plural}/{name}", "singularName": "", "namespaced": resource.namespaced}
        out.append({**entry, **more, "kind": kind, "verbs": verbs})

    if resource.has_status:
        sub("status", resource.kind, ["get", "patch", "update"])
    if resource.has_scale:
        sub("scale", "Scale", ["get", "patch", "update"], group="autoscaling", version="v1")
    if resource.storage == "namespaces":
        sub("finalize", resource.kind, ["update"])
    if resource.storage == "pods":
        sub("log", resource.kind, ["get"])
    if resource.storage == "serviceaccounts":
        sub("token", "TokenRequest", ["create"], group="authentication.k8s.io", version="v1")
    return out


def resource_list(registry: Registry, group: str, version: str) -> Object | None:
    """APIResourceList of one group and version; None when nothing of it is served."""
    entries = [e for r in registry if (r.group, r.version) == (group, version) for e in _entries(r)]
    for review_group, review_version, plural, kind, namespaced in REVIEWS:
        if (review_group, review_version) == (group, version):
            entries.append(
                {
                    "name": plural,
                    "singularName": _singular(plural),
                    "namespaced": namespaced,
                    "kind": kind,
                    "verbs": ["create"],
                }
            )
    if not entries and (group, version) != ("", "v1"):
        return None
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": entries}


def api_versions(address: str) -> Object:
    where = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": where}


def api_group(group: str, versions: list[str]) -> Object:
    named = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": named, "preferredVersion": named[0]}


def group_list(registry: Registry) -> Object:
    groups = [api_group(group, versions) for group, versions in group_versions(registry).items() if group]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def aggregated(registry: Registry, *, core: bool) -> Object:
    """APIGroupDiscoveryList (v2): all of /api or of /apis in one answer."""
    items = []
    for group, versions in group_versions(registry).items():
        if (group == "") is not core:
            continue
        shown = []
        for version in versions:
            listing = resource_list(registry, group, version) or {"resources": []}
            shown.append({"version": version, "resources": _aggregate(group, version, listing), "freshness": "Current"})
        items.append({"metadata": {"name": group, "creationTimestamp": None}, "versions": shown})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregate(group: str, version: str, listing: Object) -> list[Object]:
    out: dict[str, Object] = {}
    for entry in listing["resources"]:
        plural, _, sub = entry["name"].partition("/")
        kind = {
            "group": entry.get("group", group),
            "version": entry.get("version", version),
            "kind": entry["kind"],
        }
        if sub:
            found = out[plural].setdefault("subresources", [])
            found.append({"subresource": sub, "responseKind": kind, "verbs": entry["verbs"]})
            continue
        out[plural] = {
            "resource": plural,
            "responseKind": kind,
            "scope": "Namespaced" if entry["namespaced"] else "Cluster",
            "singularResource": entry["singularName"],
            "verbs": entry["verbs"],
        }
        for key in ("shortNames", "categories"):
            if key in entry:
                out[plural][key] = entry[key]
    return list(out.values())


def _prefix(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def openapi_index(registry: Registry) -> Object:
    paths = {}
    for group, versions in group_versions(registry).items():
        for version in versions:
            prefix = _prefix(group, version)
            mark = hashlib.sha256(orjson.dumps(openapi_document(registry, group, version))).hexdigest()[:32].upper()
            paths[prefix] = {"serverRelativeURL": f"/openapi/v3/{prefix}?hash={mark}"}
    return {"paths": paths}


def openapi_document(registry: Registry, group: str, version: str) -> Object | None:
    """One group and version for kubectl: paths with kinds and `fieldValidation`, and the schemas of custom kinds."""
    resources = [r for r in registry if (r.group, r.version) == (group, version)]
    known = group_versions(registry).get(group, [])
    if version not in known:
        return None
    paths: Object = {}
    schemas: Object = {}
    for resource in resources:
        kind = {"group": group, "version": version, "kind": resource.kind}
        name = f"{'.'.join(reversed(group.split('.'))) or 'core'}.{version}.{resource.kind}"
        schemas[name] = {**resource.raw_schema, "type": "object", "x-kubernetes-group-version-kind": [kind]}
        base = f"/{_prefix(group, version)}"
        if resource.namespaced:
            base += "/namespaces/{namespace}"
        collection, one = f"{base}/{resource.plural}", f"{base}/{resource.plural}/{{name}}"
        paths[collection] = {"get": _operation("list", kind, name), "post": _operation("post", kind, name)}
        paths[one] = {verb: _operation(verb, kind, name) for verb in ("get", "put", "patch", "delete")}
    return {
        "openapi": "3.0.0",
        "info": {"title": "OpenCrane development cluster", "version": VERSION["gitVersion"]},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(verb: str, kind: Object, schema: str) -> Object:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    operation: Object = {
        "x-kubernetes-action": verb,
        "x-kubernetes-group-version-kind": kind,
        "responses": {"200": {"description": "OK", "content": content}},
    }
    if verb in {"post", "put", "patch"}:
        text = {"type": "string", "uniqueItems": True}
        names = ("dryRun", "fieldManager", "fieldValidation")
        operation["parameters"] = [{"name": name, "in": "query", "schema": text} for name in names]
    if verb == "patch":
        operation["requestBody"] = {
            "content": {
                mime: {"schema": {"type": "object"}}
                for mime in (
                    "application/json-patch+json",
                    "application/merge-patch+json",
                    "application/apply-patch+yaml",
                )
            }
        }
    return operation
