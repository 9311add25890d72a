"""grype and trivy, where they are on the PATH: known vulnerabilities in what a bundle brings along.

They are programs of their own and run in a sandbox of their own, on a copy of the bundle's files, with the database
that the operator keeps for them: a scan never goes out to fetch one.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skills.scanning.findings import SEVERITIES, Finding
from skills.scanning.material import Material

MAX_FINDINGS = 200
_WORDS = {"negligible": "info", "unknown": "info", "none": "info"}
# Where each keeps its database, if not at its own default; all of the environment that it is given.
ENVIRONMENT = ("GRYPE_DB_CACHE_DIR", "TRIVY_CACHE_DIR")


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that scans a folder and writes JSON to its output."""

    name: str
    path: str
    arguments: tuple[str, ...]

    def command(self, folder: Path) -> list[str]:
        return [self.path, *(argument.replace("{folder}", str(folder)) for argument in self.arguments)]


_TOOLS = {
    "grype": ("dir:{folder}", "--output", "json", "--quiet"),
    "trivy": (
        "filesystem", "{folder}", "--format", "json", "--quiet", "--scanners", "vuln", "--skip-db-update",
        "--skip-java-db-update", "--offline-scan",
    ),
}  # fmt: skip


def tools() -> list[Tool]:
    """Those that are there."""
    found = []
    for name, arguments in _TOOLS.items():
        if path := shutil.which(name):
            found.append(Tool(name, path, arguments))
    return found


def environment(folder: Path) -> dict[str, str]:
    """Nothing of ours but the places of the databases."""
    kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    home = {"HOME": str(Path.home()), "TMPDIR": str(folder), "GRYPE_DB_AUTO_UPDATE": "false"}
    return kept | home | {"GRYPE_CHECK_FOR_APP_UPDATE": "false", "GOMEMLIMIT": "512MiB", "PATH": "/usr/bin:/bin"}


def lay_out(material: Material, folder: Path) -> None:
    """Write the bundle's files below `folder`; `archives` has let no path through that leads elsewhere."""
    folder.mkdir()
    for file in material.files:
        target = folder / (file.path or "SKILL.md")
        if not target.resolve().is_relative_to(folder.resolve()):
            raise ValueError("a path leads out of the bundle")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.data)


def parsed(tool: str, output: bytes, folder: Path) -> list[Finding]:
    """What a tool has said.

    Raises:
        ValueError: it is not what it should say.
    """
    try:
        value = json.loads(output)
        found = _grype(value) if tool == "grype" else _trivy(value)
        return [
            Finding(tool, item["rule"][:120], _severity(item["severity"]), item["message"], _relative(item, folder))
            for item in found[:MAX_FINDINGS]
        ]
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"not what {tool} says: {type(exc).__name__}") from exc


def _grype(value: Any) -> Sequence[dict[str, str]]:
    return [
        {
            "rule": match["vulnerability"]["id"],
            "severity": match["vulnerability"]["severity"],
            "message": f"{match['artifact']['name']} {match['artifact']['version']} has a known vulnerability.",
            "path": (match["artifact"].get("locations") or [{}])[0].get("path") or "",
        }
        for match in value["matches"]
    ]


def _trivy(value: Any) -> Sequence[dict[str, str]]:
    return [
        {
            "rule": item["VulnerabilityID"],
            "severity": item["Severity"],
            "message": f"{item['PkgName']} {item['InstalledVersion']} has a known vulnerability.",
            "path": result.get("Target") or "",
        }
        for result in value.get("Results") or []
        for item in result.get("Vulnerabilities") or []
    ]


def _severity(word: str) -> str:
    word = word.lower()
    word = _WORDS.get(word, word)
    return word if word in SEVERITIES else "info"


def _relative(item: dict[str, str], folder: Path) -> str:
    return item["path"].removeprefix(str(folder)).lstrip("/")[:1024]
