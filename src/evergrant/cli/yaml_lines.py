"""Reads YAML and remembers the line of everything in it."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from evergrant.errors import InvalidValue
from evergrant.logs import printable

MOST_THINGS = 1_000_000
"""So many values a file stands for at most, aliases counted as often as they are used: each doubles what it names."""
_QUOTED = re.compile(r" '.*'", re.DOTALL)
"""What the parser has read: a password that begins with `*` is an alias to it, and one with `!` a tag."""


@dataclass
class Lines:
    """Where in a file each thing stands: by its path, such as `apps[0].name`, counted from 1."""

    file: Path
    of: dict[str, int] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)
    """What only a reader of the text sees: the same name twice."""

    def error(self, problems: list[tuple[str, str]]) -> InvalidValue:
        """Make the error that tells what is wrong where, a line of text for each."""
        told = [
            f"{self.file}:{line}: {path}: {problem}" if path else f"{self.file}:{line}: {problem}"
            for line, path, problem in sorted((self.line(path), path, problem) for path, problem in problems)
        ]
        return InvalidValue("\n".join(map(printable, told)))

    def line(self, path: str) -> int:
        """Return the line of a thing, or that of the nearest around it."""
        while path and path not in self.of:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.of.get(path, 1)


def read_yaml(path: Path) -> tuple[Any, Lines]:
    """Return what a file holds, and the lines of it.

    Raises:
        InvalidValue: it cannot be read, or is no YAML; the message never quotes it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidValue(f"{path} is no text in UTF-8") from None
    lines = Lines(path)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return {}, lines
        if _note(node, "", lines, {}) > MOST_THINGS:
            raise InvalidValue(f"{path}: its aliases stand for more than {MOST_THINGS:,} values")
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise InvalidValue(f"{path}:{line}: this is no YAML: {_QUOTED.sub('', error.problem or '')}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise InvalidValue(f"{path}: this is no YAML that can be read") from None


def _note(node: yaml.Node, path: str, lines: Lines, seen: dict[int, int]) -> int:
    """Note the line of a node and of everything in it, and return for how many values it stands.

    What an alias repeats is noted where it stood first.

    Raises:
        ValueError: something is in itself.
    """
    lines.of.setdefault(path, node.start_mark.line + 1)
    if id(node) in seen:
        if not seen[id(node)]:
            raise ValueError("something is in itself")
        return seen[id(node)]
    seen[id(node)], count = 0, 1
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            count += _note(item, f"{path}[{number}]", lines, seen)
    elif isinstance(node, yaml.MappingNode):
        names = set()
        for key, value in node.value:
            name = str(key.value)
            inner = f"{path}.{name}" if path else name
            if name in names and name != "<<":
                lines.problems.append((inner, f"stands here twice, again in line {key.start_mark.line + 1}"))
            names.add(name)
            lines.of.setdefault(inner, key.start_mark.line + 1)
            count += _note(value, inner, lines, seen)
    seen[id(node)] = count
    return count
