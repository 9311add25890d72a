"""Installing the custom resource definitions of `deploy/crds/`, and telling whether the cluster's will do."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings

from cluster.client import cluster_client
from cluster.errors import KubeTransientError
from cluster.resources import CRDS, VERSION, KubeObject

FOLDER = Path(settings.BASE_DIR) / "deploy" / "crds"
WHAT_TO_DO = "Run manage.py install_crds of this version."
NAMED = 5

Schema = dict[str, Any]


def definitions() -> list[dict[str, Any]]:
    """The definitions, parsed, in order of file name."""
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.yaml"))]


def install(*, timeout_seconds: float = 30.0) -> list[str]:
    """Apply every definition and wait until the API server serves it; returns their names. Repeatable.

    Raises:
        KubeRefusedError: a definition is not accepted.
        KubeTransientError: the cluster is away, or does not establish them in time.
    """
    client = cluster_client()
    wanted = definitions()
    for manifest in wanted:
        client.apply(CRDS, manifest, force=True)
    names = [str(manifest["metadata"]["name"]) for manifest in wanted]
    deadline = time.monotonic() + timeout_seconds
    for name in names:
        while not _established(client.get(CRDS, name)):
            if time.monotonic() > deadline:
                raise KubeTransientError(f"the cluster has not established {name} within {timeout_seconds:.0f} s")
            time.sleep(0.05)
    return names


def _established(definition: KubeObject | None) -> bool:
    conditions = ((definition or {}).get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)


# -- a definition of another version ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standing:
    """What the cluster's definition of one of our kinds is good for.

    Attributes:
        problem: a sentence that says what is missing and what to do; empty when nothing is.
        status_fields: the fields of a status that the cluster keeps; None for all of ours, empty when it keeps none.
        spec_fields: likewise of the spec. What it does not keep is cut off already when an object is read.
    """

    problem: str = ""
    status_fields: frozenset[str] | None = None
    spec_fields: frozenset[str] | None = None


def standing(wanted: KubeObject, live: KubeObject | None) -> Standing:
    """How the cluster's definition (None: it has none) compares with ours; what it has beyond ours is fine."""
    name = wanted["metadata"]["name"]
    if live is None:
        return Standing(f"The cluster has no definition of {name}. {WHAT_TO_DO}", frozenset())
    if live["metadata"].get("deletionTimestamp"):
        return Standing(f"The cluster's definition of {name} is being deleted, and every such resource with it.")
    version = _version(live)
    if version is None or not version.get("served"):
        return Standing(f"The cluster does not serve {name} in version {VERSION}. {WHAT_TO_DO}", frozenset())
    ours, theirs = _schema(_version(wanted) or {}), _schema(version)
    missing = list(_missing(ours, theirs, ""))
    status_fields = _kept(theirs, "status")
    if "status" not in (version.get("subresources") or {}):
        missing = ["the status subresource", *missing]
        status_fields = frozenset()
    if missing:
        shown = ", ".join(missing[:NAMED]) + (f" and {len(missing) - NAMED} more" if len(missing) > NAMED else "")
        said = f"The cluster's definition of {name} is that of another version: it lacks {shown}. {WHAT_TO_DO}"
        return Standing(said, status_fields, _kept(theirs, "spec"))
    if not _established(live):
        return Standing(f"The cluster has not established its definition of {name}.")
    return Standing()


def cut_fields(obj: KubeObject, kept: frozenset[str] | None) -> tuple[str, ...]:
    """Fields of an object's spec that a definition of another version has cut off; `kept` are those that it knows.

    They have owners in the object's books still, until somebody writes it.
    https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#field-pruning
    """
    if kept is None:
        return ()
    owned: set[str] = set()
    for entry in obj["metadata"].get("managedFields") or ():
        owned |= {
            field.removeprefix("f:") for field in (entry.get("fieldsV1") or {}).get("f:spec") or () if field != "."
        }
    return tuple(sorted(owned - kept))


def _kept(schema: Schema, part: str) -> frozenset[str] | None:
    """The fields that are kept of a part of an object; None when all are."""
    part_schema = schema.get("properties", {}).get(part, {})
    if part_schema.get("x-kubernetes-preserve-unknown-fields"):
        return None
    return frozenset(part_schema.get("properties", {}))


def _version(definition: KubeObject) -> dict[str, Any] | None:
    return next((each for each in definition["spec"]["versions"] if each["name"] == VERSION), None)


def _schema(version: dict[str, Any]) -> Schema:
    return (version.get("schema") or {}).get("openAPIV3Schema") or {}


def _missing(wanted: Schema, live: Schema, path: str) -> Iterator[str]:
    """Fields and enum values of ours that the other schema does not know."""
    if live.get("x-kubernetes-preserve-unknown-fields"):
        return
    for name, schema in wanted.get("properties", {}).items():
        where = f"{path}.{name}" if path else name
        known = live.get("properties", {}).get(name)
        if known is None:
            yield where
        else:
            yield from _missing(schema, known, where)
    for part in ("items", "additionalProperties"):
        if isinstance(wanted.get(part), dict) and isinstance(live.get(part), dict):
            yield from _missing(wanted[part], live[part], f"{path}[]")
    if "enum" in live:
        yield from (f"{path}={value}" for value in wanted.get("enum", ()) if value not in live["enum"])
