"""The form of an access policy, as fields and as YAML."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from django.http import HttpRequest

from cluster.kinds import Spec
from opencrane.console.forms import FormField, ObjectForm, Section, lines_of
from opencrane.console.values import parse_object, to_yaml
from policies import rules
from policies.api.serializers import CreatePolicySerializer, UpdatePolicySerializer
from policies.models import AccessPolicy
from policies.services.kind import ACCESS_POLICY

YAML_MAX = 512 * 1024
SECTIONS = (
    Section(
        "Whom it is for",
        (
            FormField(
                "name",
                "Name",
                help="Lower-case letters, digits and dashes, at most 63. Cannot be changed later.",
                is_required=True,
                is_fixed=True,
            ),
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


class PolicyForm(ObjectForm[AccessPolicy]):
    """In fields, or as the YAML of the whole spec: then `mode` is `yaml`, and `yaml` has the text."""

    sections = SECTIONS
    creates, updates = CreatePolicySerializer, UpdatePolicySerializer
    is_spec = True

    @classmethod
    def of(cls, policy: AccessPolicy) -> "PolicyForm":
        return cls(raw_of(ACCESS_POLICY.spec(policy)))

    @classmethod
    def posted(cls, request: HttpRequest, *, is_new: bool = False) -> "PolicyForm":
        form = super().posted(request, is_new=is_new)
        form.raw |= {name: request.POST.get(name, "").replace("\r\n", "\n") for name in ("yaml", "mode")}
        return form

    @property
    def as_yaml(self) -> bool:
        return self.raw.get("mode") == "yaml"

    def checked(self, serializer_class: Any, body: dict[str, Any]) -> dict[str, Any] | None:
        return None if self.errors else super().checked(serializer_class, body)

    def wanted(self) -> dict[str, Any] | None:
        """The name (of a new policy) and every field of the spec; None when `errors` says why not."""
        return self._values(self.checked(self.creates if self.is_new else self.updates, self.body()))

    def changes(self, policy: AccessPolicy) -> dict[str, Any] | None:
        """The fields that differ from the policy's, whoever touched them."""
        wanted = self.wanted()
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
        wanted = self.wanted()
        if wanted is None:
            return self
        spec = {name: wanted[name] for name in ACCESS_POLICY.fields if plain(name, wanted.get(name)) is not None}
        raw = raw_of(spec) | {"name": self.raw.get("name", ""), "yaml": to_yaml(spec) if spec else ""}
        return PolicyForm(raw | {"mode": "" if self.as_yaml else "yaml"}, is_new=self.is_new)

    def note(self, fields: Mapping[str, Sequence[str]]) -> None:
        for path, reasons in fields.items():
            where, about = self._place(path)
            self.errors.setdefault(where, []).extend(f"{about}{reason}" for reason in reasons)

    @property
    def name_input(self) -> dict[str, Any]:
        return self.input(self.fields[0])

    # -- parts --------------------------------------------------------------------------------------------------------

    def body(self, touched: Collection[str] | None = None) -> dict[str, Any]:
        return ({"name": self.raw["name"]} if self.is_new else {}) | self._spec()

    def _spec(self) -> dict[str, Any]:
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
            "description": raw["description"] or None,
            "tenantSelector": self._selector(),
            "domains": plain(
                "domains",
                {
                    "allow": lines_of(raw["domains.allow"]),
                    "deny": lines_of(raw["domains.deny"]),
                    "defaultDeny": raw["domains.defaultDeny"] == "yes",
                },
            ),
            "egressRules": [_rule(line) for line in lines_of(raw["egressRules"])] or None,
            "mcpServers": plain(
                "mcpServers", {"allow": lines_of(raw["mcpServers.allow"]), "deny": lines_of(raw["mcpServers.deny"])}
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
        team, labels = self.raw["tenantSelector.matchTeam"], {}
        for line in lines_of(self.raw["tenantSelector.matchLabels"]):
            key, equals, value = line.partition("=")
            if not equals:
                self.errors.setdefault("tenantSelector.matchLabels", []).append(f"“{line}” is no key=value.")
            labels[key.strip()] = value.strip()
        if not team and not labels:
            self.errors.setdefault("selectorMode", []).append(
                "Give a team or labels to match; to reach everybody, choose that."
            )
        return ({"matchTeam": team} if team else {}) | ({"matchLabels": labels} if labels else {})

    def _place(self, path: str) -> tuple[str, str]:
        """The input that shows an error of this path, and what to say before it."""
        if path in {"name", "body"}:
            return path, ""
        if self.as_yaml:
            return "yaml", f"{path}: "
        names = {field.name for field in self.fields}
        while path:
            head, _, tail = path.rpartition(".")
            if path in names:
                return path, ""
            if head in names:
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
