"""What people do with it: tenants from one end to the other, files, an editor, jobs."""

import json
import os
import re
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.tests.conftest import Terminal
from operations.models import AuditEntry
from skills.models import SkillBundle
from tenants.models import Tenant
from tests.cluster.kube import Kubectl


def test_a_tenant_from_one_end_to_the_other(opencrane: Terminal, acme: str) -> None:
    assert "tenants create" in opencrane("tenants", "list").err, "an empty list teaches"
    anna = ["--display-name", "Anna", "--email", "anna@example.com"]
    made = opencrane.ok("tenants", "create", "anna", *anna, "--cpu", "500m", "--budget", "$50", "--mcp-deny", "github")
    assert made == "tenants/anna created\n"
    ran = opencrane("tenants", "create", "anna", *anna)
    assert (ran.status, "TENANT_EXISTS" in ran.err) == (5, True)
    ran = opencrane("tenants", "create", "ben", "--display-name", "Ben", "--email", "ben")
    assert (ran.status, re.search(r"^  email: .+$", ran.err, re.MULTILINE) is not None) == (1, True)
    # The request id leads to the log and to the trail.
    assert re.search(r"VALIDATION_ERROR, request [\w-]{8,}", ran.err)

    # A flag changes one field, also inside of an object; the rest of it stays.
    opencrane.ok("tenants", "update", "anna", "--memory", "2Gi", "--mcp-allow", "wiki")
    anna_now = json.loads(opencrane.ok("tenants", "get", "anna", "-o", "json"))
    assert anna_now["resources"] == {"cpu": "500m", "memory": "2Gi"}
    assert anna_now["mcpPolicy"] == {"allow": ["wiki"], "deny": ["github"]}
    opencrane.ok("tenants", "update", "anna", "--clear", "cpu", "--clear", "budget", "--team", "search")
    anna_now = json.loads(opencrane.ok("tenants", "get", "anna", "-o", "json"))
    assert (anna_now["resources"], anna_now["monthlyBudgetUsd"], anna_now["team"]) == (
        {"memory": "2Gi"},
        None,
        "search",
    )
    assert opencrane("tenants", "update", "anna").status == 2
    assert opencrane("tenants", "update", "anna", "--team", "x", "--if-match", '"1.0"').status == 5

    file = opencrane.folder / "ben.yaml"
    file.write_text("displayName: Ben\nemail: ben@example.com\nconfigOverrides: {model: small}\n")
    assert opencrane.ok("tenants", "create", "ben", "-f", str(file), "--team", "search", "-o", "name") == "ben\n"
    assert json.loads(opencrane.ok("tenants", "get", "ben", "-o", "json"))["configOverrides"] == {"model": "small"}
    assert opencrane.ok("tenants", "list", "--team", "search", "-o", "name") == "ben\nanna\n"

    opencrane.ok("datasets", "set", "anna", "--project", "atlas", "--project", "borealis")
    shown = opencrane.ok("datasets", "set", "anna", "--team", "search", "--clear", "project")
    assert re.search(r"Team: +search\nProject: +-\n", shown)

    opencrane.ok("tenants", "suspend", "anna", "ben", "--reason", "moving house")
    assert AuditEntry.objects.filter(action="tenant.suspended", message__contains="moving house").count() == 2
    assert opencrane.ok("tenants", "list", "--phase", "Suspended", "-o", "name") == "ben\nanna\n"
    assert opencrane.ok("tenants", "wait", "anna", "--until", "phase=Suspended", "--for-at-most", "30s")
    opencrane.ok("tenants", "resume", "anna")
    ran = opencrane("tenants", "wait", "anna", "--until", "phase=Suspended", "--for-at-most", "0s")
    assert (ran.status, "not within" in ran.err) == (6, True)
    trail = opencrane.ok("audit", "--tenant", "anna", "--no-headers").splitlines()
    assert "tenant.resumed" in trail[0]
    assert "tenant.created" in trail[-1]

    # One that is not there does not keep the others.
    ran = opencrane("tenants", "delete", "ben", "nobody", "anna", "--yes")
    assert (ran.status, ran.out) == (4, "tenants/ben deleted\ntenants/anna deleted\n")
    assert not Tenant.objects.exists()


