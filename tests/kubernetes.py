"""What deploy/kubernetes says, read from its files, and what roles allow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "kubernetes"
SYSTEM, TENANTS = "opencrane-system", "opencrane"
CLUSTER_WIDE = ""


class Right(NamedTuple):
    """One thing that an account may do. `resource` as kubectl writes it, `plural.group/subresource`."""

    resource: str
    verb: str


def documents(pattern: str) -> list[dict[str, Any]]:
    """The objects of the files that fit, as written."""
    files = sorted(FOLDER.glob(pattern))
    assert files, pattern
    return [document for path in files for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def rights(account: str) -> dict[Right, dict[str, Any]]:
    """What the roles bound to an account allow, each with its rule, and where (`namespace`; empty for everywhere)."""
    found = documents("rbac/*.yaml")
    rules = {(each["kind"], each["metadata"]["name"]): each["rules"] for each in found if "rules" in each}
    out: dict[Right, dict[str, Any]] = {}
    for binding in found:
        if not any(subject["name"] == account for subject in binding.get("subjects", ())):
            continue
        for rule in rules[binding["roleRef"]["kind"], binding["roleRef"]["name"]]:
            for right in rights_of(rule):
                assert right not in out or rule.get("resourceNames"), f"{account} has {right} twice"
                out[right] = rule | {"namespace": binding["metadata"].get("namespace", CLUSTER_WIDE)}
    return out


def table(account: str) -> str:
    """The rights of an account as the documents have them: a row of a table for each rule."""
    rows = []
    found = documents("rbac/*.yaml")
    rules = {(each["kind"], each["metadata"]["name"]): each["rules"] for each in found if "rules" in each}
    for binding in found:
        if any(subject["name"] == account for subject in binding.get("subjects", ())):
            where = binding["metadata"].get("namespace")
            for rule in rules[binding["roleRef"]["kind"], binding["roleRef"]["name"]]:
                names = sorted({f"`{right.resource}`" for right in rights_of(rule)})
                only = ", ".join(f"`{name}`" for name in rule.get("resourceNames", ()))
                process = account.removeprefix("opencrane-")
                place = f"`{where}`" if where else "everywhere"
                what = ", ".join(names) + (f" named {only}" if only else "")
                rows.append(f"| {process} | {place} | {what} | {', '.join(rule['verbs'])} |")
    return "\n".join(rows)


def rights_of(rule: dict[str, Any]) -> Iterator[Right]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            plural, _, subresource = resource.partition("/")
            name = f"{plural}.{group}" if group else plural
            for verb in rule["verbs"]:
                yield Right(f"{name}/{subresource}" if subresource else name, verb)
