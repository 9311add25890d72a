"""References to secrets: `secret-name`, `namespace/secret-name`, either with `#key`. Never a value.

People paste the secret itself into such a field sooner or later, and then it would stand in plain text in rows, lists
and audit entries. What looks like one is refused, without being repeated in the answer.
"""

import math
import re
from collections import Counter

REFERENCE_MAX = 253 + 1 + 63 + 1 + 253
_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
REFERENCE_PATTERN = rf"^([a-z0-9]([-a-z0-9]{{0,61}}[a-z0-9])?/)?{_NAME}(#[-._A-Za-z0-9]{{1,253}})?$"
HINT = "Store the value in a Kubernetes Secret and give its name here: secret-name or namespace/secret-name#key."

# How well-known kinds of secrets begin.
_BEGINNINGS = re.compile(
    r"(sk|pk|rk)[-_]|(ghp|gho|ghu|ghs|ghr|github_pat|glpat|npm|pypi|hf|ocp|whsec|shpat|dop_v1|sq0atp)[-_]|"
    r"xox[abeoprs]-|(AKIA|ASIA)[A-Z0-9]{12}|AIza|ya29\.|eyJ[A-Za-z0-9_-]{6,}|AGE-SECRET-KEY|hvs\.|bearer|basic\b",
    re.IGNORECASE,
)
_RUN = re.compile(r"[A-Za-z0-9+/=_]{20,}")
_HEX = re.compile(r"[0-9a-fA-F]{24,}")


def looks_like_secret(text: str) -> bool:
    """Whether a text is more likely a credential than the name of one."""
    if "-----BEGIN" in text or "PRIVATE KEY" in text:
        return True
    if any(_BEGINNINGS.match(part) for part in re.split(r"[/#\s]", text)):
        return True
    return bool(_HEX.search(text)) or any(_is_random(run) for run in _RUN.findall(text))


def _is_random(run: str) -> bool:
    """Whether a long run of letters and digits carries more than words would: mixed classes, and hardly repeating."""
    digits = sum(character.isdigit() for character in run)
    mixed = any(c.islower() for c in run) and any(c.isupper() for c in run)
    if not (digits >= 3 or mixed):
        return False
    counts = Counter(run)
    entropy = -sum(count / len(run) * math.log2(count / len(run)) for count in counts.values())
    return entropy > 3.3


def check_reference(text: str) -> str:
    """The reference as it is.

    Raises:
        ValueError: it looks like a secret, or is no reference. The sentence has a hint and does not repeat the value.
    """
    if looks_like_secret(text):
        raise ValueError(f"This looks like a secret itself. {HINT}")
    if len(text) > REFERENCE_MAX or not re.fullmatch(REFERENCE_PATTERN.rstrip("$"), text):
        raise ValueError(f"Has to be a reference. {HINT}")
    return text
