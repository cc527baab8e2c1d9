"""The health of one backend: how the results of its checks bring it up and down.

Each check counts by itself:

    state     result     in a row   becomes
    unknown   success    1          up
    unknown   failure    1          down
    up        failure    fall       down    at once when suspected, or when an agent says so
    down      success    rise       up

The backend is down when one of its checks is, and up when all are; one that was down stays so until all are up. An
unknown backend takes flows, and its first failure takes them away: so does HAProxy with a server that it does not know
yet. To wait for a success instead, as Envoy does, would empty every VIP when a gateway starts.

However results flap, a check moves seldom. But for its first move, each way down takes `fall` results of its own and
each way up `rise`: n results make no more than 2 + 2n / (rise + fall) moves (suspicion and an agent's word apart). A
backend moves only when one of its checks does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import groupby
from operator import or_
from typing import Self

from l4lb.health.advice import Advice, says_down
from l4lb.health.result import Result
from l4lb.health.rules import HealthRules, State

KEPT = 10  # results of each check

_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, slots=True)
class Seen:
    """A result and when it came; `at` is the end of the probe, `latency` how long it took."""

    at: float
    ok: bool
    reason: str
    latency: float

    @property
    def began(self) -> float:
        """When the probe was sent."""
        return self.at - self.latency


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """What one check says of a backend.

    Attributes:
        why: the results that brought it there.
        run: how many results in a row were the same: successes above 0, failures below.
        results: the last ones, the newest at the end.
        advice: what an agent said; None where none speaks.
        stale: whether there was no result since all this was loaded.
    """

    state: State
    why: str = ""
    run: int = 0
    results: tuple[Seen, ...] = ()
    advice: Advice | None = None
    stale: bool = False

    @property
    def disagrees(self) -> bool:
        """Whether the last result speaks for another state."""
        return self.run < 0 if self.state is State.UP else self.run > 0 if self.state is State.DOWN else True


@dataclass(frozen=True, slots=True)
class Suspicion:
    """That a backend's own traffic speaks against it.

    Attributes:
        reason: what was seen.
        since: when it was first; every check is due then.
        last: when it was seen again.
        cleared: which checks have passed since.
    """

    reason: str
    since: float
    last: float
    cleared: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Health:
    """How a backend is, and what is known of it.

    Attributes:
        checks: what each says. Without any, nothing is known and nothing speaks against the backend.
        state: what follows from them.
        since: when it became so.
        why: what brought it there; while it is down, of every check that is.
        began: when watching began, or went on after a restart.
        suspicion: that nothing has cleared yet.
        recovered: when it last came up after it was down: slow start counts from there. None if it never was down.
    """

    checks: tuple[CheckHealth, ...]
    state: State
    since: float
    why: str
    began: float
    suspicion: Suspicion | None = None
    recovered: float | None = None

    @classmethod
    def begin(cls, checks: int, rules: HealthRules, now: float) -> Self:
        """Of a backend that so many checks watch from now on."""
        if not checks:
            return cls((), State.UNKNOWN, now, "not checked", now)
        return cls((CheckHealth(rules.initial),) * checks, rules.initial, now, "not checked yet", now)

    @property
    def advice(self) -> Advice:
        """What the agents on the backend say."""
        given = [check.advice for check in self.checks if check.advice is not None]
        return reduce(or_, given) if given else Advice()

    @property
    def stale(self) -> bool:
        """Whether some of it was loaded and not confirmed yet."""
        return any(check.stale for check in self.checks)


@dataclass(frozen=True, slots=True)
class Transition:
    """That a backend's state has changed, or what its agent advises.

    Attributes:
        before, after: states; the same if only the advice changed.
        why: the results that did it, or the agent's words.
        advice: the new one; None if it did not change.
    """

    before: State
    after: State
    why: str
    advice: Advice | None = None

    @property
    def what(self) -> str:
        """In a word or two, as "down" or "agent: drain"."""
        advice = "" if self.advice is None else f"agent: {self.advice}"
        state = str(self.after) if self.after is not self.before else ""
        return ", ".join(filter(None, (state, advice)))


def observe(
    health: Health, index: int, result: Result, rules: HealthRules, now: float
) -> tuple[Health, Transition | None]:
    """What becomes of a backend's health by one result of the check at `index`, which ended now."""
    check = _counted(health.checks[index], health.suspicion, result, rules, now)
    after = replace(
        health,
        checks=(*health.checks[:index], check, *health.checks[index + 1 :]),
        suspicion=_weighed(health, index, check.results[-1]),
    )
    after = _settled(health, after, check.why, now)
    advice = after.advice if after.advice != health.advice else None
    if after.state is health.state and advice is None:
        return after, None
    why = after.why if after.state is not health.state else result.reason or result.advice or ""
    return after, Transition(health.state, after.state, why, advice)


