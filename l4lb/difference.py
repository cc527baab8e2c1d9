"""What is different between two configurations, as plain values with stable keys, and in people's words.

    {"change": "change", "vip": "web", "backend": null, "setting": "interval", "before": 2.0, "after": 0.5}

`change` is add, remove or change. Without a `vip` it is about the seed; without a `backend`, about the VIP itself. What
is added or removed has no `setting`, but all its settings that are not as they always are.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from l4lb import settings
from l4lb.document import written
from l4lb.model import Backend, Config, Vip

Difference = dict[str, object]

_SIGNS = {"add": "+", "remove": "-", "change": "~"}
_MOST_LISTED = 200  # differences in a log


def differences(before: Config, after: Config) -> list[Difference]:
    """What makes one configuration of another, VIP by VIP."""
    found = [] if before.seed == after.seed else [_difference("change", None, None, "seed", before.seed, after.seed)]
    old, new = ({vip.name: vip for vip in config.vips} for config in (before, after))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            found += _of_vip(old.get(name), new.get(name))
    return found


def line(difference: Mapping[str, Any]) -> str:
    """One difference in people's words, as in ``~ vip web: interval 2s -> 500ms``."""
    name, sign = difference["setting"], _SIGNS[difference["change"]]
    whose = f"{sign} {_who(difference)}"
    if name is not None:
        values = " -> ".join(_word(name, difference[side]) for side in ("before", "after"))
        if difference["vip"] is None:
            return f"{whose}: {values} (flows may move to other backends)"
        return f"{whose}: {name.replace('_', '-')} {values}"
    said = {**(difference["after"] or difference["before"])}
    address, backends = said.pop("address"), said.pop("backends", [])
    if difference["backend"] is None:
        whose += f" {address}"
    if difference["change"] == "remove":
        said = {}
    told = [f"{name.replace('_', '-')} {_word(name, value)}" for name, value in said.items()]
    if backends:
        told.append("its only backend" if len(backends) == 1 else f"its {len(backends):,} backends")
    return f"{whose} ({', '.join(told)})" if told else whose


def listed(found: Sequence[Difference]) -> Iterator[str]:
    """Their lines, for a log: of very many not all."""
    yield from map(line, found[:_MOST_LISTED])
    if len(found) > _MOST_LISTED:
        yield f"and {len(found) - _MOST_LISTED:,} more differences"


def _of_vip(before: Vip | None, after: Vip | None) -> Iterator[Difference]:
    if after is None:
        assert before is not None
        backends = [str(backend.endpoint) for backend in before.backends]
        yield _difference("remove", before, None, None, {**_said(before), "backends": backends}, None)
        return
    if before is None:
        yield _difference("add", after, None, None, None, _said(after))
    else:
        yield from _changed(after, None, _all(before), _all(after))
    old, new = (
        {backend.endpoint: backend for backend in vip.backends} if vip is not None else {} for vip in (before, after)
    )
    for endpoint in sorted(old.keys() | new.keys()):
        was, is_ = old.get(endpoint), new.get(endpoint)
        if is_ is None:
            assert was is not None
            yield _difference("remove", after, was, None, _said_of(was), None)
        elif was is None:
            yield _difference("add", after, is_, None, None, _said_of(is_))
        elif was != is_:
            yield from _changed(after, is_, settings.plain_backend(was), settings.plain_backend(is_))


def _changed(vip: Vip, backend: Backend | None, old: Difference, new: Difference) -> Iterator[Difference]:
    """The settings that differ; one that a backend has no more, or had not, is None."""
    for name in {**old, **new}:
        if old.get(name) != new.get(name):
            yield _difference("change", vip, backend, name, old.get(name), new.get(name))


def _all(vip: Vip) -> Difference:
    return {"address": str(vip.service), **settings.plain(vip)}


def _said(vip: Vip) -> Difference:
    return {"address": str(vip.service), **settings.chosen(vip)}


def _said_of(backend: Backend) -> Difference:
    return {"address": str(backend.endpoint), **settings.chosen_backend(backend)}


def _difference(
    change: str, vip: Vip | None, backend: Backend | None, setting: str | None, before: object, after: object
) -> Difference:
    return {
        "change": change,
        "vip": None if vip is None else vip.name,
        "backend": None if backend is None else str(backend.endpoint),
        "setting": setting,
        "before": before,
        "after": after,
    }


def _who(difference: Mapping[str, Any]) -> str:
    if difference["vip"] is None:
        return "seed"
    if difference["backend"] is None:
        return f"vip {difference['vip']}"
    return f"backend {difference['backend']} of VIP {difference['vip']}"


def _word(name: str, value: object) -> str:
    """A value of a setting, as a document has it."""
    if value is None:
        return "the VIP's"
    if isinstance(value, list):
        return " and ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(written(name, value))
