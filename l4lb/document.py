"""A whole configuration as a document: the mappings, lists, texts and numbers that a YAML file holds.

    seed: 7
    vips:
    - name: web
      address: 192.0.2.10:80/tcp
      interval: 500ms
      checks: [tcp]
      backends:
      - 10.0.0.11:8080
      - address: 10.0.0.12:8080
        weight: 2

Settings have the names of the command line, or with `_` for `-`; those that are left out are as they always are, so a
document is the whole truth. Only the seed is the gateway's own where none is given.
"""

import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from typing import TypeVar

from l4lb import settings
from l4lb.durations import format_duration, parse_duration
from l4lb.errors import MOST_TOLD, ManifoldError, UsageError
from l4lb.model import Backend, Config, Endpoint, Service, Vip
from l4lb.rules import problems

Path = tuple[str | int, ...]
"""The way to a value: names in mappings, numbers in lists."""

_Holder = TypeVar("_Holder", Vip, Backend)
_Value = TypeVar("_Value")

_LONGEST = 400  # characters of what is told of one thing that is wrong
_LISTS = settings.LISTS | {"vips", "backends"}
_OF_BACKENDS = ("address", *settings.BACKEND_SETTINGS)
_ANY = Service.parse_whole(
    "192.0.2.1:80/tcp"
)  # of a VIP whose address is wrong: its settings are looked at all the same


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where; the error says so too if it is about no VIP that could be named."""

    path: Path
    error: UsageError


class DocumentError(ManifoldError):
    """A document that is no configuration.

    Attributes:
        problems: what is wrong with it.
    """

    def __init__(self, found: Sequence[Problem]) -> None:
        super().__init__([problem.error for problem in found])
        self.problems = tuple(found)


def parse(document: object, seed: int = 0) -> Config:
    """The configuration that a document describes.

    Args:
        document: from outside, trusted in nothing.
        seed: where the document has none.

    Raises:
        DocumentError: all that is wrong with it, as far as that can be told.
    """
    reading = _Reading()
    config = reading.config(document, seed)
    reading.obey(config)
    reading.end()
    return config


def plain(config: Config) -> dict[str, object]:
    """The document of a configuration, in its normal form."""
    return {"seed": config.seed, "vips": [_plain_vip(vip) for vip in config.vips]}


def written(name: str, value: object) -> object:
    """A setting as a document has it."""
    if name in settings.DURATIONS and isinstance(value, int | float):
        text = format_duration(value)
        return text if parse_duration(text) == value else value
    return value


def _plain_vip(vip: Vip) -> dict[str, object]:
    backends = [_plain_backend(backend) for backend in vip.backends]
    return {
        "name": vip.name,
        "address": str(vip.service),
        **_written(settings.chosen(vip)),
        **({"backends": backends} if backends else {}),
    }


def _plain_backend(backend: Backend) -> object:
    chosen = _written(settings.chosen_backend(backend))
    return {"address": str(backend.endpoint), **chosen} if chosen else str(backend.endpoint)


def _written(values: Mapping[str, object]) -> dict[str, object]:
    return {name.replace("_", "-"): written(name, value) for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class _Mapping:
    """What a mapping says, by the names that the model has, and how those are written there."""

    path: Path
    values: dict[str, object] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def to(self, name: str) -> Path:
        """The way to one of its values."""
        return (*self.path, self.names.get(name, name))


class _Reading:
    """Makes values of a document, and goes on after each thing that is wrong with it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._vips: dict[str, int] = {}  # their places in the document
        self._backends: dict[tuple[str, Endpoint], int] = {}  # and those of backends

    def end(self) -> None:
        """Tells all that is wrong, if there is anything."""
        if self.problems:
            raise DocumentError(self.problems)

    def config(self, document: object, seed: int) -> Config:
        """What is right of it."""
        if document is None:
            self._tell((), "there is nothing in it", "write vips: [] for no VIPs")
            return Config()
        top = self._mapping((), document, ("seed", "vips"))
        if top is None:
            return Config()
        if "vips" not in top.names:
            self._tell((), "it has no vips", "list them below vips:, or write vips: [] for none")
        if "seed" in top.values:
            seed = self._parsed(top.to("seed"), partial(settings.value, top.values, "seed", int)) or 0
        for error in problems(Config(seed=seed)):
            self._add(top.to("seed"), error)
        vips = (self._vip((*top.to("vips"), number), given) for number, given in enumerate(self._list(top, "vips")))
        return Config(tuple(sorted(filter(None, vips), key=lambda vip: vip.name)), seed)

    def obey(self, config: Config) -> None:
        """Finds the rules that it breaks, and where."""
        broken = list(problems(config))
        told = {str(error) for error in problems(Config(seed=config.seed))}
        for vip in config.vips if broken else ():
            for path, error in self._broken_by(vip):
                self._add(path, error)
                told.add(str(error))
        for error in broken:
            if str(error) not in told:
                self._add((), error)

    def _broken_by(self, vip: Vip) -> Iterator[tuple[Path, UsageError]]:
        """The rules that one VIP breaks by itself."""
        here = ("vips", self._vips[vip.name])
        broken = list(problems(Config((vip,))))
        by_backends: dict[str, list[Path]] = {}
        for backend in vip.backends if broken else ():
            for error in problems(Config((replace(vip, backends=(backend,)),))):
                path = (*here, "backends", self._backends[vip.name, backend.endpoint])
                by_backends.setdefault(str(error), []).append(path)
        for error in problems(Config((replace(vip, backends=()),))):
            by_backends.pop(str(error), None)
        for error in broken:
            paths = by_backends.get(str(error))
            yield paths.pop(0) if paths else here, error

    def _vip(self, path: Path, given: object) -> Vip | None:
        """One VIP, with those of its backends that are right; None if it is not."""
        found = self._mapping(path, given, ("name", "address", "backends", *settings.SETTINGS))
        if found is None:
            return None
        before = len(self.problems)
        name = self._text(found, "name", "give each VIP one, as in name: web")
        address = self._text(found, "address", "write it as in address: 192.0.2.10:80/tcp")
        service = None
        if address is not None:
            service = self._parsed(found.to("address"), partial(Service.parse_whole, address))
        vip = self._set(found, Vip.bare(name or "", service or _ANY), settings.changed, settings.SETTINGS)
        number = int(path[-1])
        if name is not None and self._vips.setdefault(name, number) != number:
            self._tell(found.to("name"), f"{name!r} is the name of vips[{self._vips[name]}] too", "choose another")
        sound = len(self.problems) == before
        backends = self._backends_of(vip, found.to("backends"), self._list(found, "backends"))
        return replace(vip, backends=backends) if sound else None

    def _backends_of(self, vip: Vip, path: Path, given: list[object]) -> tuple[Backend, ...]:
        found: dict[Endpoint, Backend] = {}
        for number, each in enumerate(given):
            backend = self._backend((*path, number), each, vip.service.backend_port)
            if backend is None:
                continue
            before = self._backends.setdefault((vip.name, backend.endpoint), number)
            if backend.endpoint in found:
                self._tell((*path, number), f"{backend.endpoint} is backends[{before}] too", "leave one out")
            found.setdefault(backend.endpoint, backend)
        return tuple(found[endpoint] for endpoint in sorted(found))

    def _backend(self, path: Path, given: object, default_port: int) -> Backend | None:
        """One backend; None if there is something wrong with it."""
        found = self._mapping(path, {"address": given} if isinstance(given, str) else given, _OF_BACKENDS)
        if found is None:
            return None
        before = len(self.problems)
        address = self._text(found, "address", "write it as in address: 10.0.0.11:8080")
        place = path if isinstance(given, str) else found.to("address")
        endpoint = None
        if address is not None:
            endpoint = self._parsed(place, partial(Endpoint.parse, address, default_port))
        backend = self._set(
            found, Backend(endpoint or _ANY.endpoint), settings.changed_backend, settings.BACKEND_SETTINGS
        )
        return backend if len(self.problems) == before else None

    def _set(
        self,
        found: _Mapping,
        usual: _Holder,
        change: Callable[[_Holder, Mapping[str, object]], _Holder],
        possible: Sequence[str],
    ) -> _Holder:
        """A VIP or a backend with the settings that are right."""
        values: dict[str, object] = {}
        for name in filter(possible.__contains__, found.values):
            value = self._parsed(found.to(name), partial(_value, name, found.values[name]))
            if value is not None:
                values[name] = value
        try:
            return change(usual, values)
        except UsageError:
            for name, value in values.items():
                self._try(found.to(name), name, value, partial(change, usual))
            return usual

    def _try(self, path: Path, name: str, value: object, change: Callable[[Mapping[str, object]], object]) -> None:
        """Tells what is wrong with a setting: with items of a list, if it is they."""
        before = len(self.problems)
        items = value[: settings.MOST_ITEMS] if name in settings.LISTS and isinstance(value, list) else []
        for number, item in enumerate(items):
            if not isinstance(item, str):
                self._tell((*path, number), f"{reprlib.repr(item)} is no text", "put it in quotes")
            elif name == "checks" and re.match(r"[\w-]+=", item):
                way_out = "put one that has commas in quotes, or on a line of its own"
                self._tell((*path, number), f"{reprlib.repr(item)} is a piece of a check", way_out)
            else:
                self._parsed((*path, number), partial(change, {name: [item]}))
        if len(self.problems) == before:
            self._parsed(path, partial(change, {name: value}))

    def _mapping(self, path: Path, given: object, possible: Sequence[str]) -> _Mapping | None:
        """What a mapping says; None if it is none."""
        if not isinstance(given, dict):
            self._tell(path, f"{reprlib.repr(given)} is no mapping", "write it as name: value, a line each")
            return None
        found = _Mapping(path)
        for key, value in given.items():
            name = key.replace("-", "_") if isinstance(key, str) else ""
            if name not in possible:
                self._tell((*path, key if isinstance(key, str) else repr(key)), "is not known", _near(name, possible))
            elif name in found.names:
                self._tell((*path, key), "stands there twice, with - and with _", "leave one of them out")
            elif value is None:
                found.names[name] = key
                way_out = "write [] for none" if name in _LISTS else "give it one, or leave the line out"
                self._tell((*path, key), "has no value", way_out)
            else:
                found.names[name] = key
                found.values[name] = value
        return found

    def _list(self, found: _Mapping, name: str) -> list[object]:
        """A list of a mapping; an empty one if there is none."""
        given = found.values.get(name, [])
        if isinstance(given, list):
            return given
        self._tell(found.to(name), f"{reprlib.repr(given)} is no list", "begin each item with -, on a line of its own")
        return []

    def _text(self, found: _Mapping, name: str, way_out: str) -> str | None:
        """A text that has to be there."""
        if name not in found.names:
            self._tell(found.path, f"has no {name}", way_out)
        elif name in found.values and not isinstance(found.values[name], str):
            self._tell(found.to(name), f"{reprlib.repr(found.values[name])} is no text", "put it in quotes")
        else:
            return found.values.get(name)  # type: ignore[return-value]
        return None

    def _parsed(self, path: Path, parse: Callable[[], _Value]) -> _Value | None:
        """What a parser answers; None if it refuses."""
        try:
            return parse()
        except UsageError as error:
            self._add(path, error)
            return None

    def _add(self, path: Path, error: UsageError) -> None:
        """Takes in an error that says what it is about, but not where."""
        name = str(path[-1]).replace("-", "_") if path else ""
        about = error.message.removeprefix(f"{name} ")
        self._tell(path, about if about != error.message else f": {error.message}", error.hint)

    def _tell(self, path: Path, message: str, hint: str) -> None:
        """Adds what is wrong at a place; more than can be told is not looked for."""
        text = f"{_place(path)}{'' if message.startswith(':') else ' '}{message}".removeprefix(":").strip()
        self.problems.append(Problem(path, UsageError(_short(text), _short(hint))))
        if len(self.problems) > MOST_TOLD:
            self.end()


def _value(name: str, value: object) -> object:
    """A setting as wire and state file have it, from how a document may have it."""
    if name in settings.LISTS and isinstance(value, str):
        return [value]
    if name not in settings.DURATIONS or not isinstance(value, str):
        return value
    seconds = parse_duration(value)
    if name != "idle_timeout":
        return seconds
    if not seconds.is_integer():
        raise UsageError(f"{name} {value!r} is no whole number of seconds", "leave the fraction out")
    return int(seconds)


def _place(path: Path) -> str:
    """As in vips[2].backends[0].weight."""
    text = ""
    for step in path:
        name = step if not isinstance(step, str) or re.fullmatch(r"[\w-]{1,40}", step) else reprlib.repr(step)
        text += f"[{step}]" if isinstance(step, int) else f"{'.' if text else ''}{name}"
    return text


def _near(wrong: str, possible: Sequence[str]) -> str:
    names = [name.replace("_", "-") for name in possible]
    near = get_close_matches(wrong[:_LONGEST].replace("_", "-"), names, n=2)
    return f"did you mean {' or '.join(near)}?" if near else f"use {', '.join(names)}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
