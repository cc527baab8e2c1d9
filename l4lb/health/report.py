"""Health as it is shown: plain values, whose keys are a stable interface."""

from dataclasses import dataclass

from l4lb.health.advice import Wish
from l4lb.health.machine import CheckHealth, Health, silent
from l4lb.health.rules import State
from l4lb.health.weights import Effective
from l4lb.model import Admin, Backend, Vip


@dataclass(frozen=True, slots=True)
class Clocks:
    """The same moment by two clocks, to tell when things happened.

    Attributes:
        monotonic: what health counts by, in seconds.
        wall: seconds since 1970.
    """

    monotonic: float
    wall: float

    def wall_time(self, monotonic: float) -> float:
        """When that was, to a millisecond."""
        return round(self.wall - (self.monotonic - monotonic), 3)


def state_of(backend: Backend, health: Health) -> str:
    """``up``, ``down``, ``draining``, ``disabled`` or ``unknown``: what the operator wants outranks what checks say."""
    if backend.admin is Admin.DISABLED:
        return "disabled"
    if backend.admin is Admin.DRAIN:
        return "draining"
    wish = health.advice.wish
    if health.state is not State.DOWN and wish is not Wish.NONE:
        return "draining" if wish is Wish.DRAIN else "down"
    return str(health.state)


def in_short(vip: Vip, backend: Backend, health: Health, effective: Effective, clocks: Clocks) -> dict[str, object]:
    """What lists show of a backend's health."""
    return {
        "state": state_of(backend, health),
        "reason": effective.reason,
        "since": clocks.wall_time(health.since),
        "effective_weight": effective.weight,
        "weight_share": effective.eighths / 8,
        "stale": health.stale or silent(health, vip.rules_for(backend), clocks.monotonic),
    }


def in_full(vip: Vip, backend: Backend, health: Health, clocks: Clocks) -> dict[str, object]:
    """The checks of a backend with their last results, the newest first."""
    rules = vip.rules_for(backend)
    return {
        "health": str(health.state),
        "why": health.why,
        "suspected": health.suspicion.reason if health.suspicion is not None else None,
        "advice": str(health.advice) if any(check.advice for check in health.checks) else None,
        "interval": rules.interval,
        "timeout": rules.timeout,
        "rise": rules.rise,
        "fall": rules.fall,
        "via": str(vip.via),
        "checks": [_check(str(check), found, clocks) for check, found in zip(vip.checks, health.checks, strict=True)],
    }


def _check(check: str, health: CheckHealth, clocks: Clocks) -> dict[str, object]:
    return {
        "check": check,
        "state": str(health.state),
        "why": health.why,
        "in_a_row": health.run,
        "results": [
            {
                "time": clocks.wall_time(seen.at),
                "ok": seen.ok,
                "reason": seen.reason,
                "latency_ms": round(seen.latency * 1000, 3),
            }
            for seen in reversed(health.results)
        ],
    }
