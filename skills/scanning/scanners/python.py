"""Python in the bundle, as files and in fences of Markdown, by bandit."""

import ast
import functools
import io
import logging
import warnings
from importlib.metadata import version
from typing import Any

from skills.scanning.findings import Finding
from skills.scanning.material import Code, File, Material

MAX_CODE = 1024 * 1024
MAX_PER_FILE = 100
_SEVERITY = {"HIGH": "high", "MEDIUM": "medium", "LOW": "low"}
# Examples in a text use assert and subprocess as a matter of course.
_QUIET = {"B101", "B404", "B603", "B607"}
# What bandit says of these quotes the code, and so the password.
_IN_CODE = "This looks like a password in the code. Take it out, and have it replaced where it is used."
_INSTEAD = {
    "B103": "It lets everybody at a file.",
    "B105": _IN_CODE,
    "B106": _IN_CODE,
    "B107": _IN_CODE,
}


@functools.cache
def _loaded() -> tuple[Any, Any]:
    """bandit, once there is something for it: loading it takes longer than most scans."""
    with warnings.catch_warnings():
        # It asks stevedore for what is the default by now.
        warnings.simplefilter("ignore", DeprecationWarning)
        from bandit.core.config import BanditConfig
        from bandit.core.manager import BanditManager

    # It logs every file that it cannot parse, with the reason.
    logging.getLogger("bandit").setLevel(logging.CRITICAL)
    return BanditManager, BanditConfig()


def _bandit() -> Any:
    manager, config = _loaded()
    # Comments that turn bandit off are the author's word for his own innocence.
    return manager(config, "file", quiet=True, ignore_nosec=True)


class PythonScanner:
    name = "python"

    @property
    def version(self) -> str:
        return f"bandit {version('bandit')}"

    def scan(self, material: Material) -> list[Finding]:
        pieces = [(file, code) for file in material.files for code in file.code if code.language == "python"]
        found: list[Finding] = []
        for file, code in pieces:
            found += self._scan_code(file, code)
        return found

    def _scan_code(self, file: File, code: Code) -> list[Finding]:
        if len(code.text) > MAX_CODE:
            message = f"It is longer than {MAX_CODE} characters, so bandit did not look into it."
            return [Finding(self.name, "too-long", "high", message, file.path, code.lines_before + 1)]
        try:
            ast.parse(code.text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
            if not code.is_whole:
                # In a text, three dots and shell prompts are as good as code.
                return []
            line = getattr(exc, "lineno", None) or 1
            message = "It is not valid Python, so bandit could not look into it."
            return [Finding(self.name, "unparsable", "medium", message, file.path, code.lines_before + line)]
        manager = _bandit()
        manager._parse_file("code.py", io.BytesIO(code.text.encode()), ["code.py"])
        found = [
            Finding(
                self.name,
                f"{issue.test_id.lower()}-{issue.test.replace('_', '-')}",
                _SEVERITY.get(issue.severity, "low"),
                f"{_INSTEAD.get(issue.test_id, issue.text)} (confidence {issue.confidence.lower()})",
                file.path,
                code.lines_before + issue.lineno,
            )
            for issue in manager.results
            if issue.test_id not in _QUIET
        ]
        found += [
            Finding(
                self.name, "unparsable", "medium", "bandit could not look into it.", file.path, code.lines_before + 1
            )
            for _ in manager.skipped
        ]
        return found[:MAX_PER_FILE]
