"""Shell in the bundle, as files and in fences of Markdown: what no skill needs to ask of a machine."""

import re
from dataclasses import dataclass

from skills.scanning.findings import Finding
from skills.scanning.material import Code, File, Material

MAX_PER_FILE = 100
MAX_LINE = 4000
_FETCH = r"\b(?:curl|wget|fetch|aria2c|https?)\b[^\n|;&]*"
_SHELL = (
    r"(?:(?:sudo\s+(?:-\S+\s+)*)?(?:/\S*/)?(?:env\s+)?"
    r"(?:(?:ba|z|k|da|fi)?sh|python[\d.]*|perl|ruby|node|php)\b)"
)
_THROUGH = r"\|\s*(?:\w+\s+-\S+\s*\|\s*)*"
_HOME = r"(?:~|\$\{?HOME\}?|/root|/home/[^\s/]+)"
_ENDS = r"/?(?:\s|$|\*)"
_ROOTS = rf"(?:/(?:\s|$|\*)|{_HOME}{_ENDS}|/(?:bin|boot|dev|etc|home|lib|opt|root|sbin|usr|var)\b{_ENDS})"
_DISK = r"/dev/(?:sd|hd|vd|nvme|xvd|mmcblk|disk)"
_NETCAT = r"\b(?:nc|ncat|netcat)\b"


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    severity: str
    message: str
    pattern: re.Pattern[str]


def _rule(name: str, severity: str, message: str, *patterns: str) -> Rule:
    return Rule(name, severity, message, re.compile("|".join(f"(?:{pattern})" for pattern in patterns)))


