"""YAML as we read and write it: times stay text, several lines stay several lines, keys keep their order."""

import json
from collections.abc import Iterator
from typing import Any

import yaml

from cli.errors import UsageError


class _Loader(yaml.SafeLoader):
    """Times stay text, since JSON has none; a key that stands twice is a mistake, not a wish."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} stands there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    # Lists stand in from their key, as people write them.
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


# YAML 1.1 takes these for line ends, and PyYAML forgets that when it writes them.
_OTHER_ENDS = frozenset("\x85\u2028\u2029")


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = '"' if _OTHER_ENDS.intersection(value) else "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def dump(value: Any) -> str:
    """A value as a YAML document, with a line end."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=10_000)


def as_json(value: Any) -> str:
    """A value as one JSON object over several lines; JSON is YAML, too."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def documents(text: str, name: str) -> Iterator[Any]:
    """The documents of a YAML (or JSON) text, without empty ones.

    Args:
        name: of the file, for errors.

    Raises:
        UsageError: it is no YAML.
    """
    try:
        for document in yaml.load_all(text, Loader=_Loader):
            if document is not None:
                yield document
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{name}{where}: {exc.problem or 'no YAML'}") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise UsageError(f"{name}: {' '.join(str(exc).split()) or 'no YAML'}") from exc
