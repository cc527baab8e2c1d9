"""The settings of a VIP as plain values, as the wire and the state file carry them: names, texts, numbers, lists."""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from ipaddress import ip_network
from typing import TypeVar

from l4lb.errors import UsageError
from l4lb.model import IPNetwork, Mode, NoneLeft, Scheduler, Vip

_Value = TypeVar("_Value", str, int, list[object])


def plain(vip: Vip) -> dict[str, object]:
    """All settings of a VIP."""
    return {
        "mode": str(vip.mode),
        "scheduler": str(vip.scheduler),
        "idle_timeout": vip.idle_timeout,
        "sources": [str(source) for source in vip.sources],
        "gue_port": vip.gue_port,
        "mss": vip.mss,
        "client_prefix": vip.client_prefix,
        "pool": vip.pool,
        "none_left": str(vip.none_left),
    }


def parse(values: Mapping[str, object], given: Iterable[str]) -> dict[str, object]:
    """The settings among `given`, as :class:`~l4lb.model.Vip` has them.

    Raises:
        UsageError: one has a value that is never possible.
    """
    return {name: _PARSERS[name](values, name) for name in given if name in _PARSERS}


def value(values: Mapping[str, object], name: str, kind: type[_Value]) -> _Value:
    """One value of a certain type.

    Raises:
        UsageError: it is missing or of another type.
    """
    found = values.get(name)
    if not isinstance(found, kind) or isinstance(found, bool):
        what = {str: "text", int: "whole number", list: "list"}[kind]
        raise UsageError(f"{name} is missing or no {what}", f"give {name}")
    return found


def _number(values: Mapping[str, object], name: str) -> int:
    return value(values, name, int)


def _choice(kind: type[StrEnum]) -> Callable[[Mapping[str, object], str], StrEnum]:
    def parse(values: Mapping[str, object], name: str) -> StrEnum:
        try:
            return kind(value(values, name, str))
        except ValueError:
            raise UsageError(f"{name} {values[name]!r} is not known", f"use {' or '.join(kind)}") from None

    return parse


def _networks(values: Mapping[str, object], name: str) -> tuple[IPNetwork, ...]:
    return tuple(parse_network(str(text)) for text in value(values, name, list))


def parse_network(text: str) -> IPNetwork:
    """From ``192.0.2.0/28``, or a single address.

    Raises:
        UsageError: it is neither.
    """
    if "%" in text:
        raise UsageError(f"network {text!r} is valid on one link only", "leave out the % and what follows it")
    try:
        return ip_network(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no network ({error})", "write it as in 192.0.2.0/28 or fd00::100/120") from None


_PARSERS: dict[str, Callable[[Mapping[str, object], str], object]] = {
    "mode": _choice(Mode),
    "scheduler": _choice(Scheduler),
    "idle_timeout": _number,
    "sources": _networks,
    "gue_port": _number,
    "mss": _number,
    "client_prefix": _number,
    "pool": _number,
    "none_left": _choice(NoneLeft),
}

SETTINGS = tuple(_PARSERS)
