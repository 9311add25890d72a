"""The form of an access policy, as fields and as YAML, checked by the API's own serializers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rest_framework import serializers

from cluster.kinds import Spec
from opencrane.api.serializers import camelize, flatten_errors
from opencrane.console.values import parse_object, to_yaml
from policies import rules
from policies.api.serializers import CreatePolicySerializer, UpdatePolicySerializer
from policies.models import AccessPolicy
from policies.services.kind import ACCESS_POLICY
from tenants.views.forms import FormField, Section

YAML_MAX = 512 * 1024
NAME = FormField(
    "name", "Name", help="Lower-case letters, digits and dashes, at most 63. Cannot be changed later.", is_required=True
)
SECTIONS = (
    Section(
        "Whom it is for",
        (
            FormField("description", "Description", help="What it is for, in a sentence."),
            FormField(
                "selectorMode",
                "Tenants",
                "select",
                "A tenant that names a policy in its own spec has that one and no other.",
                options=(
                    ("none", "Only those that name it"),
                    ("all", "Everybody"),
                    ("matching", "Those that match team and labels"),
                ),
            ),
            FormField("tenantSelector.matchTeam", "Team", help="Counts where tenants have to match."),
            FormField(
                "tenantSelector.matchLabels", "Labels", "lines", "One key=value per line; all of them have to fit."
            ),
        ),
    ),
    Section(
        "Domains it may reach",
        (
            FormField("domains.allow", "Allowed", "lines", "One per line, such as example.com or *.example.com."),
            FormField("domains.deny", "Denied", "lines", "One per line; a denial beats a permission."),
            FormField(
                "domains.defaultDeny",
                "Everything else",
                "select",
                options=(("", "is allowed"), ("yes", "is denied")),
            ),
        ),
    ),
    Section(
        "Networks and MCP servers",
        (
            FormField(
                "egressRules",
                "Networks it may reach",
                "lines",
                "One per line: network, then if need be TCP or UDP and ports, such as 10.0.0.0/8 TCP 443,8443.",
            ),
            FormField("mcpServers.allow", "MCP servers: only these", "lines", "One name per line; blank: no limit."),
            FormField("mcpServers.deny", "MCP servers: never these", "lines", "One name per line."),
        ),
    ),
)
_INPUTS = ("name", *(each.name for section in SECTIONS for each in section.fields))


@dataclass
class PolicyForm:
    """What was filled in, in fields or as the YAML of the whole spec, and what is wrong with it.

    Attributes:
        raw: text of every input; `yaml` is the spec as text when `as_yaml`.
        errors: input name to reasons; `body` for what belongs to none.
    """

    raw: dict[str, str]
    is_new: bool
    as_yaml: bool = False
    errors: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: Spec, *, name: str = "", is_new: bool) -> "PolicyForm":
        """The form of a spec."""
        return cls(raw_of(spec) | {"name": name}, is_new)

    @classmethod
    def posted(cls, post: Mapping[str, str], *, is_new: bool) -> "PolicyForm":
        raw = {name: post.get(name, "").replace("\r\n", "\n") for name in (*_INPUTS, "yaml")}
        return cls(raw, is_new, as_yaml=post.get("mode") == "yaml")

    def checked(self) -> dict[str, Any] | None:
        """The name (of a new policy) and every field of the spec; None when `errors` says why not."""
        body = self._body()
        if self.errors:
            return None
        if self.is_new:
            body = {"name": self.raw["name"].strip(), **body}
        serializer: Any = (CreatePolicySerializer if self.is_new else UpdatePolicySerializer)(data=body)
        try:
            serializer.is_valid(raise_exception=True)
        except serializers.ValidationError as exc:
            self.note(flatten_errors(exc.detail))
            return None
        return {camelize(key): value for key, value in serializer.validated_data.items()}

    def changes(self, policy: AccessPolicy) -> dict[str, Any] | None:
        """The fields that differ from the policy's; None when `errors` says why not."""
        wanted = self.checked()
        if wanted is None:
            return None
        present = ACCESS_POLICY.spec(policy)
        return {
            name: wanted.get(name)
            for name in ACCESS_POLICY.fields
            if plain(name, wanted.get(name)) != plain(name, present.get(name))
        }

    def switched(self) -> "PolicyForm":
        """The same in the other way of writing; itself, with errors, when what is there cannot be read."""
        wanted = self.checked()
        if wanted is None:
            return self
        spec = {name: wanted[name] for name in ACCESS_POLICY.fields if plain(name, wanted.get(name)) is not None}
        raw = raw_of(spec) | {"name": self.raw["name"], "yaml": to_yaml(spec) if spec else ""}
        return PolicyForm(raw, self.is_new, as_yaml=not self.as_yaml)

    def note(self, fields: Mapping[str, list[str]]) -> None:
        """Take over what a serializer or a service has against the fields, each at its input."""
        for path, reasons in fields.items():
            where, about = self._input_for(path)
            self.errors.setdefault(where, []).extend(f"{about}{reason}" for reason in reasons)

    def sections(self) -> list[dict[str, Any]]:
        """The form for the template."""
        shown = []
        for section in SECTIONS:
            fields = (NAME, *section.fields) if self.is_new and section is SECTIONS[0] else section.fields
            inputs = [
                {"field": each, "value": self.raw.get(each.name, ""), "errors": self.errors.get(each.name, [])}
                for each in fields
            ]
            shown.append({"title": section.title, "inputs": inputs})
        return shown

    @property
    def name_input(self) -> dict[str, Any]:
        return {"field": NAME, "value": self.raw.get("name", ""), "errors": self.errors.get("name", [])}

    # -- parts --------------------------------------------------------------------------------------------------------

    def _body(self) -> dict[str, Any]:
        if self.as_yaml:
            try:
                body = parse_object(self.raw["yaml"], max_length=YAML_MAX) or {}
            except ValueError as exc:
                self.errors.setdefault("yaml", []).append(str(exc))
                return {}
            # What is not there is not set.
            return dict.fromkeys(ACCESS_POLICY.fields) | body
        raw = self.raw
        return {
            "description": raw["description"].strip() or None,
            "tenantSelector": self._selector(),
            "domains": plain(
                "domains",
                {
                    "allow": _lines(raw["domains.allow"]),
                    "deny": _lines(raw["domains.deny"]),
                    "defaultDeny": raw["domains.defaultDeny"] == "yes",
                },
            ),
            "egressRules": [_rule(line) for line in _lines(raw["egressRules"])] or None,
            "mcpServers": plain(
                "mcpServers", {"allow": _lines(raw["mcpServers.allow"]), "deny": _lines(raw["mcpServers.deny"])}
            ),
        }

    def _selector(self) -> dict[str, Any] | None:
        match self.raw["selectorMode"]:
            case "all":
                return {}
            case "matching":
                pass
            case _:
                return None
        team, labels = self.raw["tenantSelector.matchTeam"].strip(), {}
        for line in _lines(self.raw["tenantSelector.matchLabels"]):
            key, equals, value = line.partition("=")
            if not equals:
                self.errors.setdefault("tenantSelector.matchLabels", []).append(f"“{line}” is no key=value.")
            labels[key.strip()] = value.strip()
        if not team and not labels:
            self.errors.setdefault("selectorMode", []).append(
                "Give a team or labels to match; to reach everybody, choose that."
            )
        return ({"matchTeam": team} if team else {}) | ({"matchLabels": labels} if labels else {})

    def _input_for(self, path: str) -> tuple[str, str]:
        """The input that shows an error of this path, and what to say before it."""
        if self.as_yaml and path != "name":
            return "yaml", f"{path}: "
        while path:
            head, _, tail = path.rpartition(".")
            if path in _INPUTS:
                return path, ""
            if head in _INPUTS:
                return head, f"Line {int(tail) + 1}: " if tail.isdigit() else f"{tail}: "
            if head.startswith("egressRules."):
                return "egressRules", f"Line {int(head.split('.')[1]) + 1}: "
            path = head
        return "body", ""


