"""deploy/kubernetes: it renders, fits the Kubernetes API, and runs what docker-compose.yml runs.

What the roles allow is held against what the processes ask for in `tests/test_compose.py`.
"""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from tests import kubernetes
from tests.composed import OURS, compose, resolved
from tests.test_docs import documented_variables

ROOT = Path(__file__).resolve().parents[1]
MONITORING = ROOT / "deploy" / "monitoring"
PROCESSES = tuple(f"opencrane-{service}" for service in OURS)
# Reaches no cluster.
WITHOUT_ACCOUNT = "opencrane-beat"


@cache
def rendered() -> tuple[dict[str, Any], ...]:
    """Every object, as kubectl makes them of the base."""
    if shutil.which("kubectl") is None:
        pytest.skip("NOT TESTED: there is no kubectl here to render deploy/kubernetes")
    command = ["kubectl", "kustomize", str(kubernetes.FOLDER)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return tuple(yaml.safe_load_all(made.stdout))


def of_kind(*kinds: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in rendered() if each["kind"] in kinds}


def pods() -> dict[str, dict[str, Any]]:
    """The pod of every Deployment and Job."""
    return {name: each["spec"]["template"]["spec"] for name, each in of_kind("Deployment", "Job").items()}


def test_every_object_fits_the_kubernetes_api() -> None:
    for each in rendered():
        model = getattr(client, f"V1{each['kind']}")
        # Unknown fields, wrong types and what is missing are errors.
        model.model_validate(each)
    assert set(pods()) == set(PROCESSES)
    keys = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in rendered()]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("service", OURS)
def test_each_process_is_that_of_compose(service: str) -> None:
    theirs = compose()["services"][service]
    (container,) = pods()[f"opencrane-{service}"]["containers"]
    # Where compose reads a variable, the kubelet does.
    assert container["command"] == [re.sub(r"\$\{(\w+):-\w+\}", r"$(\1)", word) for word in theirs["command"]]
    kind, *words = theirs["healthcheck"].get("test", [""])
    if kind == "CMD-SHELL":
        assert container["livenessProbe"]["exec"]["command"] == ["sh", "-c", resolved(words[0], {})]
        assert container["startupProbe"]["exec"] == container["livenessProbe"]["exec"]
    elif kind == "CMD":
        assert container["livenessProbe"]["httpGet"]["path"] in words[-1]


def test_pods_have_no_more_rights_on_their_node_than_they_need() -> None:
    for name, pod in pods().items():
        security = pod["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 10001), name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["image"] == "opencrane"
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} == {"emptyDir", "secret"}
    assert "Secret" not in {each["kind"] for each in rendered()}, "values of secrets are nobody's but the operator's"


def test_what_uses_the_database_waits_for_its_schema() -> None:
    waits = {name for name, pod in pods().items() if pod.get("initContainers")}
    assert waits == set(PROCESSES) - {"opencrane-migrate", "opencrane-operator"}
    (first,) = {tuple(pods()[name]["initContainers"][0]["command"]) for name in waits}
    assert first == ("python", "manage.py", "migrate", "--check")


def test_configuration_names_settings_and_files_of_the_secret() -> None:
    (config,) = of_kind("ConfigMap").values()
    data = config["data"]
    assert set(data) <= set(documented_variables())
    assert set(compose()["services"]["web"]["environment"]) >= set(data) - {
        "OPENCRANE_CONTROL_PLANE_URL",
        "OPENCRANE_OPERATOR_METRICS_PORT",
        "OPENCRANE_PLATFORM_NAMESPACES",
    }
    assert data["OPENCRANE_PLATFORM_NAMESPACES"] == kubernetes.SYSTEM
    assert data["NAMESPACE"] == kubernetes.TENANTS
    files = {Path(value).name for value in data.values() if value.startswith("file:")} | {"admin_password"}
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert files == set(re.findall(r"--from-literal=(\w+)=", guide))
    for name, pod in pods().items():
        (mounted,) = [volume for volume in pod["volumes"] if "secret" in volume]
        assert mounted["secret"]["secretName"] == "opencrane"
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            assert container["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}], name


def test_services_and_budgets_pick_the_pods_they_are_for() -> None:
    labels = {each["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]: name
              for name, each in of_kind("Deployment").items()}  # fmt: skip
    for name, each in (of_kind("Service") | of_kind("PodDisruptionBudget")).items():
        selector = each["spec"]["selector"]
        picked = labels[selector.get("matchLabels", selector)["app.kubernetes.io/component"]]
        assert picked == name
    several = {name for name, each in of_kind("Deployment").items() if each["spec"]["replicas"] > 1}
    assert set(of_kind("PodDisruptionBudget")) == several
    for name in of_kind("Service"):
        (port,) = of_kind("Service")[name]["spec"]["ports"]
        assert port["targetPort"] in {each["name"] for each in pods()[name]["containers"][0]["ports"]}
    metrics_port = next(iter(of_kind("ConfigMap").values()))["data"]["OPENCRANE_OPERATOR_METRICS_PORT"]
    assert pods()["opencrane-operator"]["containers"][0]["ports"][0]["containerPort"] == int(metrics_port)


# --- Rights ----------------------------------------------------------------------------------------------------------


def test_nobody_may_everything_and_everybody_has_an_account_of_their_own() -> None:
    found = kubernetes.documents("rbac/*.yaml")
    for role in (each for each in found if "rules" in each):
        for rule in role["rules"]:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
            assert "nonResourceURLs" not in rule
    accounts = {
        each["metadata"]["name"]: each["metadata"]["namespace"] for each in found if each["kind"] == "ServiceAccount"
    }
    # Where web may make tokens for anybody there must be nobody of the control plane.
    assert set(accounts.values()) == {kubernetes.SYSTEM}
    assert set(accounts) == set(PROCESSES) - {WITHOUT_ACCOUNT}
    for name in accounts:
        assert pods()[name]["serviceAccountName"] == name
    assert pods()[WITHOUT_ACCOUNT]["automountServiceAccountToken"] is False


def test_web_may_look_and_ask_for_tokens_of_tenants() -> None:
    rights = kubernetes.rights("opencrane-web")
    ours = {right for right in rights if right.resource.endswith(".opencrane.io")}
    assert {right.verb for right in ours} == {"get", "list"}
    assert {(right.resource, right.verb, rule["namespace"]) for right, rule in rights.items() if right not in ours} == {
        ("issuers.cert-manager.io", "get", kubernetes.TENANTS),
        ("clusterissuers.cert-manager.io", "get", kubernetes.CLUSTER_WIDE),
        ("serviceaccounts/token", "create", kubernetes.TENANTS),
        ("tokenreviews.authentication.k8s.io", "create", kubernetes.CLUSTER_WIDE),
    }


def test_the_documents_list_the_rights_as_they_are() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for account in set(PROCESSES) - {WITHOUT_ACCOUNT, "opencrane-operator"}:
        assert kubernetes.table(account) in operations
    assert kubernetes.table("opencrane-operator") in (ROOT / "docs" / "operator.md").read_text(encoding="utf-8")