def _counted(
    check: CheckHealth, suspicion: Suspicion | None, result: Result, rules: HealthRules, now: float
) -> CheckHealth:
    """A check with one more result."""
    told_down = result.advice is not None and says_down(result.advice)
    ok = result.ok and not told_down
    run = max(check.run, 0) + 1 if ok else min(check.run, 0) - 1
    results = (*check.results, Seen(now, ok, result.reason, result.latency))[-KEPT:]
    advice = check.advice if result.advice is None else (check.advice or Advice()).heed(result.advice)
    state, why = check.state, check.why
    if ok and run >= (rules.rise if state is State.DOWN else 1):
        state = State.UP
    elif not ok and (suspicion or told_down or -run >= (rules.fall if state is State.UP else 1)):
        state = State.DOWN
    if state is not check.state:
        why = _told(results, run)
        if state is State.DOWN and suspicion:
            why = f"{why}; suspected: {suspicion.reason}"
    return CheckHealth(state, why, run, results, advice)


def _told(results: Sequence[Seen], run: int) -> str:
    """The reasons of the last results that were the same, with how often each came in a row."""
    last = results[-abs(run) :]
    reasons = groupby(seen.reason or ("passed" if seen.ok else "failed") for seen in last)
    counted = [(reason, len(list(same))) for reason, same in reasons]
    told = ", ".join(f"{reason} {_TIMES}{count}" if count > 1 else reason for reason, count in counted)
    return f"{told} ({abs(run)} in a row)" if abs(run) > len(last) else told


def _weighed(health: Health, index: int, seen: Seen) -> Suspicion | None:
    """What a result leaves of a suspicion. A probe that was sent before it says nothing for the backend."""
    suspicion = health.suspicion
    if suspicion is None or not seen.ok or seen.began < suspicion.last:
        return suspicion
    cleared = suspicion.cleared | {index}
    return replace(suspicion, cleared=cleared) if len(cleared) < len(health.checks) else None


def _settled(before: Health, after: Health, why: str, now: float) -> Health:
    """With the state that follows from the checks; `why` is told of it, but for checks that are down their own."""
    state = _state(before.state, [check.state for check in after.checks])
    if state is State.DOWN:
        causes = [check.why for check in after.checks if check.state is State.DOWN]
        why = "; ".join(filter(None, causes)) or before.why
        since = before.since if before.state is State.DOWN else now
        return replace(after, state=state, since=since, why=why, suspicion=None)
    if state is before.state:
        return after
    recovered = now if before.state is State.DOWN else before.recovered
    return replace(after, state=state, since=now, why=why, recovered=recovered)


def _state(before: State, checks: Sequence[State]) -> State:
    if State.DOWN in checks:
        return State.DOWN
    if set(checks) == {State.UP}:
        return State.UP
    return State.DOWN if before is State.DOWN else State.UNKNOWN


def suspect(health: Health, reason: str, now: float) -> Health:
    """What becomes of a backend's health when its own traffic speaks against it, as by unanswered handshakes.

    All its checks are due at once and fast from then on; the first failure takes it down, and a success of each clears
    it. Nothing changes for a backend that is down, or that no check could clear.
    """
    if health.state is State.DOWN or not health.checks:
        return health
    since = now if health.suspicion is None else health.suspicion.since
    return replace(health, suspicion=Suspicion(reason, since, now))


def rechecked(health: Health, kept: Sequence[int | None], rules: HealthRules, now: float) -> Health:
    """The health of a backend whose checks were changed.

    Args:
        health: what it was.
        kept: for each of the checks that it has now, which of the old ones it is; None for a new one, which has to pass
            once like any that is unknown.
        rules: those of the backend.
        now: the time.
    """
    if not kept or not health.checks:
        return Health.begin(len(kept), rules, now)
    checks = tuple(CheckHealth(State.UNKNOWN) if old is None else health.checks[old] for old in kept)
    after = replace(health, checks=checks, began=now, suspicion=None)
    return _settled(health, after, "its checks were changed", now)


def next_interval(health: Health, index: int, rules: HealthRules) -> float:
    """Seconds from one probe of a check to the next, as its backend is now."""
    changing = health.checks[index].disagrees or health.suspicion is not None
    return rules.fast_interval if changing and rules.fast_interval else rules.interval


def silent(health: Health, rules: HealthRules, now: float) -> bool:
    """Whether a check has had no result for so long that what is known of the backend is stale."""
    return any(
        now - (check.results[-1].at if check.results and not check.stale else health.began) > rules.silence
        for check in health.checks
    )