def raw_of(spec: Spec) -> dict[str, str]:
    """A spec as the text of the form's inputs."""
    selector, domains, servers = spec.get("tenantSelector"), spec.get("domains") or {}, spec.get("mcpServers") or {}
    mode = "none" if selector is None else "matching" if plain("tenantSelector", selector) else "all"
    labels = (selector or {}).get("matchLabels") or {}
    return {
        "description": spec.get("description") or "",
        "selectorMode": mode,
        "tenantSelector.matchTeam": (selector or {}).get("matchTeam") or "",
        "tenantSelector.matchLabels": "\n".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "domains.allow": "\n".join(domains.get("allow") or []),
        "domains.deny": "\n".join(domains.get("deny") or []),
        "domains.defaultDeny": "yes" if domains.get("defaultDeny") else "",
        "egressRules": "\n".join(rule_text(rule) for rule in spec.get("egressRules") or []),
        "mcpServers.allow": "\n".join(servers.get("allow") or []),
        "mcpServers.deny": "\n".join(servers.get("deny") or []),
    }


def rule_text(rule: dict[str, Any]) -> str:
    """`10.0.0.0/8 TCP 443,8443`; without ports every one is meant."""
    ports = ",".join(str(port) for port in rule.get("ports") or [])
    return " ".join(filter(None, [rule.get("cidr", ""), rule.get("protocol") or "TCP", ports]))


def plain(name: str, value: Any) -> Any:
    """A field's value without what says nothing, so that equal meanings are equal values."""
    if name == "tenantSelector":
        return None if value is None else {key: part for key, part in value.items() if part}
    if name == "egressRules":
        return [rule_text(rule) for rule in value or []] or None
    if isinstance(value, dict):
        return {key: part for key, part in value.items() if part} or None
    return value or None


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def _rule(line: str) -> dict[str, Any]:
    """A line as the API takes it; what makes no sense is left for the serializer to name."""
    words = line.replace(",", " ").split()
    rule: dict[str, Any] = {"cidr": words[0], "ports": []}
    for word in words[1:]:
        if word.upper() in rules.PROTOCOLS:
            rule["protocol"] = word.upper()
        else:
            rule["ports"].append(int(word) if word.isascii() and word.isdigit() and len(word) < 10 else word)
    return rule