FLEET = """\
kind: Group
metadata: {name: crew}
spec:
  members: [Ben@Example.com, anna]
  grants:
    - {payloadId: atlas, scope: project}
---
apiVersion: opencrane.io/v1alpha1
kind: Tenant
metadata: {name: anna, labels: {theirs: kept}}
spec: {displayName: "Ännä 日本", email: anna@example.com, policyRef: web, resources: {cpu: 2, memory: 4Gi}}
status: {phase: Running}
---
kind: AccessPolicy
metadata: {name: web}
spec: {domains: ["example.com"], egressRules: [{cidr: 10.0.0.0/8, ports: [443]}], tenantSelector: {}}
---
kind: McpServer
metadata: {name: github}
spec:
  endpoint: https://mcp.example.com/github
  transport: streamable-http
  grants: [{subjectType: group, subjectName: crew}, {subjectType: user, subjectName: ben@example.com, access: deny}]
  credentials: [{displayName: bot, secretRef: "mcp/github#token"}]
---
kind: SkillBundle
metadata: {name: summarize}
spec: {version: 1.0.0, scope: org, status: published, content: "# Summarize\\n\\nIn a sentence.\\n"}
---
kind: AccountBudget
metadata: {name: anna@example.com}
spec: {monthlyLimitUsd: 120.5}
---
kind: Datasets
metadata: {name: anna}
spec: {project: [atlas]}
---
kind: Webhook
metadata: {name: pager}
spec: {url: "https://hooks.example.com/x", events: [job.failed]}
---
kind: ThirdPartySource
metadata: {name: team-skills}
spec: {type: git-repository, url: "https://git.example.com/skills.git"}
---
kind: ClusterTenant
metadata: {name: ACME}
spec: {displayName: Acme, isolationTier: shared, compute: {mode: shared}, resources: {quota: {cpu: 4, pods: 10}}}
"""


def actions(text: str) -> list[str]:
    return sorted({line.split()[1] for line in text.splitlines()})


def test_files_are_applied_compared_and_exported(opencrane: Terminal, acme: str) -> None:
    fleet = FLEET.replace("ACME", acme)
    file = opencrane.folder / "fleet.yaml"
    file.write_text(fleet, encoding="utf-8")
    first = opencrane.ok("apply", "--dry-run", "-f", str(file))
    assert (actions(first), Tenant.objects.count()) == (["created"], 0)
    made = opencrane.ok("apply", "-f", str(file))
    # What is referred to comes first.
    order = [line.split("/")[0] for line in made.splitlines()]
    assert order.index("policies") < order.index("tenants") < order.index("groups") < order.index("mcp-servers")
    assert len(order) == 10
    # The skill has been scanned meanwhile, and may be published now. Nothing else has anything to do.
    again = opencrane.ok("apply", "-f", "-", stdin=fleet).splitlines()
    assert [line for line in again if not line.endswith("unchanged")] == ["skills/summarize@1.0.0 configured"]
    assert SkillBundle.objects.get().status == "published"
    assert opencrane("diff", "-f", str(file)).status == 0

    # What is exported says the same.
    exported = opencrane.ok("export")
    assert actions(opencrane.ok("apply", "-f", "-", stdin=exported)) == ["unchanged"]
    spec = next(each for each in yaml.safe_load_all(exported) if each["kind"] == "Tenant")["spec"]
    assert spec["displayName"] == "Ännä 日本"
    assert "grants:\n  - payloadId: atlas" in opencrane.ok("export", "groups/crew").replace("    ", "  ")

    changed = fleet.replace("4Gi", "8Gi").replace("access: deny", "access: allow").replace("[atlas]", "[]")
    ran = opencrane("diff", "-f", "-", stdin=changed)
    assert ran.status == 7
    assert {"-    memory: 4Gi", "+    memory: 8Gi", "-      access: deny"} <= set(ran.out.splitlines())
    rows = json.loads(opencrane.ok("apply", "-f", "-", "-o", "json", stdin=changed))
    assert [row["kind"] for row in rows if row["action"] == "configured"] == ["Tenant", "Datasets", "McpServer"]
    # Fields that a document leaves out stay; null clears one.
    opencrane.ok(
        "apply", "-f", "-", stdin="kind: Tenant\nmetadata: {name: anna}\nspec: {team: search, policyRef: null}"
    )
    tenant = json.loads(opencrane.ok("tenants", "get", "anna", "-o", "json"))
    assert (tenant["team"], tenant["policyRef"], tenant["resources"]["memory"]) == ("search", None, "8Gi")

    # What is wrong with a file is said before anything is done, with the place.
    for text, said in (
        ("kind: Tenant\nmetadata: {name: x}\nspec: {displayNam: X}", "document 1: Tenant has no spec.displayNam"),
        ("kind: Tennant\nmetadata: {name: x}", "Tennant"),
        ("kind: Tenant\nspec: {}", "metadata.name is missing"),
        ("kind: Tenant\nmetadata: {name: no}", "in quotes"),
        ("apiVersion: v1\nkind: Tenant\nmetadata: {name: x}", "v1"),
        ("a: [1", "line 1"),
        ("a: 1\na: 2", "line 2"),
        ("", "no document"),
        ("kind: Group\nmetadata: {name: a}\n---\nkind: Group\nmetadata: {name: a}", "more than once"),
    ):
        ran = opencrane("apply", "-f", "-", stdin=text)
        assert (ran.status, ran.out) == (2, ""), text
        assert said in ran.err, text
    # What the server refuses does not keep the others from their turn.
    refused = "kind: Tenant\nmetadata: {name: BAD}\nspec: {displayName: x, email: x@example.com}\n"
    ran = opencrane("apply", "-f", "-", stdin=f"{refused}---\nkind: Group\nmetadata: {{name: ok}}\n")
    assert (ran.status, ran.out) == (1, "groups/ok created\n")
    assert "tenants/BAD" in ran.err


