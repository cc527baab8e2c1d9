"""Health as plain values, to outlive a restart of the daemon: names, texts, numbers, lists."""

import math
from collections.abc import Mapping
from typing import Any

from l4lb.errors import L4lbError
from l4lb.health.advice import MOST_EIGHTHS, Advice, Wish
from l4lb.health.machine import KEPT, CheckHealth, Health, Seen
from l4lb.health.rules import State


def plain(health: Health) -> dict[str, object]:
    """What of a backend's health is worth keeping; a suspicion is not, it is about this moment.

    Times are as they are, so the clock that they are of has to be saved beside it.
    """
    return {
        "state": str(health.state),
        "since": health.since,
        "why": health.why,
        "recovered": health.recovered,
        "checks": [
            {
                "state": str(check.state),
                "why": check.why,
                "run": check.run,
                "results": [[seen.at, seen.ok, seen.reason, seen.latency] for seen in check.results],
                "advice": [str(check.advice.wish), check.advice.eighths] if check.advice is not None else None,
            }
            for check in health.checks
        ],
    }


def parse(values: object, shift: float, now: float) -> Health:
    """The health that was saved, stale: it goes on counting until each check has a result of its own.

    Args:
        values: as :func:`plain` made them.
        shift: seconds to add to their times, for a clock that began anew.
        now: when watching goes on.

    Raises:
        L4lbError: they are not as they should be.
    """
    try:
        return _parse(values, shift, now)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise L4lbError(f"saved health is not as it should be ({type(error).__name__}: {error})") from error


def _parse(values: Any, shift: float, now: float) -> Health:
    recovered = values["recovered"]
    return Health(
        checks=tuple(_check(saved, shift) for saved in values["checks"]),
        state=State(values["state"]),
        since=_number(values["since"], shift),
        why=str(values["why"]),
        began=now,
        recovered=_number(recovered, shift) if recovered is not None else None,
    )


def _check(saved: Mapping[str, Any], shift: float) -> CheckHealth:
    advice = None
    if saved["advice"] is not None:
        wish, eighths = saved["advice"]
        advice = Advice(Wish(wish), min(max(int(eighths), 0), MOST_EIGHTHS))
    results = tuple(
        Seen(_number(at, shift), bool(ok), str(reason), _number(latency))
        for at, ok, reason, latency in saved["results"]
    )
    return CheckHealth(State(saved["state"]), str(saved["why"]), int(saved["run"]), results[-KEPT:], advice, stale=True)


def _number(value: Any, shift: float = 0.0) -> float:
    """A number, shifted; JSON has some that are none."""
    number = float(value) + shift
    if not math.isfinite(number):
        raise ValueError(f"{number} is no time")
    return number
