"""What is printed: to people, to pipes, to programs; and what must never be."""

import contextlib
import datetime
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from cli import texts, values, yamls
from cli.documents import KINDS, Document, _differs, parsed
from cli.errors import UsageError
from cli.output import _cut
from cli.tests.conftest import ROOT, Terminal

HOSTILE = "red \x1b[31m bell \x07 \u202eback\u202c line\nend"
WIDE = "日本語のグループ"


def test_groups_in_every_form(opencrane: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.client.PAGE", 2)
    names = [WIDE, "a" * 250, "platform", "ünïcode"]
    for name in names:
        opencrane.ok("groups", "create", name, "--description", HOSTILE if name == "platform" else name)
    opencrane.ok("groups", "add", "platform", "ben@example.com", "anna@example.com")

    table = opencrane.ok("groups", "list").splitlines()
    assert table[0].split() == ["NAME", "SCOPE", "MEMBERS", "GRANTS", "AGE"]
    # Nothing is cut where nobody looks, and columns stand below one another, whatever the letters take.
    assert [line.split("  ")[0] for line in table[1:]] == names[::-1]
    for page in (table[:3], table[3:]):
        assert len({texts.width(line[: re.search(" (org|SCOPE) ", line).start()]) for line in page}) == 1  # type: ignore[union-attr]
    assert re.search(r"20\d\d-\d\d-\d\dT[\d:.]+Z$", table[1]), "times are exact"
    assert opencrane.ok("groups", "list", "--no-headers").splitlines() == table[1:]
    assert opencrane.ok("groups", "list", "-o", "name").splitlines() == names[::-1]
    assert opencrane.ok("groups", "list", "-o", "name", "--limit", "3").splitlines() == names[:0:-1]
    rows = json.loads(opencrane.ok("groups", "list", "-o", "json"))
    assert [row["name"] for row in rows] == names[::-1]
    assert yaml.safe_load(opencrane.ok("-o", "yaml", "groups", "list")) == rows
    assert json.loads(opencrane.ok("groups", "list", "-q", "nothing", "-o", "json")) == []

    one = opencrane.ok("groups", "get", "platform")
    assert re.search(r"^Members: +anna@example.com, ben@example.com$", one, re.MULTILINE)
    detail = json.loads(opencrane.ok("groups", "get", "platform", "-o", "json"))
    assert detail == json.loads(opencrane.ok("api", "get", f"/groups/{detail['id']}"))
    assert detail["description"] == HOSTILE
    # A terminal would obey these.
    for shown in (one, opencrane.ok("groups", "list", "-o", "wide")):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
    assert [row["name"] for row in json.loads(opencrane.ok("groups", "get", "platform", WIDE, "-o", "json"))] == [
        "platform",
        WIDE,
    ]
    # What there is is shown, though something is missing.
    ran = opencrane("groups", "get", "nobody", WIDE)
    assert (ran.status, WIDE in ran.out, "nobody" in ran.err) == (4, True, True)
    pages = json.loads(opencrane.ok("api", "GET", "/groups", "--paginate"))
    assert [row["name"] for row in pages] == names[::-1]


def test_secrets_are_printed_once_and_alone(opencrane: Terminal) -> None:
    ran = opencrane("tokens", "create", "ci", "--role", "viewer", "--expires", "90d")
    secret = ran.out.strip()
    assert re.fullmatch(r"ocp_[0-9a-f]{48}", secret)
    assert secret not in ran.err
    listed = json.loads(opencrane.ok("tokens", "list", "-o", "json"))[0]
    made, ends = (datetime.datetime.fromisoformat(listed[each]) for each in ("createdAt", "expiresAt"))
    assert abs(ends - made - datetime.timedelta(days=90)) < datetime.timedelta(minutes=1)
    ran = opencrane("webhooks", "create", "pager", "--url", "https://hooks.example.com/x", "--event", "job.failed")
    assert re.fullmatch(r"whsec_\S+\n", ran.out)
    for kept in (secret, ran.out.strip()):
        for command in (
            ["tokens", "list"],
            ["webhooks", "get", "pager"],
            ["audit"],
            ["audit", "-o", "json"],
            ["export"],
        ):
            assert kept not in opencrane.ok(*command)
    assert "apiKey" in opencrane("provider-keys", "set", "anthropic", stdin="short").err
    typed = opencrane("provider-keys", "set", "anthropic", "-v", stdin="sk-ant-0123456789")
    assert (typed.status, "sk-ant" in typed.out + typed.err) == (0, False)
    assert "anthropic" in opencrane.ok("provider-keys", "list", "-o", "name")
    assert opencrane("tokens", "revoke", listed["id"], "--yes").out == f"tokens/{listed['id']} revoked\n"


class Pty:
    """A command on a terminal of 80 columns."""

    def __init__(self, terminal: Terminal, *argv: str) -> None:
        self.ours, theirs = pty.openpty()
        env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
        env |= terminal.env | {"TERM": "xterm", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "cli", *argv]
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=ROOT)
        os.close(theirs)
        self.seen = ""

    def until(self, text: str) -> None:
        """Read until it shows this."""
        while text not in self.seen:
            assert self._read(), f"it has ended without {text!r}: {self.seen}"

    def _read(self) -> bool:
        ready, _, _ = select.select([self.ours], [], [], 30)
        assert ready, self.seen
        try:
            piece = os.read(self.ours, 65_536).decode()
        except OSError:  # on Linux, how a terminal ends
            return False
        self.seen += piece
        return bool(piece)

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def end(self) -> int:
        """Read to the end; returns the exit status."""
        while self._read():
            pass
        os.close(self.ours)
        return self.process.wait(30)