class Editor:
    """A program that stands for somebody's editor: one shell command for each time it is opened."""

    def __init__(self, terminal: Terminal) -> None:
        self.folder = terminal.folder
        self.terminal = terminal
        self.script = self.folder / "editor"

    def does(self, *commands: str) -> None:
        lines = ['n=$(cat "$0.n" 2>/dev/null || echo 0); n=$((n+1)); echo $n > "$0.n"; cp "$1" "$0.$n"; case $n in']
        lines += [f"{number}) {command};;" for number, command in enumerate(commands, 1)]
        self.script.write_text("\n".join(["#!/bin/sh", *lines, "*) exit 9;;", "esac"]))
        self.script.chmod(0o755)
        self.script.with_name("editor.n").unlink(missing_ok=True)
        self.terminal.env["EDITOR"] = str(self.script)

    def seen(self, number: int) -> str:
        return self.script.with_name(f"editor.{number}").read_text(encoding="utf-8")


def test_an_object_is_edited(opencrane: Terminal, acme: str) -> None:
    opencrane.ok("apply", "-f", "-", stdin=FLEET.replace("ACME", acme))
    editor = Editor(opencrane)
    editor.does("sed -i 's/4Gi/8Gi/; /policyRef/d' $1")
    ran = opencrane("tenants", "edit", "anna")
    assert (ran.status, ran.out.splitlines()[-1]) == (0, "tenants/anna edited")
    assert "+    memory: 8Gi" in ran.out
    tenant = json.loads(opencrane.ok("tenants", "get", "anna", "-o", "json"))
    assert (tenant["resources"]["memory"], tenant["policyRef"]) == ("8Gi", None)

    # Nothing changed, nothing sent; an editor that fails changes nothing.
    before = AuditEntry.objects.count()
    editor.does("true")
    assert "unchanged" in opencrane("tenants", "edit", "anna").err
    editor.does("echo > $1")
    assert "unchanged" in opencrane("tenants", "edit", "anna").err
    editor.does("exit 3")
    assert opencrane("tenants", "edit", "anna").status == 1
    assert AuditEntry.objects.count() == before

    # Refused: it comes back with the reason on top, as often as it takes.
    editor.does("sed -i 's/anna@example.com/nobody/' $1", "sed -i 's/spec:/spec: [/' $1",
                "sed -i 's/spec: \\[/spec:/; s/email: nobody/email: new@example.com/' $1")  # fmt: skip
    assert opencrane("tenants", "edit", "anna").out.endswith("tenants/anna edited\n")
    assert "#   email: Enter a valid email address." in editor.seen(2)
    assert "email: nobody" in editor.seen(2)
    assert editor.seen(3).startswith("# the text, line ")

    # Somebody else was quicker: their change is shown, and what is sent then builds on it.
    editor.does(
        "read _ < $0.open; sed -i 's/8Gi/6Gi/' $1",
        "sed -i 's/displayName: .*/displayName: Anna/; s/^  email:/  team: other\\n  email:/' $1",
    )
    waiting = editor.script.with_name("editor.open")
    os.mkfifo(waiting)
    with opencrane.start("tenants", "edit", "anna") as editing:
        with waiting.open("w", encoding="ascii") as go_on:  # once the editor is open
            opencrane.ok("tenants", "update", "anna", "--team", "other")
            go_on.write("\n")
        _, err = editing.communicate(timeout=60)
    assert editing.returncode == 0, err
    assert "PRECONDITION_FAILED" in editor.seen(2)
    assert "# +  team: other" in editor.seen(2)
    tenant = json.loads(opencrane.ok("tenants", "get", "anna", "-o", "json"))
    assert (tenant["displayName"], tenant["team"], tenant["resources"]["memory"]) == ("Anna", "other", "6Gi")

    # Given up: the text is kept where it is found again.
    editor.does("sed -i 's/name: crew/name: \"\"/' $1", "true")
    ran = opencrane("groups", "edit", "crew")
    kept = re.search(r"Your text is in (\S+)", ran.err)
    assert (ran.status, kept is not None) == (2, True)
    assert kept is not None
    assert 'name: ""' in Path(kept[1]).read_text(encoding="utf-8")
    Path(kept[1]).unlink()
    editor.does("sed -i 's/name: crew/name: team/' $1")
    opencrane.ok("groups", "edit", "crew")
    assert opencrane.ok("groups", "list", "-o", "name") == "team\n"


