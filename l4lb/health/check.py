r"""What to look for in a backend, as a user writes it: ``http:path=/health,status=200``.

A kind, a colon, and options with commas between them. A comma in a value is written ``\,``, and a backslash before a
comma, before another backslash or at the end is written ``\\``.
"""

import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Self

from l4lb.errors import UsageError
from l4lb.health.kinds import KINDS, Kind

MAX_LENGTH = 4_096  # characters of a whole check


@dataclass(frozen=True, slots=True)
class Check:
    """One check, in its normal form: equal checks are the same one.

    Attributes:
        options: names and values, in the order of :data:`~l4lb.health.kinds.KINDS`; those that repeat stand as they
            were given. Defaults are left out.
    """

    kind: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``tcp``, ``http:path=/health,status=200`` and the like.

        Raises:
            UsageError: it is no check; names the option and what is possible.
        """
        if len(text) > MAX_LENGTH:
            raise UsageError(f"check is of more than {MAX_LENGTH:,} characters", "shorten it")
        if not text.isprintable():
            raise UsageError(f"check {text!r} has characters that cannot be seen", "leave them out")
        name, colon, rest = text.partition(":")
        if name not in KINDS:
            raise UsageError(f"check kind {name!r} is not known", _possible(name, KINDS))
        kind = KINDS[name]
        if colon and not rest:
            raise UsageError(f"check {text!r} has no options behind its colon", f"write {name}, or name an option")
        given: dict[str, tuple[str, ...]] = {}
        for option, value in map(_option, _split(rest) if rest else ()):
            _add(kind, given, option, value)
        for option_ in kind.options.values():
            if option_.required and option_.name not in given:
                raise UsageError(f"check {name} lacks option {option_.name}", f"give it: {option_.help}")
        try:
            kind.rule(given)
        except UsageError as error:
            raise UsageError(f"check {name}: {error.message}", error.hint) from None
        return cls(
            name,
            tuple(
                (option, value)
                for option, spec in kind.options.items()
                for value in given.get(option, ())
                if value != spec.default
            ),
        )

    def __str__(self) -> str:
        """What :meth:`parse` makes the same check of."""
        return ":".join(filter(None, (self.kind, ",".join(f"{name}={_escape(value)}" for name, value in self.options))))

    def get(self, name: str, default: str = "") -> str:
        """An option's value; where it is not given, its kind's default; where there is none, `default`."""
        for option, value in self.options:
            if option == name:
                return value
        spec = KINDS[self.kind].options.get(name)
        return default if spec is None or spec.default is None else spec.default

    def all(self, name: str) -> tuple[str, ...]:
        """The values of an option that may repeat."""
        return tuple(value for option, value in self.options if option == name)

    @property
    def needs_port(self) -> bool:
        """Whether it can only be made to a backend with a port of its own, as it names none itself."""
        return KINDS[self.kind].needs_port and not self.get("port")


def missing_extra(check: Check) -> str | None:
    """The optional dependency that a check needs and that is not installed."""
    extra = KINDS[check.kind].extra
    if extra is None or not extra.needed({name: check.all(name) for name, _ in check.options}):
        return None
    return None if importlib.util.find_spec(extra.module) else extra.name


def _add(kind: Kind, given: dict[str, tuple[str, ...]], name: str, value: str) -> None:
    spec = kind.options.get(name)
    if spec is None:
        raise UsageError(f"check {kind.name} has no option {name!r}", _possible(name, kind.options))
    if name in given and not spec.repeats:
        raise UsageError(f"check {kind.name} has option {name} twice", "leave one of them out")
    try:
        given[name] = (*given.get(name, ()), spec.parse(value))
    except UsageError as error:
        raise UsageError(f"option {name} of check {kind.name}: {value!r} {error.message}", error.hint) from None


def _possible(wrong: str, known: Iterable[str]) -> str:
    known = list(known)
    near = get_close_matches(wrong, known, n=2)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"use {', '.join(known)}" if known else "it takes none"


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(
            f"check option {text!r} has no value", r"write it as name=value; a comma inside of a value is written \,"
        )
    return name, value


def _split(text: str) -> list[str]:
    """Cuts at commas without a backslash, and takes the backslashes away that stand for the next character."""
    pieces = [""]
    for piece in re.findall(r"\\[\\,]|.", text):
        if piece == ",":
            pieces.append("")
        else:
            pieces[-1] += piece[-1]
    return pieces


def _escape(value: str) -> str:
    """The shortest that :func:`_split` takes for `value`: regular expressions stay readable."""
    return re.sub(r"\\(?=[\\,]|\Z)|,", r"\\\g<0>", value)