@pytest.fixture
def crew(opencrane: Terminal) -> Terminal:
    """A server with a group."""
    opencrane.ok("groups", "create", "crew", "--description", "long " * 40)
    return opencrane


def test_on_a_terminal_it_asks_and_fits(crew: Terminal) -> None:
    asked = Pty(crew, "groups", "delete", "crew")
    asked.until("[y/N] ")
    assert "Delete group crew?" in asked.seen
    asked.type("n\n")
    asked.until("nothing was changed")
    assert asked.end() == 1
    shown = Pty(crew, "groups", "list", "-o", "table")
    shown.until("crew")
    assert shown.end() == 0
    lines = re.sub(r"\x1b\[\d*m", "", shown.seen).splitlines()
    assert re.match(r"crew +org +0 +0  \d+s$", lines[1]), "times are relative"
    assert "\x1b[1mNAME" in shown.seen
    asked = Pty(crew, "groups", "delete", "crew", "--no-color")
    asked.until("[y/N] ")
    asked.type("y\n")
    asked.until("groups/crew deleted")
    assert asked.end() == 0
    assert "\x1b" not in asked.seen
    # Without a terminal nobody is asked, and nothing is done.
    crew.ok("groups", "create", "crew")
    ran = crew("groups", "delete", "crew", stdin="y\n")
    assert (ran.status, "--yes" in ran.err) == (2, True)
    crew.ok("groups", "delete", "crew", "--yes")


def test_readers_that_leave_and_people_that_interrupt(crew: Terminal) -> None:
    for number in range(3):
        crew.ok("groups", "create", f"{number}{'x' * 240}")
    with crew.start("groups", "list", "--watch") as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith("NAME")
        watching.send_signal(signal.SIGINT)
        assert watching.communicate(timeout=30)[1] == ""
        assert watching.returncode == 130
    ours, theirs = os.pipe()
    os.close(ours)
    with crew.start("groups", "list", "-o", "json", stdout=theirs) as broken:
        os.close(theirs)
        assert broken.communicate(timeout=30)[1] == ""
        assert broken.returncode == 141


def test_completion_knows_commands_flags_and_names(crew: Terminal) -> None:
    def completed(*words: str) -> list[str]:
        crew.env |= {
            "_OPENCRANE_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["opencrane", *words]),
            "COMP_CWORD": str(len(words)),
        }  # fmt: skip
        found = crew().out.split()
        del crew.env["_OPENCRANE_COMPLETE"]
        return found

    crew.ok("groups", "create", "crew two")
    assert completed("gr") == ["groups"]
    assert "create" in completed("groups", "")
    assert completed("groups", "list", "--sc") == ["--scope"]
    assert completed("groups", "list", "--scope", "p") == ["project", "personal"]
    assert completed("groups", "get", "cr") == ["crew", "crew", "two"]
    assert completed("tenants", "list", "-o", "j") == ["json"]
    token = crew.env.pop("OPENCRANE_TOKEN")
    assert completed("groups", "get", "cr") == [], "nobody is signed in"
    crew.env |= {"OPENCRANE_TOKEN": token, "OPENCRANE_URL": "http://127.0.0.1:9"}
    assert completed("groups", "get", "cr") == [], "nobody is there"
    for shell in ("bash", "zsh", "fish"):
        assert "_OPENCRANE_COMPLETE" in crew.ok("completion", shell)
    script = crew.ok("completion", "bash")
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    # Read from `fpath`, it has to complete at once and not only say who will.
    assert "loadautofunc" in crew.ok("completion", "zsh")


