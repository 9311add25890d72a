"""What people do with kubectl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from devstack.tests.clusterclient import Cluster, deployment, tenant, until

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None,
    reason="kubectl IS MISSING: nothing shows that it works with the development cluster",
)

Kubectl = Callable[..., str]


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Run kubectl in a fresh namespace: its output, or with `fails` its complaint."""
    home = tmp_path_factory.getbasetemp()

    def run(*arguments: str, given: Any = None, fails: bool = False, editor: str = "") -> str:
        command = ["kubectl", "--kubeconfig", str(cluster.kubeconfig), "-n", namespace, *arguments]
        environment = {**os.environ, "HOME": str(home), "KUBE_EDITOR": editor}
        text = given if given is None or isinstance(given, str) else json.dumps(given)
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, env=environment, timeout=30, check=False
        )
        assert (done.returncode != 0) is fails, f"{command}: {done.stdout}{done.stderr}"
        return done.stderr if fails else done.stdout

    return run


def test_get_in_all_forms(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", given=tenant("a", team="x"))
    lines = kubectl("get", "tenants").splitlines()
    assert lines[0].split() == ["NAME", "TEAM", "PHASE", "SUSPENDED", "HOST", "AGE"]
    assert lines[1].split()[:3] == ["a", "x", "false"]
    shown = yaml.safe_load(kubectl("get", "oct", "a", "-o", "yaml"))
    assert shown["spec"]["email"] == "a@example.com"
    assert kubectl("get", "tenant/a", "-o", "jsonpath={.spec.team}") == "x"
    assert "tenant.opencrane.io/a" in kubectl("get", "opencrane", "-o", "name").splitlines()
    assert "tenants" in kubectl("api-resources", "--api-group=opencrane.io")
    assert "(NotFound)" in kubectl("get", "tenant", "b", fails=True)


def test_client_side_apply_and_diff(kubectl: Kubectl) -> None:
    assert "created" in kubectl("apply", "-f", "-", given=tenant("a", team="x", policyRef="p"))
    assert "unchanged" in kubectl("apply", "-f", "-", given=tenant("a", team="x", policyRef="p"))
    assert "configured" in kubectl("apply", "-f", "-", given=tenant("a", team="y"))
    shown = json.loads(kubectl("get", "tenant", "a", "-o", "json"))
    assert shown["spec"]["team"] == "y"
    assert "policyRef" not in shown["spec"]
    assert 'unknown field "spec.typo"' in kubectl("apply", "-f", "-", given=tenant("b", typo=1), fails=True)
    assert "spec.email" in kubectl("apply", "-f", "-", given=tenant("b", email="x"), fails=True)


def test_server_side_apply(kubectl: Kubectl) -> None:
    serverside = ("apply", "--server-side", "-f", "-")
    assert "serverside-applied" in kubectl(*serverside, given=tenant("a", team="x"))
    other = ("--field-manager=other",)
    complaint = kubectl(*serverside, *other, given=tenant("a", team="y"), fails=True)
    assert 'conflict with "kubectl": .spec.team' in complaint
    kubectl(*serverside, *other, "--force-conflicts", given=tenant("a", team="y"))
    assert kubectl("get", "tenant", "a", "-o", "jsonpath={.spec.team}") == "y"


def test_edit_patch_label_annotate_replace_delete(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", given=tenant("a", team="x"))
    assert "edited" in kubectl("edit", "tenant", "a", editor="sed -i s/a@example.com/b@example.com/")
    kubectl("patch", "tenant", "a", "--type=merge", "-p", '{"spec":{"suspended":true}}')
    kubectl("patch", "tenant", "a", "--type=json", "-p", '[{"op":"replace","path":"/spec/team","value":"z"}]')
    kubectl("label", "tenant", "a", "l=1")
    kubectl("annotate", "tenant", "a", "n=2")
    shown = json.loads(kubectl("get", "tenant", "a", "-o", "json", "--show-managed-fields"))
    spec = shown["spec"]
    assert (spec["email"], spec["suspended"], spec["team"]) == ("b@example.com", True, "z")
    assert (shown["metadata"]["labels"], shown["metadata"]["annotations"]) == ({"l": "1"}, {"n": "2"})
    managers = {entry["manager"] for entry in shown["metadata"]["managedFields"]}
    assert {"kubectl-create", "kubectl-edit", "kubectl-patch", "kubectl-label", "kubectl-annotate"} <= managers
    assert "replaced" in kubectl("replace", "-f", "-", given={**shown, "spec": tenant("a")["spec"]})
    assert "deleted" in kubectl("delete", "tenant", "a")


def test_deployment_story(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", given=deployment("web"))
    kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=15s")
    kubectl("apply", "-f", "-", given=deployment("web", "web:2"))
    kubectl("rollout", "status", "deployment/web", "--timeout=15s")
    kubectl("set", "env", "deployment/web", "A=1")
    kubectl("scale", "deployment/web", "--replicas=2")
    kubectl("wait", "--for=jsonpath={.status.availableReplicas}=2", "deployment/web", "--timeout=15s")
    assert "Running" in kubectl("get", "pods")
    assert "2 desired" in kubectl("describe", "deployment", "web")
    assert "web:2" in kubectl("describe", "pods")
    kubectl("delete", "deployment", "web", "--cascade=foreground")
    until(lambda: not json.loads(kubectl("get", "pods", "-o", "json"))["items"])


def test_builtin_kinds_are_printed_and_described(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "m", "--from-literal=a=1")
    kubectl("create", "secret", "generic", "s", "--from-literal=a=1")
    kubectl("create", "service", "clusterip", "v", "--tcp=80:80")
    kubectl("create", "quota", "q", "--hard=cpu=1")
    kubectl("create", "ingress", "i", "--rule=a.test/*=v:80")
    for kind in ("configmap/m", "secret/s", "service/v", "quota/q", "ingress/i", "node/development-node"):
        name = kind.partition("/")[2]
        assert name in kubectl("get", kind)
        assert name in kubectl("describe", kind)
    everywhere = kubectl(
        "get", "ns,pods,cm,secrets,svc,quota,ingress,netpol,limits,leases,events,pvc,issuers,crds", "-A"
    )
    assert "tenants.opencrane.io" in everywhere


def test_watch(kubectl: Kubectl, cluster: Cluster, namespace: str) -> None:
    kubectl("create", "-f", "-", given=tenant("a"))
    command = [
        "kubectl",
        "--kubeconfig",
        str(cluster.kubeconfig),
        "-n",
        namespace,
        "get",
        "tenants",
        "-w",
        "--no-headers",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split()[0] == "a"
        kubectl("create", "-f", "-", given=tenant("b", team="x"))
        assert process.stdout.readline().split()[:2] == ["b", "x"]
        process.terminate()


def test_who_am_i_and_tokens(kubectl: Kubectl) -> None:
    assert "kubernetes-admin" in kubectl("auth", "whoami")
    assert kubectl("auth", "can-i", "create", "tenants").strip() == "yes"
    token = kubectl("create", "token", "default", "--audience=opencrane", "--duration=10m").strip()
    assert token.count(".") == 2


def test_dry_runs_and_explain(kubectl: Kubectl) -> None:
    assert "created (server dry run)" in kubectl("apply", "-f", "-", "--dry-run=server", given=tenant("a"))
    assert "(NotFound)" in kubectl("get", "tenant", "a", fails=True)
    assert "displayName" in kubectl("explain", "tenant.spec")
