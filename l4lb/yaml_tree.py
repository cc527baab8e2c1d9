"""YAML as a tree of values that know their lines, for errors that do; and values as YAML.

PyYAML takes the text apart. What stands for what is decided here: as in YAML 1.2, so that `no` is a text and `1:30` no
number, but with nothing that two readers of YAML could take for different things: `010` is no number either. Anchors,
aliases and `<<` are followed, tags are refused.
"""

import re
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from l4lb.errors import UsageError

MAX_SIZE = 4 << 20  # bytes of a text; and what its aliases may make of it
MAX_DEPTH = 16

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_SWITCHES = {
    word: value for value, name in ((True, "true"), (False, "false")) for word in (name, name.title(), name.upper())
}
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,19})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_NUMBER_ELSEWHERE = re.compile(r"([-+]?[0-9]+[eE][-+]?[0-9]+|0o[0-7]+)$")  # by YAML 1.2, but not for PyYAML

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where that was built


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """PyYAML's; but a text that is a number to other readers is put in quotes."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER_ELSEWHERE, list("+-0123456789"))

Value = str | int | float | bool | None
Path = tuple[str | int, ...]
"""The way from the root: names in mappings, numbers in lists."""


@dataclass(slots=True)
class Node:
    """A value, and where it stands.

    Attributes:
        line: from 1.
        value: of a list its items; of a mapping what its names stand for.
        size: characters, about, with what its aliases stand for.
    """

    line: int
    value: "Value | list[Node] | dict[str, Node]"
    size: int

    def plain(self) -> object:
        """The value without its lines."""
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        if isinstance(self.value, dict):
            return {name: item.plain() for name, item in self.value.items()}
        return self.value

    def line_of(self, path: Path) -> int:
        """Where a value stands; of one that is not there, where it would."""
        node = self
        for step in path:
            inside: dict[object, Node] = {}
            if isinstance(node.value, dict):
                inside.update(node.value)
            elif isinstance(node.value, list):
                inside.update(enumerate(node.value))
            if step not in inside:
                break
            node = inside[step]
        return node.line


@dataclass(frozen=True, slots=True)
class Wrong:
    """Something that cannot stand in a text."""

    line: int
    error: UsageError


class _UnreadableError(Exception):
    """Where reading ends."""

    def __init__(self, line: int, error: UsageError) -> None:
        super().__init__(line, error)
        self.wrong = Wrong(line, error)


def read(text: str) -> tuple[Node | None, list[Wrong]]:
    """What a text says, and what is wrong with it; None if it cannot be read to its end."""
    try:
        reading = _Reading(yaml.parse(text, Loader=_Loader))
        root = reading.document()
    except _UnreadableError as unreadable:
        return None, [unreadable.wrong]
    except yaml.YAMLError as error:
        return None, [_no_yaml(text, error)]
    return root, reading.wrong


def write(value: object) -> str:
    """As YAML, a line for each value, that every reader of YAML takes for the same."""
    written: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return written


class _Reading:
    """Turns what the parser tells into nodes."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, Node] = {}
        self._merged = 0  # characters
        self.wrong: list[Wrong] = []

    def document(self) -> Node:
        """The only document of a text."""
        next(self._events)
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            raise _UnreadableError(1, UsageError("there is nothing in it", "write vips: [] for no VIPs"))
        root = self._node(next(self._events), 0)
        next(self._events)
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise _UnreadableError(_line(event), UsageError("a second document begins", "write all VIPs into one"))
        return root

    def _node(self, event: Any, depth: int) -> Node:
        line = _line(event)
        if depth > MAX_DEPTH:
            raise _UnreadableError(
                line, UsageError(f"it is more than {MAX_DEPTH} levels deep", "three or four are needed")
            )
        if isinstance(event, yaml.AliasEvent):
            return self._known(line, event.anchor)
        if event.tag is not None:
            self._tell(line, f"tag {event.tag!r} means nothing here", "leave it out")
        if isinstance(event, yaml.ScalarEvent):
            node = Node(line, _scalar(event), len(event.value) + 1)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._list(line, depth)
        else:
            node = self._mapping(line, depth)
        if node.size > MAX_SIZE:
            raise _UnreadableError(line, _too_large())
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _known(self, line: int, anchor: str) -> Node:
        if anchor not in self._anchors:
            raise _UnreadableError(
                line, UsageError(f"alias *{anchor} stands for nothing", f"write &{anchor} before it")
            )
        return self._anchors[anchor]

    def _list(self, line: int, depth: int) -> Node:
        items = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return Node(line, items, 1 + sum(item.size for item in items))

    def _mapping(self, line: int, depth: int) -> Node:
        named: dict[str, Node] = {}
        merged: list[Node] = []
        first: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if not isinstance(key.value, str):
                self._tell(key.line, "a name is no text", "write name: value, the name in quotes if it is a number")
            elif key.value == "<<":
                merged += value.value if isinstance(value.value, list) else [value]
            elif key.value in named:
                before = f"leave one out; the first is on line {first[key.value]}"
                self._tell(key.line, f"{reprlib.repr(key.value)} stands there twice", before)
            else:
                named[key.value] = Node(key.line, value.value, value.size)
                first[key.value] = key.line
        for source in merged:
            self._merged += source.size
            if self._merged > MAX_SIZE:
                raise _UnreadableError(line, _too_large())
            if isinstance(source.value, dict):
                named = {**source.value, **named}
            else:
                self._tell(line, "<< stands for no mapping", "write <<: *name, where &name is before a mapping")
        return Node(line, named, 1 + sum(len(name) + 1 + value.size for name, value in named.items()))

    def _tell(self, line: int, message: str, hint: str) -> None:
        self.wrong.append(Wrong(line, UsageError(message, hint)))


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


def _scalar(event: Any) -> Value:
    """What a scalar stands for; one in quotes is a text."""
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _NULL:
        return None
    if text in _SWITCHES:
        return _SWITCHES[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _too_large() -> UsageError:
    return UsageError(f"it is of more than {MAX_SIZE >> 20} MiB, or becomes so by its aliases", "say less")


def _no_yaml(text: str, error: Any) -> Wrong:
    """What the parser could not read, in a line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        what = getattr(error, "reason", None) or "it cannot be read"
        return Wrong(1 + text.count("\n", 0, getattr(error, "position", 0)), UsageError(what, "write text only"))
    lines = text.split("\n")
    written = lines[mark.line] if mark.line < len(lines) else ""
    if written.startswith("\t") or written[: mark.column + 1].isspace():
        hint = "indent by spaces: YAML takes no tabs"
    elif re.search(r"\[[0-9a-fA-F:]*\]", written):
        hint = "put an IPv6 address in quotes, as in '[2001:db8::10]:80/tcp'"
    else:
        hint = "see whether colons, quotes and spaces are as above and below it"
    return Wrong(mark.line + 1, UsageError(f"no YAML at column {mark.column + 1} ({error.problem})", hint))
