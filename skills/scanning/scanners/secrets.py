"""Secrets that should not be in a bundle, by detect-secrets' detectors.

Its own loop over a file spends most of its time on introspection and takes a comment in the line for permission, so the
detectors are asked directly, line by line, and nothing in the text can turn them off. None of them is asked to verify
what it found: that would send the secret out.
"""

import functools
import re
from importlib.metadata import version
from typing import Any

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.filters import heuristic
from detect_secrets.plugins.high_entropy_strings import HighEntropyStringsPlugin
from detect_secrets.plugins.keyword import DENYLIST, KeywordDetector

from skills.scanning.findings import Finding
from skills.scanning.material import File, Material

MAX_PER_FILE = 100
# Lines without end would cost regular expressions time without end; pieces overlap so that nothing falls between.
PIECE, OVERLAP = 4000, 300
# An address is no secret.
_LEFT_OUT = {"IPPublicDetector"}
# Most lines can hold no secret: no long word, no address with a login, no key in armour. Detectors are slow on them.
_WORTH_A_LOOK = re.compile(r"\S{16}|@|PRIVATE KEY")
# The detector's own words, `api_?key` and the like, as plain text: looking for that is ten times as fast.
_KEYWORDS = tuple({word.replace("_?", "") for word in DENYLIST} | {word.replace("_?", "_") for word in DENYLIST})
_SEVERITY = {
    "Private Key": "critical",
    "AWS Access Key": "critical",
    "GitHub Token": "critical",
    "GitLab Token": "critical",
    "Secret Keyword": "medium",
    "Base64 High Entropy String": "medium",
    "Hex High Entropy String": "low",
    "JSON Web Token": "medium",
    "Basic Auth Credentials": "medium",
}
_FILTERS = (
    heuristic.is_sequential_string, heuristic.is_potential_uuid, heuristic.is_templated_secret,
    heuristic.is_prefixed_with_dollar_sign, heuristic.is_not_alphanumeric_string,
)  # fmt: skip


# Random to look at, and no secret: digests and commits that the line calls so, and subresource integrity
# (https://www.w3.org/TR/sri-2/). A line that speaks of a secret as well gets no benefit of the doubt.
_DIGEST = re.compile(r"(?:[0-9a-f]{2}){16,64}|sha(?:256|384|512)-[A-Za-z0-9+/]{43,86}={0,2}", re.IGNORECASE)
_DIGEST_BYTES = (16, 20, 28, 32, 48, 64)
_SAYS_DIGEST = re.compile(
    r"sha-?\d|md5|digest|checksum|integrity|fingerprint|commit|revision|\brev\b|\betag\b", re.IGNORECASE
)
_SAYS_SECRET = re.compile(r"secret|token|key|pass|pwd|credential|auth|bearer|salt|seed|private", re.IGNORECASE)


class SecretsScanner:
    name = "secrets"

    def __init__(self) -> None:
        types = get_mapping_from_secret_type_to_class().values()
        self._detectors = [made() for made in types if made.__name__ not in _LEFT_OUT]

    @property
    def version(self) -> str:
        return f"detect-secrets {version('detect-secrets')}"

    def scan(self, material: Material) -> list[Finding]:
        found: list[Finding] = []
        for file in material.files:
            if file.text is not None:
                found += self._scan_file(file)
        return found

    def _scan_file(self, file: File) -> list[Finding]:
        found: dict[tuple[str, int], Finding] = {}
        # What repeats is looked at once.
        known = functools.lru_cache(maxsize=4096)(functools.partial(self._types_in, file.path or "SKILL.md"))
        for number, line in enumerate((file.text or "").split("\n"), 1):
            if len(line) < 8:
                continue
            for start in range(0, max(1, len(line) - OVERLAP), PIECE - OVERLAP):
                for kind in known(line[start : start + PIECE]):
                    found[kind, number] = Finding(
                        self.name,
                        re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-"),
                        _SEVERITY.get(kind, "high"),
                        f"This looks like a secret: {kind}. Take it out, and have it replaced where it is used.",
                        file.path,
                        number,
                    )
            if len(found) >= MAX_PER_FILE:
                break
        return list(found.values())

    def _types_in(self, path: str, line: str) -> tuple[str, ...]:
        lowered = line.lower()
        has_keyword = any(word in lowered for word in _KEYWORDS)
        is_worth_a_look = bool(_WORTH_A_LOOK.search(line))
        kinds = set()
        for detector in self._detectors:
            if not (has_keyword if isinstance(detector, KeywordDetector) else is_worth_a_look):
                continue
            for secret in detector.analyze_line(filename=path, line=line, line_number=1):
                if not _is_harmless(secret.secret_value or "", line, detector):
                    kinds.add(secret.type)
        if len(kinds) > 1:
            # A known kind says more than that it looks random.
            kinds -= {"Base64 High Entropy String", "Hex High Entropy String"}
        return tuple(sorted(kinds))


def _is_harmless(secret: str, line: str, detector: Any) -> bool:
    if not isinstance(detector, KeywordDetector | HighEntropyStringsPlugin):
        return False
    if any(judge(secret) for judge in _FILTERS) or heuristic.is_likely_id_string(secret, line, detector):
        return True
    if isinstance(detector, HighEntropyStringsPlugin) and _is_digest(secret, line):
        return True
    return isinstance(detector, KeywordDetector) and heuristic.is_indirect_reference(line)


def _is_digest(text: str, line: str) -> bool:
    if not _DIGEST.fullmatch(text):
        return False
    around = line.replace(text, "")
    if "-" in text:
        return not _SAYS_SECRET.search(around)
    return len(text) // 2 in _DIGEST_BYTES and bool(_SAYS_DIGEST.search(around)) and not _SAYS_SECRET.search(around)