def test_grants_and_why(opencrane: Terminal, acme: str) -> None:
    opencrane.ok("apply", "-f", "-", stdin=FLEET.replace("ACME", acme))
    opencrane.ok("mcp-servers", "update", "github", "--status", "active")
    why = ["why", "anna", "mcp-server", "github"]
    assert "anna is allowed mcp-server github." in opencrane.ok(*why)
    ran = opencrane(*why, "--grant", "deny", "--to", "tenant:anna", "--priority", "5", "--exit-code")
    assert (ran.status, "would be denied" in ran.out) == (7, True)
    opencrane.ok("mcp-servers", "grant", "github", "--to", "tenant:anna", "--deny", "--note", "for now")
    assert opencrane(*why, "-o", "name").out == "deny\n"
    assert "github" not in opencrane.ok("contract", "get", "anna")
    assert opencrane("mcp-servers", "revoke", "github", "tenant:nobody", "--yes").status == 4
    opencrane.ok("mcp-servers", "revoke", "github", "tenant:anna", "--yes")
    assert opencrane(*why, "-o", "name").out == "allow\n"
    assert re.search(r"github +streamable-http", opencrane.ok("contract", "get", "anna"))
    opencrane.ok("groups", "remove", "crew", "anna", "BEN@example.com")
    assert "unchanged" in opencrane.ok("groups", "remove", "crew", "anna")
    assert opencrane(*why, "-o", "name").out == "deny\n"
    opencrane.ok("mcp-servers", "credentials", "create", "github", "--name", "two", "--mode", "obo")
    opencrane.ok("mcp-servers", "credentials", "delete", "github", "bot", "--yes")
    assert re.search(r"^two +obo", opencrane.ok("mcp-servers", "credentials", "list", "github"), re.MULTILINE)


