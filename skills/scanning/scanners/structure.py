"""Is it a skill that an agent can load: front matter as SKILL.md has it, and no files that nobody can read.

Source: https://agentskills.io/specification and the skills that Anthropic publishes.
"""

import re
from typing import Any

import yaml

from skills.scanning.findings import Finding
from skills.scanning.material import File, Material

NAME_MAX, DESCRIPTION_MAX, FRONT_MATTER_MAX, MAX_DEPTH = 64, 1024, 64 * 1024, 20
KNOWN = {"name", "description", "license", "allowed-tools", "metadata", "compatibility", "version"}
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# What may be repeated: no key or password is made of small letters alone.
_WORD = re.compile(r"[a-z][a-z_-]{0,30}")
_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(?P<yaml>.*?)^(---|\.\.\.)[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_OPENS = re.compile(r"\A\ufeff?---[ \t]*\r?\n")
_EXECUTABLES = (
    (b"\x7fELF", "ELF"), (b"MZ", "Windows"), (b"\xfe\xed\xfa", "macOS"), (b"\xcf\xfa\xed\xfe", "macOS"),
    (b"\xce\xfa\xed\xfe", "macOS"), (b"\xca\xfe\xba\xbe", "Java or macOS"), (b"\x00asm", "WebAssembly"),
)  # fmt: skip
_NESTED = (
    (b"PK\x03\x04", "zip"), (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"7z\xbc\xaf", "7z"),
    (b"Rar!", "rar"), (b"\x28\xb5\x2f\xfd", "zstd"),
)  # fmt: skip
# What agents may want to show or embed, and what is no code.
_MEDIA = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"%PDF", b"\x00\x01\x00\x00", b"OTTO", b"wOFF", b"wOF2")
_FOREIGN_TEXT = ((b"%PDF-", "PDF"), (b"GIF8", "GIF"), (b"MZ", "Windows program"), (b"<?php", "PHP"))


