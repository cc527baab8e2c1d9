"""The options by which VIPs and backends say how they are judged."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from l4lb.durations import parse_duration
from l4lb.health.rules import MAX_COUNT, MAX_JITTER, HealthRules, State
from l4lb.ports import MAX_PORT

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Duration(click.ParamType[Any]):
    """``500ms``, ``2s`` or ``1m``; a bare number is of seconds."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        return parse_duration(value) if isinstance(value, str) else value


_count, _duration = click.IntRange(1, MAX_COUNT), Duration()

# name, type, what it is, and how a default is written
_OPTIONS: tuple[tuple[str, click.ParamType[Any], str, str], ...] = (
    ("interval", _duration, "From one probe to the next.", "2s"),
    ("timeout", _duration, "After which a probe has failed.", "1s"),
    ("rise", _count, "Successes in a row that bring a backend up.", str(HealthRules().rise)),
    ("fall", _count, "Failures in a row that bring it down.", str(HealthRules().fall)),
    ("fast-interval", _duration, "The interval while a backend is changing; 0 for the same.", "0"),
    ("jitter", click.FloatRange(0, MAX_JITTER), "Share of the interval that chance adds or takes.", "0.1"),
    (
        "initial",
        click.Choice([str(state) for state in State]),
        "What a backend is before its first result; an unknown one takes flows.",
        str(State.UNKNOWN),
    ),
    ("slow-start", _duration, "How long the weight of a backend grows that comes up; 0 for at once.", "0"),
    (
        "floor",
        click.IntRange(1, 100),
        "Percent of its weight that --degrade leaves a backend.",
        str(HealthRules().floor),
    ),
    ("stale-after", _duration, "Without a result, when health is told to be stale; 0 for three intervals.", "0"),
    ("check-port", click.IntRange(0, MAX_PORT), "The port that is probed; 0 for the one that serves.", "0"),
)

NAMES = (*(name.replace("-", "_") for name, *_ in _OPTIONS), "degrade")


def health_options(*, new: bool) -> Callable[[_Function], _Function]:
    """All of them; None is passed for those that are left out."""

    def decorate(function: _Function) -> _Function:
        function = click.option(
            "--degrade/--no-degrade",
            default=None,
            help="Give less weight to a backend that is slower or fails more often than the others.",
        )(function)
        for name, kind, text, default in reversed(_OPTIONS):
            text += f"  [default: {default}]" if new else ""
            function = click.option(f"--{name}", type=kind, help=text)(function)
        return function

    return decorate