def test_drift_is_seen_and_repaired_and_jobs_are_followed(opencrane: Terminal, acme: str) -> None:
    opencrane.ok("tenants", "create", "anna", "--display-name", "Anna", "--email", "anna@example.com")
    # Cluster tenants are everybody's, those of other test processes too.
    kinds = ["--kind", "tenants", "--kind", "policies"]
    assert opencrane("drift", "list", "--exit-code", *kinds).status == 0
    Kubectl().edit("anna", {"spec": {"team": "payments"}})
    ran = opencrane("drift", "list", "--exit-code", *kinds, "-o", "wide")
    assert ran.status == 7
    assert re.search(r"anna +field-mismatch +team +payments +-", ran.out)
    assert opencrane.ok("drift", "list", *kinds, "-o", "name") == "tenants/anna\n"
    assert "1 would be repaired" in opencrane("tenants", "repair", "--dry-run").err
    assert opencrane("tenants", "repair").status == 2, "it asks, and there is nobody to ask"
    assert opencrane("tenants", "drift", "-o", "name").out == "anna\n"
    assert "1 repaired" in opencrane("tenants", "repair", "anna", "--yes").err
    assert opencrane("tenants", "drift", "--exit-code").status == 0

    # An export is a job: followed to its end, or left alone.
    lines = opencrane.ok("audit", "export", "--tenant", "anna").splitlines()
    assert "tenant.created" in {json.loads(line)["action"] for line in lines}
    target = opencrane.folder / "audit.csv"
    opencrane.ok("audit", "export", "--format", "csv", "--to", str(target))
    assert target.read_text().count("\n") > 2
    job = opencrane.ok("audit", "export", "--no-wait").strip()
    assert re.search(rf"jobs/{job} succeeded", opencrane.ok("jobs", "watch", job))
    assert opencrane.ok("jobs", "file", job).splitlines()[-1] == lines[-1]
    assert job in opencrane.ok("jobs", "list", "--status", "succeeded", "-o", "name")
    opencrane.ok("sources", "create", "far", "--type", "git-repository", "--url", "https://git.invalid/x.git")
    opencrane.ok("sources", "approve", "far")
    ran = opencrane("sources", "sync", "far")
    assert (ran.status, "could not be read" in ran.err) == (6, True)
    with opencrane.start("audit", "--follow", "-o", "json") as following:
        assert following.stdout is not None
        seen: deque[str] = deque()
        while not seen or "third_party_source" not in seen[-1]:
            seen.append(json.loads(following.stdout.readline())["action"])
        opencrane.ok("groups", "create", "later")
        while seen[-1] != "group.created":
            seen.append(json.loads(following.stdout.readline())["action"])
        following.terminate()
        following.communicate()
    assert seen[0] == "tenant.created", "the oldest first"


class Moody(BaseHTTPRequestHandler):
    """A server that is busy at first, or closes the connection; the test says how often."""

    moods: deque[Any] = deque()
    seen: list[str] = []

    def answer(self) -> None:
        type(self).seen.append(self.command)
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        mood = self.moods.popleft() if self.moods else 200
        if mood == "gone":
            self.close_connection = True
            return
        status, headers = mood if isinstance(mood, tuple) else (mood, {})
        body = b"[]" if status == 200 else b'{"error": "Busy.", "code": "RATE_LIMITED"}'
        if status == 418:
            body = b"<html>a proxy</html>"
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: Any) -> None: ...


def test_what_may_be_sent_twice_is_sent_again(away: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.client.time.sleep", lambda seconds: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    away.env |= {"OPENCRANE_URL": f"http://127.0.0.1:{server.server_port}", "OPENCRANE_TOKEN": "t"}
    soon, later = {"Retry-After": "0"}, {"Retry-After": "600"}
    uuid = "0f0e0d0c-0b0a-4908-8706-050403020100"
    try:
        for moods, argv, status, tries in (
            ([(503, soon), (429, soon), "gone", 200], "groups list", 0, 4),
            ([(503, soon)] * 4, "groups list", 6, 4),
            ([(429, later)], "groups list", 6, 1),
            ([(503, {})], "groups list", 6, 1),
            ([(503, soon), 200], "groups create crew", 6, 1),
            (["gone"], "groups create crew", 6, 1),
            ([(503, soon), 200], f"groups delete {uuid} --yes", 0, 2),
            # It may have arrived: the second would be refused for what the first has done.
            (["gone", 200], f"groups delete {uuid} --yes", 6, 1),
            (["gone", 200], f"groups update {uuid} --description x", 0, 2),
            (["gone", 200], f'groups update {uuid} --description x --if-match "1.0"', 6, 1),
            ([418], "groups list", 1, 1),
        ):
            Moody.moods, Moody.seen = deque(moods), []
            ran = away(*argv.split())
            assert (ran.status, len(Moody.seen)) == (status, tries), (argv, moods, ran)
            assert status == 0 or ran.err.startswith("opencrane: "), ran.err
    finally:
        server.shutdown()
        server.server_close()
