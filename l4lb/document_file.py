"""Files that hold a document: read, checked, and told what is wrong with them line by line; and written."""

import sys
from pathlib import Path

from l4lb import document, yaml_tree
from l4lb.errors import ManifoldError, UsageError

STANDARD_INPUT = "-"


def read(source: str) -> dict[str, object]:
    """The document in a file, or on standard input for ``-``; it is a configuration that obeys the rules.

    Names that begin with ``x-`` are left out at the top: there a file may keep what its aliases stand for.

    Raises:
        UsageError: it cannot be read.
        ManifoldError: all that is wrong with it, each with its line.
    """
    root, wrong = yaml_tree.read(_text(source))
    found: object = {}
    if root is not None:
        found = root.plain()
        if isinstance(found, dict):
            found = {name: value for name, value in found.items() if not name.startswith("x-")}
        try:
            document.parse(found)
        except document.DocumentError as error:
            wrong += [yaml_tree.Wrong(root.line_of(problem.path), problem.error) for problem in error.problems]
    if wrong or not isinstance(found, dict):
        raise ManifoldError(
            [
                UsageError(f"{_name(source)}:{each.line}: {each.error.message}", each.error.hint)
                for each in sorted(wrong, key=lambda each: each.line)
            ]
        )
    return found


def write(plain: dict[str, object]) -> str:
    """A document as the text of a file, with an empty line between VIPs."""
    vips = plain["vips"]
    if not isinstance(vips, list) or not vips:
        return yaml_tree.write(plain)
    rest = {name: value for name, value in plain.items() if name != "vips"}
    head = yaml_tree.write(rest) if rest else ""
    return f"{head}vips:\n" + "\n".join(yaml_tree.write([vip]) for vip in vips)


def _name(source: str) -> str:
    return "standard input" if source == STANDARD_INPUT else source


def _text(source: str) -> str:
    """All of it, if that is not too much."""
    try:
        if source == STANDARD_INPUT:
            data = sys.stdin.buffer.read(yaml_tree.MAX_SIZE + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(yaml_tree.MAX_SIZE + 1)
    except OSError as error:
        raise UsageError(f"cannot read {_name(source)} ({error.strerror})", "name a file that can be read") from error
    if len(data) > yaml_tree.MAX_SIZE:
        raise UsageError(f"{_name(source)} is of more than {yaml_tree.MAX_SIZE >> 20} MiB", "say less")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise UsageError(f"{_name(source)}:{line}: no text in UTF-8", "save it as UTF-8") from error
