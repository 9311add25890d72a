"""Which policy holds for a tenant, and what of it a cluster enforces."""

from typing import Any

import pytest

from workloads.network import (
    Egress,
    SelectionError,
    allowed_domains,
    cilium_spec,
    effective_policy,
    egress_of,
    network_spec,
    shortfalls,
)
from workloads.tests.builders import policy, tenant

POD = {"opencrane.io/tenant": "anna"}
POLICIES = {
    each["metadata"]["name"]: each
    for each in (
        policy("named"),
        policy("red", tenantSelector={"matchTeam": "red"}),
        policy("vip", tenantSelector={"matchLabels": {"tier": "vip"}}),
        policy("fallback"),
    )
}


def chosen(obj: Any, default: str = "", policies: Any = POLICIES) -> tuple[str | None, str]:
    found, why = effective_policy(obj, policies, default)
    return (found["metadata"]["name"] if found else None), why


def test_the_named_policy_comes_first_then_the_one_that_picks_then_the_default() -> None:
    assert chosen(tenant(team="red", policyRef="named")) == ("named", "policyRef")
    assert chosen(tenant(team="red"), "fallback") == ("red", "selector")
    assert chosen(tenant(metadata={"labels": {"tier": "vip"}})) == ("vip", "selector")
    assert chosen(tenant(), "fallback") == ("fallback", "default")
    assert chosen(tenant()) == (None, "none")


def test_an_empty_selector_picks_all_and_an_absent_one_nobody() -> None:
    assert chosen(tenant(), policies={"all": policy("all", tenantSelector={})}) == ("all", "selector")
    assert chosen(tenant(), policies={"none": policy("none")}) == (None, "none")


def test_several_or_missing_policies_are_named() -> None:
    with pytest.raises(SelectionError, match="Several access policies pick this tenant: red, vip") as caught:
        chosen(tenant(team="red", metadata={"labels": {"tier": "vip"}}))
    assert caught.value.reason == "SeveralPolicies"
    for obj, default in ((tenant(policyRef="gone"), ""), (tenant(), "gone")):
        with pytest.raises(SelectionError, match="no access policy named gone"):
            chosen(obj, default)


def egress(*, cilium: bool = False, **spec: Any) -> Egress:
    return egress_of(policy("p", **spec), has_cilium=cilium)


def test_without_a_policy_only_what_comes_in_is_limited() -> None:
    for nothing in (None, egress(), egress(domains={"deny": ["bad.example.com"]})):
        spec = network_spec(POD, nothing, 18789, [])
        assert spec["policyTypes"] == ["Ingress"]
        assert spec["ingress"] == [{"ports": [{"port": 18789, "protocol": "TCP"}]}]


def test_default_deny_leaves_dns_and_the_platform() -> None:
    spec = network_spec(POD, egress(domains={"defaultDeny": True}), 18789, ["opencrane-system"])
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    dns, platform = spec["egress"]
    assert dns == {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    [peer] = platform["to"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "opencrane-system"}


def test_in_a_closed_namespace_nobody_gets_out_without_a_policy() -> None:
    spec = network_spec(POD, None, 18789, ["opencrane-system"], is_closed=True)
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert [set(rule) for rule in spec["egress"]] == [{"ports"}, {"to"}], "DNS and the platform"
    assert network_spec(POD, egress(), 18789, [], is_closed=True)["egress"] == [{}], "a policy that restricts nothing"


def test_rules_allow_networks_by_port_and_protocol() -> None:
    rules = [
        {"cidr": "10.0.0.0/8", "ports": [443, 8443]},
        {"cidr": "2001:db8::/32", "protocol": "UDP"},
    ]
    [_, first, second] = network_spec(POD, egress(egressRules=rules), 1, [])["egress"]
    assert first == {
        "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "ports": [{"port": 443, "protocol": "TCP"}, {"port": 8443, "protocol": "TCP"}],
    }
    assert second == {"to": [{"ipBlock": {"cidr": "2001:db8::/32"}}], "ports": [{"protocol": "UDP"}]}


def test_deny_beats_allow() -> None:
    lists = {"allow": ["a.example.com", "B.example.com", "*.open.org"], "deny": ["b.example.com", "*.example.org"]}
    assert allowed_domains(egress(domains=lists)) == ["*.open.org", "a.example.com"]
    assert allowed_domains(egress(domains={"allow": ["x.y.bad.io", "*.bad.io"], "deny": ["*.bad.io"]})) == []


def test_cilium_lets_domains_through_by_name_and_pattern() -> None:
    spec = cilium_spec(POD, egress(cilium=True, domains={"allow": ["a.example.com", "*.open.org"]}))
    assert spec is not None
    dns, web = spec["egress"]
    assert web["toFQDNs"] == [{"matchPattern": "*.open.org"}, {"matchName": "a.example.com"}]
    assert dns["toPorts"][0]["rules"] == {"dns": [{"matchPattern": "*"}]}
    assert spec["endpointSelector"] == {"matchLabels": POD}
    assert cilium_spec(POD, egress(cilium=True, domains={"defaultDeny": True})) is None
    assert cilium_spec(POD, egress(domains={"allow": ["a.example.com"]})) is None


@pytest.mark.parametrize(
    ("cilium", "domains", "says"),
    [
        (False, {"allow": ["a.example.com"]}, "a.example.com cannot be let through by name"),
        (False, {"deny": ["a.example.com"]}, "a.example.com cannot be denied by name"),
        (False, {"deny": ["a.example.com"], "defaultDeny": True}, ""),
        (False, {}, ""),
        (True, {"allow": ["a.example.com"], "deny": ["b.example.com"]}, ""),
        (True, {"deny": ["a.example.com"]}, "cannot be denied while everything else is allowed"),
        (True, {"allow": ["*.example.com"], "deny": ["b.example.com"]}, "cannot be denied within *.example.com"),
    ],
)
def test_what_cannot_be_enforced_is_said_plainly(cilium: bool, domains: dict[str, Any], says: str) -> None:
    found = shortfalls(egress(cilium=cilium, domains=domains))
    assert says in " ".join(found) if says else found == []
