"""The settings of VIPs and backends as plain values, as wire and state file carry them: texts, numbers, lists."""

import reprlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from ipaddress import ip_network
from typing import TypeVar

from l4lb.errors import UsageError
from l4lb.health.check import Check
from l4lb.health.rules import NoneLeft, Panic, State
from l4lb.model import Admin, Backend, IPNetwork, Mode, Scheduler, Via, Vip

MOST_ITEMS = 64  # of a list from outside

_Value = TypeVar("_Value", str, int, list[object])


def plain(vip: Vip) -> dict[str, object]:
    """All settings of a VIP."""
    return {name: _plain(getattr(_holder(vip, name), name)) for name in SETTINGS}


def chosen(vip: Vip) -> dict[str, object]:
    """Those settings of a VIP that are not as they always are."""
    usual = plain(Vip.bare(vip.name, vip.service))
    return {name: value for name, value in plain(vip).items() if value != usual[name]}


def changed(vip: Vip, values: Mapping[str, object]) -> Vip:
    """A VIP with those settings that are among `values`; other values are not looked at.

    Raises:
        UsageError: one has a value that is never possible.
    """
    return replace(
        vip,
        **_parsed(_OWN, values),  # type: ignore[arg-type]
        health=replace(vip.health, **_parsed(_HEALTH, values)),  # type: ignore[arg-type]
        spread=replace(vip.spread, **_parsed(_SPREAD, values)),  # type: ignore[arg-type]
    )


def plain_backend(backend: Backend) -> dict[str, object]:
    """All settings of a backend; of those that outrank the VIP's only what is set."""
    return {
        **{name: _plain(getattr(backend, name)) for name in _BACKEND},
        **{name: _plain(value) for name, value in backend.overrides},
    }


def chosen_backend(backend: Backend) -> dict[str, object]:
    """Those settings of a backend that are not as they always are, and all that outrank the VIP's."""
    usual = {name: _plain(getattr(Backend(backend.endpoint), name)) for name in _BACKEND}
    return {name: value for name, value in plain_backend(backend).items() if value != usual.get(name)}


def changed_backend(backend: Backend, values: Mapping[str, object]) -> Backend:
    """A backend with those settings that are among `values`; None takes one that outranks the VIP's back.

    Raises:
        UsageError: one has a value that is never possible.
    """
    given = {name: value for name, value in values.items() if value is not None}
    overrides = {name: value for name, value in backend.overrides if name not in values} | _parsed(_HEALTH, given)
    own = _parsed(_BACKEND, values)
    return replace(backend, **own, overrides=tuple(sorted(overrides.items())))  # type: ignore[arg-type]


def _holder(vip: Vip, name: str) -> object:
    return vip.health if name in _HEALTH else vip.spread if name in _SPREAD else vip


def _plain(value: object) -> object:
    """As the wire and the state file have it."""
    if isinstance(value, tuple):
        return [str(each) for each in value]
    return value if isinstance(value, bool | int | float) else str(value)


def _parsed(parsers: Mapping[str, "_Parser"], values: Mapping[str, object]) -> dict[str, object]:
    return {name: parser(values, name) for name, parser in parsers.items() if name in values}


def value(values: Mapping[str, object], name: str, kind: type[_Value]) -> _Value:
    """One value of a certain type.

    Raises:
        UsageError: it is missing or of another type.
    """
    found = _given(values, name)
    if not isinstance(found, kind) or isinstance(found, bool):
        raise _no(_WHAT[kind], name, found)
    return found


_WHAT = {str: "text", int: "whole number", list: "list"}


def _given(values: Mapping[str, object], name: str) -> object:
    if name not in values:
        raise UsageError(f"{name} is missing", f"give {name}")
    return values[name]


def _no(what: str, name: str, found: object) -> UsageError:
    """That a value is of another type; it is shown, as far as it is short."""
    return UsageError(f"{name} {reprlib.repr(found)} is no {what}", "give one")


def _number(values: Mapping[str, object], name: str) -> int:
    return value(values, name, int)


def _choice(kind: type[StrEnum]) -> Callable[[Mapping[str, object], str], StrEnum]:
    def parse(values: Mapping[str, object], name: str) -> StrEnum:
        try:
            return kind(value(values, name, str))
        except ValueError:
            raise UsageError(f"{name} {values[name]!r} is not known", f"use {' or '.join(kind)}") from None

    return parse


def _items(values: Mapping[str, object], name: str) -> list[object]:
    """A list that is short enough to look at each item; the rules allow fewer yet."""
    items = value(values, name, list)
    if len(items) > MOST_ITEMS:
        raise UsageError(f"{name} are {len(items):,}, and more than {MOST_ITEMS} are never possible", "give fewer")
    return items


def _networks(values: Mapping[str, object], name: str) -> tuple[IPNetwork, ...]:
    return tuple(parse_network(str(text)) for text in _items(values, name))


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


def seconds(values: Mapping[str, object], name: str) -> float:
    """One number that need not be whole, as most are of seconds.

    Raises:
        UsageError: it is missing, of another type or not finite.
    """
    found = _given(values, name)
    # math.isfinite would raise OverflowError for a whole number that no float can hold.
    if not isinstance(found, int | float) or isinstance(found, bool) or not abs(found) <= sys.float_info.max:
        raise _no("finite number", name, found)
    return float(found)


def _switch(values: Mapping[str, object], name: str) -> bool:
    found = _given(values, name)
    if not isinstance(found, bool):
        raise UsageError(f"{name} {reprlib.repr(found)} is neither true nor false", "give one of them")
    return found


def _checks(values: Mapping[str, object], name: str) -> tuple[Check, ...]:
    return tuple(Check.parse(str(text)) for text in _items(values, name))


_Parser = Callable[[Mapping[str, object], str], object]

_OWN: Mapping[str, _Parser] = {
    "mode": _choice(Mode),
    "scheduler": _choice(Scheduler),
    "idle_timeout": _number,
    "sources": _networks,
    "gue_port": _number,
    "mss": _number,
    "client_prefix": _number,
    "pool": _number,
    "checks": _checks,
    "via": _choice(Via),
    "passive": _switch,
}
_HEALTH: Mapping[str, _Parser] = {
    "interval": seconds,
    "timeout": seconds,
    "rise": _number,
    "fall": _number,
    "fast_interval": seconds,
    "jitter": seconds,
    "initial": _choice(State),
    "slow_start": seconds,
    "degrade": _switch,
    "floor": _number,
    "stale_after": seconds,
    "check_port": _number,
}
_SPREAD: Mapping[str, _Parser] = {
    "panic_share": _number,
    "panic": _choice(Panic),
    "tier_share": _number,
    "none_left": _choice(NoneLeft),
}
_BACKEND: Mapping[str, _Parser] = {"weight": _number, "priority": _number, "admin": _choice(Admin)}

DURATIONS = frozenset({"idle_timeout", "interval", "timeout", "fast_interval", "slow_start", "stale_after"})
LISTS = frozenset({"sources", "checks"})

SETTINGS = (*_OWN, *_HEALTH, *_SPREAD)
BACKEND_SETTINGS = (*_BACKEND, *_HEALTH)
