"""Signatures of our own, in YARA: words to agents, hidden characters, ways out, encoded payloads, destruction."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import yara

from skills.scanning.findings import SEVERITIES, Finding
from skills.scanning.material import File, Material

RULES = Path(__file__).resolve().parent.parent / "rules"
MAX_PER_RULE = 20
SECONDS_PER_FILE = 30


class SignatureScanner:
    name = "signatures"

    def __init__(self) -> None:
        sources = {path.stem: str(path) for path in sorted(RULES.glob("*.yar"))}
        # No rule may read another file.
        self._rules: Any = yara.compile(filepaths=sources, includes=False)

    @property
    def version(self) -> str:
        return f"yara {version('yara-python')}"

    def scan(self, material: Material) -> list[Finding]:
        found: list[Finding] = []
        for file in material.files:
            for match in self._rules.match(data=file.data, timeout=SECONDS_PER_FILE):
                found += self._findings(file, match)
        return found

    def _findings(self, file: File, match: Any) -> list[Finding]:
        severity = match.meta["severity"]
        if severity not in SEVERITIES:
            raise ValueError(f"rule {match.rule} has no severity")
        offsets = sorted({instance.offset for string in match.strings for instance in string.instances})
        lines = sorted({file.line_of(offset) for offset in offsets[: 10 * MAX_PER_RULE]})[:MAX_PER_RULE]
        name = match.rule.replace("_", "-")
        return [
            Finding(
                self.name, name, severity, match.meta["description"], file.path, line if file.text is not None else None
            )
            for line in (lines or [1])
        ]
