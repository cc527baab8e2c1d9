"""Less weight for a backend that answers, but slower or less surely than the others of its VIP.

Averages forget by half in five intervals. They are compared with the median of the backends (the lower of two), so a
network that is slow for all moves nobody, and no more than half of the backends can be slow. A weight moves by an
eighth when it should be most of one away, and then rests: three intervals before it becomes less again, ten before it
becomes more. So whatever noise there is, each backend moves once in three intervals at most.
"""

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median_low
from typing import Any, TypeVar

from l4lb.errors import L4lbError
from l4lb.health.advice import EIGHTHS, STICKINESS
from l4lb.health.machine import Health
from l4lb.health.rules import HealthRules

_Backend = TypeVar("_Backend", bound=Hashable)

HALF_LIFE = 5  # intervals
MOST_NEWS = 0.15  # of an average that one observation makes, after whatever time
FEWEST = 10  # observations before anything moves
REST_BEFORE_LESS = 3  # intervals after a move
REST_BEFORE_MORE = 10
TOLERANCE = 1.5  # times the median: usual for all that it takes
GRAIN = 0.001  # seconds that are never worth a move
FORGIVEN = 0.15  # share of failures: one alone makes no more


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of a backend since it was last looked at.

    Attributes:
        passed, failed: how many probes.
        latency: seconds that a probe took that passed; None if none did.
        handshake: seconds that handshakes of its flows took, where the kernel measures them.
    """

    passed: int = 0
    failed: int = 0
    latency: float | None = None
    handshake: float | None = None

    @classmethod
    def of(cls, health: Health, after: float, handshake: float | None = None) -> "Observation":
        """Of the results that came after a moment.

        A latency is that of all checks together, and there is none unless each has passed: checks of one backend take
        different times, and must not be mixed by chance.
        """
        latest = [[seen for seen in check.results if seen.at > after] for check in health.checks]
        passed = [[seen.latency for seen in results if seen.ok] for results in latest]
        counted = sum(map(len, passed))
        latency = sum(sum(times) / len(times) for times in passed) if passed and all(passed) else None
        return cls(counted, sum(map(len, latest)) - counted, latency, handshake)


@dataclass(frozen=True, slots=True)
class Score:
    """How a backend does, on the average of late.

    Attributes:
        latency, handshake: seconds; None where nothing is known.
        errors: share of probes that fail.
        samples: how many observations it is made of.
        seen: when it was last observed.
        eighths: of its weight that it is left with.
        moved: when that changed last.
        why: it did.
    """

    seen: float
    latency: float | None = None
    handshake: float | None = None
    errors: float = 0.0
    samples: int = 0
    eighths: int = EIGHTHS
    moved: float = -math.inf
    why: str = ""


def step(
    old: Mapping[_Backend, Score], observations: Mapping[_Backend, Observation], rules: HealthRules, now: float
) -> dict[_Backend, Score]:
    """The scores of the backends that were observed; others are forgotten, as those that went down should be.

    Args:
        old: as this function made it before.
        observations: of all backends of a VIP that take flows and have the same checks: only those compare.
        rules: theirs.
        now: the time.
    """
    if not rules.degrade:
        return {}
    scores = {
        backend: _averaged(old.get(backend, Score(now)), observed, rules, now)
        for backend, observed in observations.items()
    }
    usual = _Usual(
        _median(score.latency for score in scores.values()),
        _median(score.handshake for score in scores.values()),
        _median(score.errors for score in scores.values()) or 0.0,
    )
    return {
        backend: _moved(score, usual, rules, now) if score.seen == now else score for backend, score in scores.items()
    }


@dataclass(frozen=True, slots=True)
class _Usual:
    """The medians that backends are compared with."""

    latency: float | None
    handshake: float | None
    errors: float


def _averaged(score: Score, observed: Observation, rules: HealthRules, now: float) -> Score:
    probes = observed.passed + observed.failed
    if not probes and observed.handshake is None:
        return score
    news = min(1 - 0.5 ** ((now - score.seen) / (HALF_LIFE * rules.interval)), MOST_NEWS)
    first = max(news, 1 / (score.samples + 1))  # the plain average of the first ones: none of them weighs more
    errors = score.errors + news * (observed.failed / probes - score.errors) if probes else score.errors
    return replace(
        score,
        seen=now,
        latency=_mixed(score.latency, observed.latency, first),
        handshake=_mixed(score.handshake, observed.handshake, first),
        errors=errors,
        samples=score.samples + 1,
    )


def _mixed(old: float | None, new: float | None, news: float) -> float | None:
    if old is None or new is None:
        return old if new is None else new
    return old + news * (new - old)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median_low(known) if known else None


def _moved(score: Score, usual: _Usual, rules: HealthRules, now: float) -> Score:
    """With an eighth less or more, if it is time."""
    factors = [
        (_speed(score.latency, usual.latency), "probes take", score.latency, usual.latency),
        (_speed(score.handshake, usual.handshake), "handshakes take", score.handshake, usual.handshake),
    ]
    speed, what, seconds, median = min(factors, key=lambda factor: factor[0])
    surety = min(1.0, (1 - score.errors) / (1 - FORGIVEN) / max(1 - usual.errors, 1e-9))
    wanted = max(EIGHTHS * speed * surety, math.ceil(EIGHTHS * rules.floor / 100))
    direction = -1 if wanted <= score.eighths - STICKINESS else 1 if wanted >= score.eighths + STICKINESS else 0
    rest = (REST_BEFORE_LESS if direction < 0 else REST_BEFORE_MORE) * rules.interval
    if not direction or score.samples < FEWEST or now - score.moved < rest:
        return score
    if surety < speed:
        why = f"{100 * score.errors:.0f} % of its probes fail"
    elif speed < 1 and seconds is not None and median is not None:
        why = f"{what} {1000 * seconds:.1f} ms, usual are {1000 * median:.1f} ms"
    else:
        why = "as good as the others again"
    return replace(score, eighths=score.eighths + direction, moved=now, why=why)


def _speed(seconds: float | None, median: float | None) -> float:
    """1 for what is usual, less for what takes longer."""
    if not seconds or median is None:
        return 1.0
    return min(1.0, (TOLERANCE * median + GRAIN) / seconds)


def plain(score: Score) -> list[object]:
    """A score as plain values."""
    moved = score.moved if math.isfinite(score.moved) else None
    return [
        score.seen, score.latency, score.handshake, score.errors, score.samples, score.eighths, moved, score.why,
    ]  # fmt: skip


def parse(values: Any, shift: float) -> Score:
    """The score that was saved.

    Args:
        values: as :func:`plain` made them.
        shift: seconds to add to their times, for a clock that began anew.

    Raises:
        L4lbError: they are not as they should be.
    """
    try:
        seen, latency, handshake, errors, samples, eighths, moved, why = values
        return Score(
            seen=float(seen) + shift,
            latency=float(latency) if latency is not None else None,
            handshake=float(handshake) if handshake is not None else None,
            errors=min(max(float(errors), 0.0), 1.0),
            samples=int(samples),
            eighths=min(max(int(eighths), 1), EIGHTHS),
            moved=float(moved) + shift if moved is not None else -math.inf,
            why=str(why),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise L4lbError(f"a saved score is not as it should be ({type(error).__name__}: {error})") from error