RULES = (
    _rule(
        "pipe-to-shell",
        "high",
        "It runs what it downloads, unseen.",
        rf"{_FETCH}{_THROUGH}{_SHELL}",
        rf"{_SHELL}\s+(?:-c\s+)?[\"']?(?:<\(|\$\(|`)\s*{_FETCH}",
    ),
    _rule(
        "decode-to-shell",
        "critical",
        "It runs what it decodes; nobody can see what that is.",
        rf"\b(?:base64\s+(?:-d|-D|--decode)|base32\s+-d|xxd\s+-r|openssl\s+enc\s+-d)[^\n|]*{_THROUGH}{_SHELL}",
        r"\beval\b[^\n]*\b(?:base64|xxd|printf\s+['\"]?\\x)",
    ),
    _rule(
        "remove-everything",
        "critical",
        "It deletes a whole system or home.",
        rf"\brm\s+(?:-\S+\s+)*-[a-zA-Z-]*(?:r|R|recursive)\S*\s+(?:-\S+\s+)*[\"']?{_ROOTS}",
        r"--no-preserve-root",
    ),
    _rule(
        "overwrite-disk",
        "critical",
        "It writes over a disk.",
        rf"\bdd\b[^\n]*\bof={_DISK}",
        rf">\s*{_DISK}",
        rf"\b(?:mkfs(?:\.\w+)?|wipefs|shred)\b[^\n]*{_DISK}",
    ),
    _rule(
        "fork-bomb",
        "critical",
        "It starts processes without end.",
        r":\s*\(\s*\)\s*\{\s*:\s*\|\s*:\s*&\s*\}\s*;\s*:",
        r"\b(?P<bomb>\w+)\s*\(\)\s*\{\s*(?P=bomb)\s*\|\s*(?P=bomb)\s*&",
    ),
    _rule(
        "reverse-shell",
        "critical",
        "It connects a shell to somewhere else.",
        r"/dev/(?:tcp|udp)/",
        rf"{_NETCAT}[^\n]*\s(?:-\w*[ec]\w*|--exec|--sh-exec)\s+\S*(?:sh|cmd|powershell)",
        rf"\bmkfifo\b[^\n]*[;&][^\n]*(?:{_NETCAT}|\btelnet\b|\bopenssl\s+s_client\b)",
    ),
    _rule(
        "send-environment",
        "critical",
        "It sends the environment, with what secrets are in it, somewhere else.",
        rf"\b(?:env|printenv|set|export\s+-p)\b\s*\|[^\n]*(?:\bcurl\b|\bwget\b|{_NETCAT})",
        r"\b(?:curl|wget)\b[^\n]*\$\((?:env|printenv|cat\s+\S*(?:\.env|environ))",
    ),
    _rule(
        "read-credentials",
        "high",
        "It touches files that hold credentials.",
        rf"{_HOME}/\.(?:aws/credentials|ssh/id_\w+|kube/config|docker/config\.json|config/gcloud)",
        rf"{_HOME}/\.(?:netrc|git-credentials|gnupg|pgpass|npmrc)",
        r"/var/run/secrets/|/run/secrets/|/etc/shadow\b",
        r"169\.254\.169\.254|metadata\.google\.internal",
    ),
    _rule(
        "persistence",
        "high",
        "It makes itself at home, to run again later.",
        r"(?:>>?|\btee\s+(?:-a\s+)?)\s*\S*(?:authorized_keys|\.bashrc|\.bash_profile|\.profile|\.zshrc)",
        r"(?:>>?|\btee\s+(?:-a\s+)?)\s*\S*(?:/etc/cron|/etc/profile|/etc/ld\.so\.preload|/etc/sudoers)",
        r"\bcrontab\s+-(?!l)|\bsystemctl\s+enable\b",
    ),
    _rule(
        "switch-off-protection",
        "high",
        "It switches off what protects or records.",
        r"\bsetenforce\s+0\b|\biptables\s+-F\b|\bufw\s+disable\b",
        r"\bsystemctl\s+(?:stop|disable)\s+(?:firewalld|apparmor|auditd)",
        r"\bhistory\s+-c\b|\bunset\s+HISTFILE\b|\bHISTFILE=/dev/null",
    ),
    _rule(
        "set-user-id",
        "high",
        "It gives a file its owner's rights.",
        r"\bchmod\s+(?:[ugoa]*\+[rwx]*s|[246][0-7]{3})\b",
    ),
    _rule("preload", "medium", "It slips code into other programs.", r"\bLD_PRELOAD=|\bDYLD_INSERT_LIBRARIES="),
    _rule(
        "open-to-all",
        "medium",
        "It lets everybody write.",
        r"\bchmod\s+(?:-\S+\s+)*(?:0?777|a\+rwx|ugo\+rwx)\b",
    ),
    _rule(
        "no-verification",
        "medium",
        "It does not check whom it talks to.",
        r"\bcurl\b[^\n]*\s(?:-\w*k\w*|--insecure)(?=\s|$)",
        r"\bwget\b[^\n]*--no-check-certificate",
        r"\bGIT_SSL_NO_VERIFY=|\bStrictHostKeyChecking[ =]no",
    ),
    _rule("eval", "medium", "It runs text that comes from elsewhere.", r"\beval\s+[\"']?\$\(?"),
    _rule("sudo", "low", "It wants to be root.", r"(?:^|[;&|]\s*|\$\s+)sudo\s+\S"),
)


class ShellScanner:
    name = "shell"
    version = "1"

    def scan(self, material: Material) -> list[Finding]:
        found: list[Finding] = []
        for file in material.files:
            for code in file.code:
                if code.language == "shell":
                    found += self._scan_code(file, code)
        return found

    def _scan_code(self, file: File, code: Code) -> list[Finding]:
        found: dict[tuple[str, int], Finding] = {}
        for number, line in _commands(code.text):
            at = code.lines_before + number
            for rule in RULES:
                if (rule.name, at) not in found and rule.pattern.search(line):
                    found[rule.name, at] = Finding(self.name, rule.name, rule.severity, rule.message, file.path, at)
            if len(found) >= MAX_PER_FILE:
                break
        return list(found.values())


def _commands(text: str) -> list[tuple[int, str]]:
    """Lines without comments and with continuations joined, each with the number of its first."""
    found: list[tuple[int, str]] = []
    started, parts = 0, list[str]()
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.rstrip("\r")
        if not parts:
            started = number
            if line.lstrip().startswith("#"):
                continue
        if line.endswith("\\"):
            parts.append(line[:-1])
            continue
        found.append((started, "".join([*parts, line])[:MAX_LINE]))
        parts = []
    if parts:
        found.append((started, "".join(parts)[:MAX_LINE]))
    return found