def test_wrong_command_lines_say_what_is_right(away: Terminal) -> None:
    for argv, said in (
        (["tenant", "lsit"], "list"),
        (["tennants"], "tenants"),
        (["tenants", "list", "--phase", "running"], "Running"),
        (["tenants", "list", "--tema", "x"], "--team"),
        (["tenants", "get"], "NAME"),
        (["tenants", "list", "--limit", "-1"], "0 or more"),
        (["tenants", "create", "anna", "--budget", "lots"], "US dollars"),
        (["audit", "--since", "yesterday"], "2026-05-01"),
        (["mcp-servers", "grant", "github", "--to", "platform"], "group:NAME"),
        (["tenants", "get", ".."], ".."),
        (["api", "FETCH", "/tenants"], "GET"),
        (["groups", "list", "-o", "xml"], "json"),
        (["tenants", "get", "anna", "extra", "--purge"], "--purge"),
        (["tenants", "create", "-f", "/nowhere.yaml"], "/nowhere.yaml"),
        (["api", "PUT", "/tenants/anna", "-f", "-"], "JSON"),
    ):
        ran = Terminal(away.env | {"OPENCRANE_URL": "http://127.0.0.1:9"})(*argv, stdin="a: !!set {b, c}")
        assert (ran.status, ran.out) == (2, ""), (argv, ran)
        assert said in ran.err, (argv, ran.err)
    assert away().out.startswith("Manage OpenCrane")
    assert away.ok("groups", "--help") == away.ok("group")


# --- Text and values --------------------------------------------------------------------------------------------------

anything = st.text(st.characters(codec=None, exclude_categories=()))


@given(anything)
def test_clean_text_is_a_line_that_nothing_obeys(text: str) -> None:
    shown = texts.clean(text)
    assert "\n" not in shown
    assert not re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]", shown)
    assert texts.clean(shown) == shown
    if text.isascii() and text.isprintable():
        assert shown == text


@given(st.text(max_size=30), st.integers(1, 20))
def test_cut_text_fits(text: str, room: int) -> None:
    shown = _cut(texts.clean(text), room)
    assert texts.width(shown) <= room
    assert texts.width(texts.clean(text)) > room or shown == texts.clean(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1), json_values, min_size=1, max_size=4))
@example({"note": "no", "time": "2026-05-01T12:00:00Z", "day": "2026-05-01", "octal": "010", "end": "a\n b \n"})
def test_yaml_comes_back_as_it_was(value: dict[str, Any]) -> None:
    assert list(yamls.documents(yamls.dump(value), "test")) == [value]


parts = st.fixed_dictionaries(
    {},
    optional={
        "apiVersion": st.just("opencrane.io/v1alpha1") | json_values,
        "kind": st.sampled_from([kind.document for kind in KINDS]) | json_values,
        "metadata": st.just({"name": "x"}) | json_values,
        "spec": st.dictionaries(st.sampled_from(["version", "grants", "resources", "displayName"]), json_values)
        | json_values,
        "other": json_values,
    },
)


@given(parts | json_values)
@example({"kind": "Tenant", "metadata": {"name": "x"}, 1: 2})
def test_whatever_stands_in_a_file_is_a_document_or_refused(value: Any) -> None:
    with contextlib.suppress(UsageError):  # whatever else it raises fails the test
        document = parsed(value, "file")
        assert document.name.strip()
        assert set(document.spec) <= set(document.kind.writable)


LIVE = {
    "domainPolicy": {"allow": ["example.com"], "deny": [], "defaultDeny": True},
    "egressRules": [{"cidr": "10.0.0.0/8", "ports": [443], "protocol": "TCP"}],
    "tenantSelector": {"matchTeam": "search"},
    "mcpServers": {"allow": ["github"]},
    "grants": [{"id": "1", "payloadId": "atlas", "subjectType": "user", "subjectName": "ben@example.com"}],
    "members": ["anna", "ben@example.com"],
    "resources": {"cpu": "2"},
}


@given(st.sampled_from(["domains", *LIVE]), json_values)
@example("egressRules", [{"cidr": "10.0.0.0/8", "ports": 443}])
@example("grants", ["atlas"])
def test_whatever_a_document_wants_is_compared(field: str, wanted: Any) -> None:
    kind = next(kind for kind in KINDS if kind.document == "AccessPolicy")
    live = LIVE[kind.nested.get(field, field)]
    for value, is_same in ((wanted, wanted == live), (live, True)):
        differs = _differs(Document(kind, "web", {field: value}, "file"), LIVE)
        assert not (differs and is_same)
    # Cleared is as good as empty.
    empty = {"domainPolicy": {"allow": [], "deny": [], "defaultDeny": False}}
    assert not _differs(Document(kind, "web", {"domains": None}, "file"), empty)


@given(st.integers(0, 10**6), st.sampled_from("smhdw"))
def test_lengths_of_time(amount: int, unit: str) -> None:
    assert values.span(f"{amount}{unit}") == amount * values._UNITS[unit]


@given(anything)
def test_readers_refuse_in_one_way(text: str) -> None:
    readers = (values.span, values.past, values.future, values.money, values.egress, values.subject, values.selector,
               values.pair, values.count, values.seconds)  # fmt: skip
    for read in readers:
        # Whatever else it raises fails the test.
        with contextlib.suppress(ValueError):
            read(text)
