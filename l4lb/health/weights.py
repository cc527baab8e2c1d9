"""From configured weights and health to what a VIP's backends get of its new flows.

A weight is the configured one times a factor in eighths: of slow start, of degradation, of an agent's advice. Weights
are then reduced by their greatest common divisor, so equal shares are equal numbers however they came about, and a
table that need not change does not.

Tiers are Envoy's priority levels: a tier carries its healthy weight times the tier share, up to all flows; what is left
goes to the next one. Factors count there too, so flows return smoothly to a tier that comes back by slow start.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

from l4lb.health.advice import EIGHTHS, Wish
from l4lb.health.machine import Health
from l4lb.health.rules import Panic, State, VipRules
from l4lb.model import MAX_WEIGHT, Admin

_RAMP_STEPS = EIGHTHS - 1


class Verdict(enum.StrEnum):
    """How a VIP is.

    * ``ok``: its first tier takes all flows.
    * ``overflow``: a lower tier takes flows.
    * ``panic``: too few are healthy, so health is not asked.
    * ``refused``: too few are healthy, so new flows are refused.
    * ``none``: no backend can take a flow.
    """

    OK = "ok"
    OVERFLOW = "overflow"
    PANIC = "panic"
    REFUSED = "refused"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Member:
    """All that decides what a backend gets.

    Attributes:
        weight: the configured one.
        priority: its tier; 0 is the first.
        slow_start: seconds that its weight ramps when it comes back.
        degraded: eighths that degradation leaves of its weight, and why.
    """

    weight: int
    health: Health
    admin: Admin = Admin.NONE
    priority: int = 0
    slow_start: float = 0.0
    degraded: int = EIGHTHS
    degraded_why: str = ""

    @property
    def counts(self) -> bool:
        """Whether it would take flows if it were healthy, as far as operator and agent have a say."""
        advice = self.health.advice
        return self.admin is Admin.NONE and advice.wish is Wish.NONE and self.weight * advice.eighths > 0

    @property
    def is_healthy(self) -> bool:
        """Whether nothing speaks against it."""
        return self.health.state is not State.DOWN


@dataclass(frozen=True, slots=True)
class Effective:
    """What a backend gets.

    Attributes:
        weight: its part of the new flows, against those of the others. At most 65,535.
        usable: whether its existing flows stay; if not, they are released at once.
        eighths: of the configured weight that its own condition leaves; 0 if it gets no new flows.
        reason: why it is so, for a person.
    """

    weight: int
    usable: bool
    eighths: int
    reason: str


@dataclass(frozen=True, slots=True)
class Picture:
    """What all backends of a VIP get, in the order in which they were given.

    Attributes:
        why: of the verdict, for a person; empty when all is well.
    """

    backends: tuple[Effective, ...]
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Standing:
    """What a backend's own condition leaves it, whatever the others do."""

    eighths: int
    usable: bool
    reason: str


def picture(members: Sequence[Member], rules: VipRules, now: float) -> Picture:
    """What the backends of a VIP get now."""
    standings = _standings(members, now)
    healthy = _healthy_percent(members)
    if healthy is not None and healthy < rules.panic_share:
        why = f"{int(healthy)} % of the weight is healthy, and {rules.panic_share} % have to be"
        if rules.panic is Panic.REFUSE:
            return Picture(_none(standings, f"refused: {why}"), Verdict.REFUSED, why)
        return _spread(members, standings, why)
    if not any(standing.eighths for standing in standings):
        return Picture(_none(standings), Verdict.NONE, "no backend can take a flow")
    return _tiered(members, standings, rules)


def next_change(members: Sequence[Member], now: float) -> float | None:
    """When slow start moves a weight next; None if nothing ramps."""
    taking = _taking(members)
    if len(taking) < 2:
        return None
    return min((moment for member in taking for moment in _ramp_moments(member) if moment > now), default=None)


def _taking(members: Sequence[Member]) -> list[Member]:
    return [member for member in members if member.counts and member.is_healthy]


def _standings(members: Sequence[Member], now: float) -> list[_Standing]:
    alone = len(_taking(members)) == 1  # it gets all flows anyway
    return [_standing(member, EIGHTHS if alone else _ramp(member, now)) for member in members]


def _standing(member: Member, ramp: int) -> _Standing:
    health, advice = member.health, member.health.advice
    if member.admin is Admin.DISABLED:
        return _Standing(0, False, "disabled")
    if member.admin is Admin.DRAIN:
        return _Standing(0, True, "draining")
    if health.state is State.DOWN:
        return _Standing(0, False, f"down: {health.why}")
    if advice.wish is Wish.MAINT:
        return _Standing(0, False, f"agent: {advice}")
    if not member.counts:
        return _Standing(0, True, f"agent: {advice}" if member.weight else "weight 0")
    reasons = [str(health.state)]
    if health.suspicion is not None:
        reasons.append(f"suspected: {health.suspicion.reason}")
    if ramp != EIGHTHS:
        reasons.append(f"slow start {ramp}/{EIGHTHS}")
    if member.degraded != EIGHTHS:
        reasons.append(f"degraded to {member.degraded}/{EIGHTHS}: {member.degraded_why}")
    if advice.eighths != EIGHTHS:
        reasons.append(f"agent: {advice}")
    eighths = ramp * member.degraded * advice.eighths / EIGHTHS**2
    return _Standing(max(1, int(eighths + 0.5)), True, ", ".join(reasons))