class _FrontMatterLoader(yaml.SafeLoader):
    """Plain YAML without aliases, a few lines of which can unfold into gigabytes, and without keys that come twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise AliasError
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(keys) != len(set(keys)):
            raise yaml.constructor.ConstructorError(None, None, "a key comes twice", node.start_mark)
        return super().construct_mapping(node, deep)


class AliasError(yaml.YAMLError):
    """The front matter has an alias."""


class StructureScanner:
    """Front matter, and kinds of files."""

    name = "structure"
    version = "1"

    def scan(self, material: Material) -> list[Finding]:
        found: list[Finding] = []
        for file in material.files:
            found += self._kinds(file)
        skill = _skill_file(material)
        if skill is not None:
            found += self._front_matter(skill, material)
        elif material.is_archive:
            found.append(self._finding("no-skill-file", "medium", "There is no SKILL.md at its top."))
        return found

    def _kinds(self, file: File) -> list[Finding]:
        found = []
        head = file.data[:16]
        for magic, what in _EXECUTABLES:
            if head.startswith(magic) and (file.text is None or magic != b"MZ"):
                found.append(self._finding("executable", "high", f"It is a compiled program ({what}).", file.path))
                break
        for magic, what in _NESTED:
            if head.startswith(magic) and file.path:
                message = f"It is an archive ({what}) within the archive, which is not looked into."
                found.append(self._finding("nested-archive", "high", message, file.path))
        if file.text is not None:
            found += [
                self._finding("polyglot", "high", f"Read by its beginning it is {what}, not text.", file.path, 1)
                for magic, what in _FOREIGN_TEXT
                if not file.path and head.startswith(magic)
            ]
        elif not found and not head.startswith(_MEDIA):
            severity = "medium" if file.path else "high"
            message = "It is neither text nor a picture, document or font, so only signatures could be looked for."
            found.append(self._finding("opaque", severity, message, file.path))
        return found

    def _front_matter(self, file: File, material: Material) -> list[Finding]:
        text = file.text or ""
        match = _FRONT.match(text)
        if match is None:
            if _OPENS.match(text):
                return [self._finding("front-matter", "high", "Its front matter is never closed by ---.", file.path, 1)]
            message = "It has no front matter with name and description, so agents do not know when to use it."
            return [self._finding("no-front-matter", "low", message, file.path, 1)]
        source = match["yaml"]
        if len(source) > FRONT_MATTER_MAX:
            message = f"Its front matter is longer than {FRONT_MATTER_MAX} characters."
            return [self._finding("front-matter", "high", message, file.path, 1)]
        try:
            value = yaml.load(source, Loader=_FrontMatterLoader)  # noqa: S506  (derived from SafeLoader)
            too_deep = _depth(value) > MAX_DEPTH
        except AliasError:
            message = "Its front matter has aliases, which can unfold without end; write the values out."
            return [self._finding("front-matter-alias", "high", message, file.path, 1)]
        except yaml.MarkedYAMLError as exc:
            line = 2 + (exc.problem_mark.line if exc.problem_mark else 0)
            # The parser quotes what it stumbles over, which may be anything.
            problem = re.sub(r"'.*'", "…", exc.problem or "it cannot be read")
            message = f"Its front matter is no YAML: {problem}."
            return [self._finding("front-matter", "high", message, file.path, line)]
        except (yaml.YAMLError, RecursionError, ValueError) as exc:
            message = f"Its front matter is no YAML ({type(exc).__name__})."
            return [self._finding("front-matter", "high", message, file.path, 1)]
        if not isinstance(value, dict) or too_deep:
            message = "Its front matter is no list of names with plain values."
            return [self._finding("front-matter", "high", message, file.path, 1)]
        return self._fields(value, source, file, material)

    def _fields(self, value: dict[Any, Any], source: str, file: File, material: Material) -> list[Finding]:
        found = []

        def add(rule: str, severity: str, message: str, key: str) -> None:
            lines = source.split("\n")
            line = next((number for number, text in enumerate(lines, 2) if text.startswith(f"{key}:")), 1)
            found.append(self._finding(rule, severity, message, file.path, line))

        name, description = value.get("name"), value.get("description")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > NAME_MAX:
            message = f"`name` has to be lower-case letters, digits and dashes, at most {NAME_MAX}."
            add("front-matter-name", "medium", message, "name")
        elif name != material.name:
            add("front-matter-name", "info", "`name` differs from the bundle's name in the catalog.", "name")
        if not isinstance(description, str) or not description.strip():
            message = "`description` is missing, so agents do not know when to use it."
            add("front-matter-description", "medium", message, "description")
        elif len(description) > DESCRIPTION_MAX:
            message = f"`description` is longer than {DESCRIPTION_MAX} characters."
            add("front-matter-description", "medium", message, "description")
        elif "<" in description and re.search(r"<[/a-zA-Z!][^>]*>", description):
            message = "`description` holds tags, which agents may take for instructions of their own."
            add("front-matter-description", "high", message, "description")
        tools = value.get("allowed-tools")
        if isinstance(tools, str | list) and "*" in (tools if isinstance(tools, list) else re.split(r"[\s,]+", tools)):
            add("all-tools", "medium", "`allowed-tools` asks for every tool there is.", "allowed-tools")
        for key in value:
            if not isinstance(key, str) or key not in KNOWN:
                named = f"`{key}`" if isinstance(key, str) and _WORD.fullmatch(key) else "One of its names"
                add("front-matter-unknown", "info", f"{named} means nothing to agents.", str(key))
        return found

    def _finding(self, rule: str, severity: str, message: str, path: str = "", line: int | None = None) -> Finding:
        return Finding(self.name, rule, severity, message, path, line)


def _skill_file(material: Material) -> File | None:
    """The SKILL.md: the bundle itself if it is Markdown, else at the archive's top or in its only folder."""
    if not material.is_archive:
        return next((file for file in material.files if not file.path and file.language == "markdown"), None)
    tops = {file.path.partition("/")[0] for file in material.files}
    wanted = {"SKILL.md"} | ({f"{next(iter(tops))}/SKILL.md"} if len(tops) == 1 else set())
    return next((file for file in material.files if file.path.removeprefix("./") in wanted), None)


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        depth += 1
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
        ]
        if depth > MAX_DEPTH + 1:
            break
    return depth
