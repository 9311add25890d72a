"""What scanners say, and what a whole scan says; plain values that cross the sandbox's wall as JSON."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

SEVERITIES = ("critical", "high", "medium", "low", "info")
# One finding of these, and the scan has failed.
FAILING = ("critical", "high")
# Scanner and rule of findings about secrets: whoever reads the content where they point has the secret.
_SECRET = re.compile(r"secrets/.*|python/b10[567]-.*")
MAX_FINDINGS = 500
# As the columns have it.
_SCANNER_MAX, _RULE_MAX, _PATH_MAX, _MESSAGE_MAX, _LINE_MAX = 40, 120, 1024, 1000, 2**31 - 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    Attributes:
        scanner: who found it.
        rule: by which rule; stable, lower-case with dashes.
        severity: one of SEVERITIES.
        message: a sentence for people; never what a secret says.
        path: the file inside an archive; empty where the bundle is one file.
        line: counts from 1; None where it is about the whole.
    """

    scanner: str
    rule: str
    severity: str
    message: str
    path: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True)
class ScannerRun:
    """One scanner's part of a scan."""

    name: str
    version: str
    seconds: float
    findings: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class Report:
    """What a scan has found. With an `error` it has not come to its end, whatever it found before."""

    findings: list[Finding] = field(default_factory=list)
    scanners: list[ScannerRun] = field(default_factory=list)
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "Report":
        """The report that a scan has written, held to its shape: what scanned it was fed by strangers.

        Raises:
            ValueError: it is no report.
        """
        try:
            findings = [
                Finding(
                    scanner=_text(item["scanner"], _SCANNER_MAX),
                    rule=_text(item["rule"], _RULE_MAX),
                    severity=_one_of(item["severity"]),
                    message=_text(item["message"], _MESSAGE_MAX),
                    path=_text(item["path"], _PATH_MAX),
                    line=None if item["line"] is None else max(1, min(int(item["line"]), _LINE_MAX)),
                )
                for item in value["findings"]
            ]
            scanners = [
                ScannerRun(
                    name=_text(item["name"], _SCANNER_MAX),
                    version=_text(item["version"], _SCANNER_MAX),
                    seconds=round(float(item["seconds"]), 3),
                    findings=int(item["findings"]),
                )
                for item in value["scanners"]
            ]
            return cls(findings, scanners, _text(value["error"], _MESSAGE_MAX))
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"not a report: {type(exc).__name__}") from exc


def is_about_secret(scanner: str, rule: str) -> bool:
    """Whether a finding says that there is a password, key or token."""
    return _SECRET.fullmatch(f"{scanner}/{rule}") is not None


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Without repetitions, the worst first, then in order of place; beyond MAX_FINDINGS one says how many are left.

    That there is a secret is never left out: it decides on who may read the content.
    """
    unique = sorted(
        set(findings), key=lambda one: (SEVERITIES.index(one.severity), one.path, one.line or 0, one.scanner, one.rule)
    )
    if len(unique) <= MAX_FINDINGS:
        return unique
    rest = len(unique) - MAX_FINDINGS
    kept, secrets = unique[:MAX_FINDINGS], [one for one in unique if is_about_secret(one.scanner, one.rule)]
    if secrets and secrets[0] not in kept:
        kept[-1] = secrets[0]
    more = Finding("pipeline", "too-many-findings", "info", f"{rest} more findings, none worse, are not listed.")
    return [*kept, more]


def _text(value: Any, length: int) -> str:
    if not isinstance(value, str):
        raise TypeError
    # PostgreSQL takes neither NUL nor halves of characters.
    return value.replace("\x00", "�").encode("utf-8", "replace").decode()[:length]


def _one_of(severity: Any) -> str:
    if severity not in SEVERITIES:
        raise ValueError(f"not a severity: {severity!r:.20}")
    return str(severity)