def _ramp(member: Member, now: float) -> int:
    """Eighths of slow start."""
    moments = _ramp_moments(member)
    return EIGHTHS - sum(moment > now for moment in moments)


def _ramp_moments(member: Member) -> list[float]:
    """When slow start adds an eighth, after the first, which a backend has at once."""
    recovered = member.health.recovered
    if recovered is None or not member.slow_start:
        return []
    return [recovered + member.slow_start * step / (EIGHTHS - 1) for step in range(1, EIGHTHS)]


def _healthy_percent(members: Sequence[Member]) -> Fraction | None:
    """How much of its weight the healthiest tier has; None if there is none to ask.

    A tier that is healthy enough takes what the others lose, so there is no panic while there is one. What operator or
    agent took out is no sign of sick backends, and does not count.
    """
    whole: dict[int, int] = {}
    healthy: dict[int, int] = {}
    for member in members:
        if member.counts:
            whole[member.priority] = whole.get(member.priority, 0) + member.weight
            healthy[member.priority] = healthy.get(member.priority, 0) + member.weight * member.is_healthy
    return max((Fraction(100 * healthy[priority], weight) for priority, weight in whole.items()), default=None)


def _none(standings: Sequence[_Standing], reason: str = "") -> tuple[Effective, ...]:
    """No flows for anyone; existing ones stay where they can."""
    return tuple(
        Effective(0, standing.usable, 0, reason if reason and standing.eighths else standing.reason)
        for standing in standings
    )


def _spread(members: Sequence[Member], standings: Sequence[_Standing], why: str) -> Picture:
    """All as if they were healthy, whatever their tier; but not those that operator or agent took out."""
    weights = _reduced([member.weight if member.counts else 0 for member in members])
    backends = tuple(
        Effective(weight, True, EIGHTHS, f"panic, health does not count ({standing.reason})")
        if weight
        else Effective(0, standing.usable, 0, standing.reason)
        for weight, standing in zip(weights, standings, strict=True)
    )
    return Picture(backends, Verdict.PANIC, why)


def _tiered(members: Sequence[Member], standings: Sequence[_Standing], rules: VipRules) -> Picture:
    parts = [member.weight * standing.eighths for member, standing in zip(members, standings, strict=True)]
    loads = _loads(members, parts, rules)
    scales = {
        priority: load / sum(part for member, part in zip(members, parts, strict=True) if member.priority == priority)
        for priority, load in loads.items()
        if load
    }
    common = lcm(*(scale.denominator for scale in scales.values()))
    weights = _reduced(
        [part * int(scales.get(member.priority, 0) * common) for member, part in zip(members, parts, strict=True)]
    )
    backends = tuple(
        Effective(0, True, 0, f"{standing.reason}, standby in tier {member.priority}")
        if standing.eighths and not weight
        else Effective(weight, standing.usable, standing.eighths, standing.reason)
        for member, weight, standing in zip(members, weights, standings, strict=True)
    )
    first = next(iter(loads))
    if scales.keys() == {first}:
        return Picture(backends, Verdict.OK)
    told = ", ".join(f"{float(100 * loads[priority]):.0f} % of flows to tier {priority}" for priority in scales)
    return Picture(backends, Verdict.OVERFLOW, f"tier {first} is short of healthy weight: {told}")


def _loads(members: Sequence[Member], parts: Sequence[int], rules: VipRules) -> dict[int, Fraction]:
    """What share of all flows each tier takes that has any weight, the first tier first; they add up to 1."""
    whole: dict[int, int] = {}
    healthy: dict[int, int] = {}
    for member, part in zip(members, parts, strict=True):
        whole[member.priority] = whole.get(member.priority, 0) + EIGHTHS * member.weight
        healthy[member.priority] = healthy.get(member.priority, 0) + part
    loads: dict[int, Fraction] = {}
    left = Fraction(1)
    for priority in sorted(priority for priority, weight in whole.items() if weight):
        loads[priority] = min(left, Fraction(rules.tier_share * healthy[priority], 100 * whole[priority]))
        left -= loads[priority]
    return {priority: load / (1 - left) for priority, load in loads.items()}


def _reduced(weights: Sequence[int]) -> list[int]:
    """The same shares in the smallest numbers; nearly the same where those are over the largest weight."""
    largest = max(weights, default=0)
    divisor = gcd(*weights)
    if divisor and largest // divisor > MAX_WEIGHT:
        weights = [max(1, (2 * weight * MAX_WEIGHT + largest) // (2 * largest)) if weight else 0 for weight in weights]
        divisor = gcd(*weights)
    return [weight // divisor for weight in weights] if divisor else list(weights)
