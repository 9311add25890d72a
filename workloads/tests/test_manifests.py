"""What a tenant's custom resource becomes."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from cluster.resources import (
    CILIUM_POLICIES,
    CONFIG_MAPS,
    DEPLOYMENTS,
    INGRESSES,
    NETWORK_POLICIES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    VOLUME_CLAIMS,
    KubeObject,
    Resource,
)
from workloads.manifests import Placement, UnfitError, Wanted, key_data, placement, wanted_objects
from workloads.matching import is_as_wanted, same_quantity
from workloads.tests.builders import DEFAULTS, HOME, UID, customer, tenant

LABELS = {
    "app.kubernetes.io/part-of": "opencrane",
    "app.kubernetes.io/component": "tenant",
    "app.kubernetes.io/managed-by": "opencrane-operator",
    "opencrane.io/tenant": "anna",
    "opencrane.io/tenant-namespace": "agents",
    "opencrane.io/team": "red",
}
OWNER = {
    "apiVersion": "opencrane.io/v1alpha1",
    "kind": "Tenant",
    "name": "anna",
    "uid": UID,
    "controller": True,
    "blockOwnerDeletion": True,
}


def wanted(obj: KubeObject, where: Placement = HOME, **defaults: Any) -> Wanted:
    return wanted_objects(obj, where, None, replace(DEFAULTS, **defaults))


def pod_spec(obj: KubeObject, where: Placement = HOME, **defaults: Any) -> dict[str, Any]:
    spec: dict[str, Any] = wanted(obj, where, **defaults).manifests[DEPLOYMENTS]["spec"]["template"]["spec"]
    return spec


def test_a_tenant_has_these_objects_under_these_names() -> None:
    made = wanted(tenant(team="red")).manifests
    assert {resource.kind: manifest["metadata"]["name"] for resource, manifest in made.items()} == {
        "ServiceAccount": "openclaw-anna",
        "Secret": f"openclaw-anna-key-{UID}",
        "ConfigMap": "openclaw-anna",
        "PersistentVolumeClaim": f"openclaw-anna-data-{UID}",
        "NetworkPolicy": "openclaw-anna",
        "Deployment": "openclaw-anna",
        "Service": "openclaw-anna",
        "Ingress": "openclaw-anna",
    }
    for resource, manifest in made.items():
        assert manifest["metadata"]["labels"] == LABELS, resource.kind
        assert manifest["metadata"]["namespace"] == "agents"
        # What holds data is not collected with the tenant.
        owners = None if resource in {SECRETS, VOLUME_CLAIMS} else [OWNER]
        assert manifest["metadata"].get("ownerReferences") == owners, resource.kind


def test_a_pod_never_starts_before_its_account_its_data_and_its_network_policy() -> None:
    order = list(wanted(tenant()).manifests)
    for needed in (SERVICE_ACCOUNTS, SECRETS, CONFIG_MAPS, VOLUME_CLAIMS, NETWORK_POLICIES):
        assert order.index(needed) < order.index(DEPLOYMENTS)


def test_the_pod_has_no_more_rights_than_it_needs() -> None:
    pod = pod_spec(tenant())
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    [container] = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)


def test_the_pod_gets_short_tokens_its_key_and_an_optional_model_key() -> None:
    pod = pod_spec(tenant())
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    tokens = [source["serviceAccountToken"] for source in volumes["tokens"]["projected"]["sources"]]
    assert {token["audience"]: token["expirationSeconds"] for token in tokens} == {
        "obot-gateway": 600,
        "skill-registry": 600,
        "control-plane": 600,
    }
    assert volumes["key"]["secret"]["secretName"] == f"openclaw-anna-key-{UID}"
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == f"openclaw-anna-data-{UID}"
    env = {entry["name"]: entry for entry in pod["containers"][0]["env"]}
    reference = env["LITELLM_API_KEY"]["valueFrom"]["secretKeyRef"]
    assert (reference["name"], reference["optional"]) == ("openclaw-anna-litellm-key", True)
    assert {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} >= {"/data", "/tmp"}  # noqa: S108


@pytest.mark.parametrize(
    ("spec", "image"),
    [
        ({}, "registry.example.com/openclaw:2026.1"),
        ({"openclawVersion": "2"}, "registry.example.com/openclaw:2"),
        ({"openclawImage": "other/claw"}, "other/claw:2026.1"),
        ({"openclawImage": "host:5000/claw", "openclawVersion": "3"}, "host:5000/claw:3"),
        ({"openclawImage": "fail:latest", "openclawVersion": "3"}, "fail:latest"),
        ({"openclawImage": "claw@sha256:" + "0" * 64}, "claw@sha256:" + "0" * 64),
    ],
)
def test_image_and_version_come_from_the_spec_else_from_the_settings(spec: dict[str, Any], image: str) -> None:
    assert pod_spec(tenant(**spec))["containers"][0]["image"] == image


def test_suspended_is_no_replica_and_nothing_else() -> None:
    running, stopped = wanted(tenant()).manifests, wanted(tenant(suspended=True)).manifests
    assert (running[DEPLOYMENTS]["spec"].pop("replicas"), stopped[DEPLOYMENTS]["spec"].pop("replicas")) == (1, 0)
    assert running == stopped


def config(obj: KubeObject) -> dict[str, Any]:
    loaded: dict[str, Any] = orjson.loads(wanted(obj).manifests[CONFIG_MAPS]["data"]["openclaw.json"])
    return loaded


def test_overrides_are_laid_on_the_base_and_the_contract_wins() -> None:
    made = config(
        tenant(
            mcpPolicy={"deny": ["web"]},
            configOverrides={"gateway": {"bind": "loopback"}, "own": [1], "opencrane": {"tenant": "eve"}},
        )
    )
    assert made["gateway"] == {"mode": "local", "bind": "loopback"}
    assert made["own"] == [1]
    assert made["opencrane"]["tenant"] == "anna"
    assert made["opencrane"]["mcpPolicy"] == {"deny": ["web"]}
    assert made["opencrane"]["contractUrl"] == "https://control.example.com/api/internal/contract/anna"


def test_another_configuration_is_another_pod() -> None:
    def template(obj: KubeObject) -> Any:
        return wanted(obj).manifests[DEPLOYMENTS]["spec"]["template"]

    assert template(tenant()) == template(tenant(monthlyBudgetUsd=5))
    assert template(tenant()) != template(tenant(configOverrides={"model": "large"}))


def test_a_host_is_made_of_name_and_domain() -> None:
    made = wanted(tenant(), ingress_tls_secret="wildcard", ingress_class="nginx")
    assert made.host == "anna.crane.example.com"
    spec = made.manifests[INGRESSES]["spec"]
    assert spec["rules"][0]["host"] == made.host
    assert (spec["ingressClassName"], spec["tls"]) == ("nginx", [{"hosts": [made.host], "secretName": "wildcard"}])
    assert INGRESSES not in wanted(tenant(), Placement("agents", "")).manifests


@pytest.mark.parametrize(
    ("obj", "domain", "reason"),
    [
        (tenant("a" * 53), ".".join(["d" * 60] * 4), "HostTooLong"),
        (tenant(), "under_score.example.com", "HostInvalid"),
        (tenant(openclawImage="two words"), "example.com", "ImageInvalid"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(obj: KubeObject, domain: str, reason: str) -> None:
    with pytest.raises(UnfitError) as caught:
        wanted(obj, Placement("agents", domain))
    assert caught.value.reason == reason
    assert caught.value.message.endswith((".", "DNS allows 253."))


# -- cluster tenants --------------------------------------------------------------------------------------------------


def test_a_cluster_tenant_gives_namespace_domain_and_nodes() -> None:
    acme = customer("acme", baseDomain="acme.example.com", compute={"mode": "dedicated", "nodePool": "gold"})
    obj = tenant(clusterTenantRef="acme")
    where = placement(obj, acme, DEFAULTS)
    assert (where.namespace, where.domain) == ("opencrane-acme", "acme.example.com")
    made = wanted(obj, where)
    assert made.host == "anna.acme.example.com"
    for manifest in made.manifests.values():
        assert manifest["metadata"]["namespace"] == "opencrane-acme"
        assert "ownerReferences" not in manifest["metadata"], "an owner in another namespace would be taken for gone"
    pod = pod_spec(obj, where)
    assert pod["nodeSelector"] == {"opencrane.io/node-pool": "gold"}
    assert pod["tolerations"][0]["value"] == "gold"


@pytest.mark.parametrize(
    ("acme", "reason"),
    [
        (None, "ClusterTenantMissing"),
        (customer("acme", phase="provisioning"), "ClusterTenantNotReady"),
        (customer("acme", phase="failed", message="no room"), "ClusterTenantNotReady"),
        (customer("acme", isolationTier="dedicatedCluster"), "OtherCluster"),
    ],
)
def test_a_tenant_waits_for_its_cluster_tenant(acme: KubeObject | None, reason: str) -> None:
    with pytest.raises(UnfitError) as caught:
        placement(tenant(clusterTenantRef="acme"), acme, DEFAULTS)
    assert caught.value.reason == reason


# -- what is there already --------------------------------------------------------------------------------------------


def completed(resource: Resource) -> tuple[KubeObject, KubeObject]:
    """A manifest, and what an API server makes of it."""
    manifest = wanted(tenant(team="red", resources={"cpu": "0.5", "memory": "1024Mi"})).manifests[resource]
    live: KubeObject = orjson.loads(orjson.dumps(manifest))
    live["metadata"] |= {"uid": "u", "resourceVersion": "9", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return manifest, live


def test_defaults_other_spellings_and_what_others_add_are_no_difference() -> None:
    manifest, live = completed(DEPLOYMENTS)
    pod = live["spec"]["template"]["spec"]
    pod |= {"dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler"}
    pod["containers"][0]["resources"]["limits"] = {"cpu": "500m", "memory": "1Gi"}
    pod["containers"][0]["env"].insert(0, {"name": "ADDED", "value": "x"})
    pod["containers"].insert(0, {"name": "sidecar", "image": "mesh:1"})
    live["metadata"]["labels"]["theirs"] = "stays"
    assert is_as_wanted(DEPLOYMENTS, manifest, live)


@pytest.mark.parametrize(
    ("resource", "change"),
    [
        (DEPLOYMENTS, lambda live: live["spec"].update(replicas=3)),
        (DEPLOYMENTS, lambda live: live["spec"]["template"]["spec"]["containers"][0].update(image="evil:1")),
        (DEPLOYMENTS, lambda live: live["spec"]["template"]["spec"]["containers"][0]["env"].pop()),
        (DEPLOYMENTS, lambda live: live["spec"]["template"]["spec"]["volumes"].pop(0)),
        (SERVICES, lambda live: live["spec"]["selector"].update({"opencrane.io/tenant": "eve"})),
        (CONFIG_MAPS, lambda live: live["data"].update({"openclaw.json": "{}"})),
        (SERVICE_ACCOUNTS, lambda live: live["metadata"].pop("ownerReferences")),
        (NETWORK_POLICIES, lambda live: live["spec"]["ingress"].append({})),
        (NETWORK_POLICIES, lambda live: live["spec"]["podSelector"]["matchLabels"].update(only="some")),
        (INGRESSES, lambda live: live["spec"]["rules"][0].update(host="other.example.com")),
    ],
)
def test_a_change_of_what_is_ours_is_seen(resource: Resource, change: Any) -> None:
    manifest, live = completed(resource)
    assert is_as_wanted(resource, manifest, live)
    change(live)
    assert not is_as_wanted(resource, manifest, live)


@pytest.mark.parametrize(
    ("left", "right"), [("1", "1000m"), ("0.5", "500m"), (2, "2"), ("1Gi", "1024Mi"), ("1e3", "1k"), ("100M", "0.1G")]
)
def test_quantities_are_compared_as_amounts(left: Any, right: Any) -> None:
    assert same_quantity(left, right)
    assert not same_quantity(left, "3Ti")
    assert not same_quantity("nonsense", right)


def test_every_key_is_its_own() -> None:
    assert len({key_data()["key"] for _ in range(5)}) == 5
    assert len(key_data()["key"]) == 44
    assert CILIUM_POLICIES not in wanted(tenant()).manifests
