"""What the connections of clients tell of a backend, beside its probes: it answers them or does not.

It never takes a backend out. It makes one suspected that has stopped to answer, and its checks decide at once; so
clients that only pretend to connect, or a service that is slow to reply, cost a probe and no more.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LOOK_SECONDS = 0.04  # between looks at the counters
PAUSE_SECONDS = 1.0  # between two suspicions of one backend
FEWEST_REFUSED = 2  # connections in a row
FIRST_TIME, FIRST_REPLY_TIME = 16e-6, 256e-6  # seconds: the first bucket is for less
BUCKETS = 16
_KEPT_SECONDS = 3.0
_NEARLY_ALL = 0.95
_GRACE_TIMES = 2  # times what nearly all took: now and then all are slow at once
_HALF_LIFE = 10.0  # seconds in which what was learnt counts half
_REMEMBERED = 100  # answers that are remembered, however long ago they came
_LEARN_SECONDS = 0.2  # at the least; to do it at every look would cost more than all the rest
_KNOWN = 8  # answers, of which the usual time is known


@dataclass(frozen=True, slots=True)
class Handshakes:
    """Counters of one backend, all CPUs together; ``struct handshakes`` in ``bpf/abi.h`` explains them.

    Attributes:
        times: how many handshakes took less than 16 microseconds, less than 32 and so on.
        reply_times: how many first replies took less than 256 microseconds, less than 512 and so on.
    """

    begun: int = 0
    repeated: int = 0
    answered: int = 0
    refused: int = 0
    requests: int = 0
    replies: int = 0
    times: tuple[int, ...] = (0,) * BUCKETS
    reply_times: tuple[int, ...] = (0,) * BUCKETS

    def plain(self) -> dict[str, object]:
        """As it is shown."""
        numbers: dict[str, object] = {name: getattr(self, name) for name in _NUMBERS}
        return {
            **numbers,
            "times_us": list(self.times),
            "median_ms": round(1000 * percentile(self.times, 0.5), 3),
            "reply_times_us": list(self.reply_times),
            "median_reply_ms": round(1000 * percentile(self.reply_times, 0.5, FIRST_REPLY_TIME), 3),
        }

    def goes_on_from(self, earlier: "Handshakes") -> bool:
        """Whether no counter is lower: they only grow, until another backend has them."""
        return all(getattr(self, name) >= getattr(earlier, name) for name in _NUMBERS)


_NUMBERS = ("begun", "repeated", "answered", "refused", "requests", "replies")


def percentile(times: Sequence[float], share: float, first: float = FIRST_TIME) -> float:
    """Seconds within which a share of the answers came, to a factor of two; 0 if there were none.

    Args:
        times: how many came within `first` seconds, within twice that and so on.
        share: from 0 to 1.
        first: seconds.
    """
    wanted, counted = share * sum(times), 0.0
    for bucket, count in enumerate(times):
        counted += count
        if count and counted >= wanted:
            return float(first * 2**bucket)
    return 0.0


@dataclass(frozen=True, slots=True)
class _Question:
    """What clients want of a backend.

    Attributes:
        asked: how often they have.
        answered: how often it has answered.
        times: how soon.
        first: seconds, of which the first bucket of the times has less.
        least: seconds that an answer may take, however soon it comes usually.
        unknown: seconds that it may take where it is not known what is usual.
        share: of the questions have to be answered usually, or silence says nothing.
        fewest: how many have to wait.
        told: what it is called if nobody answers.
    """

    asked: Callable[[Handshakes], int]
    answered: Callable[[Handshakes], int]
    times: Callable[[Handshakes], tuple[int, ...]]
    first: float
    least: float
    unknown: float
    share: float
    fewest: int
    told: str


# A SYN is sent again after a second (RFC 6298 §2): who has not answered by then has lost it, or never will.
_HANDSHAKE = _Question(
    asked=lambda counts: counts.begun + counts.repeated,
    answered=lambda counts: counts.answered + counts.refused,
    times=lambda counts: counts.times,
    first=FIRST_TIME,
    least=0.9 * LOOK_SECONDS,
    unknown=1.0,
    share=0.0,
    fewest=2,
    told="handshakes unanswered",
)
# Processes pause now and then, and some take data without a word.
_REQUEST = _Question(
    asked=lambda counts: counts.requests,
    answered=lambda counts: counts.replies,
    times=lambda counts: counts.reply_times,
    first=FIRST_REPLY_TIME,
    least=1.9 * LOOK_SECONDS,
    unknown=math.inf,
    share=0.9,
    fewest=3,
    told="requests without a reply",
)


class _Usual:
    """How soon questions are answered of late, and what share of them."""

    def __init__(self, question: _Question) -> None:
        self._question = question
        self._last = Handshakes()
        self._at = -math.inf
        self._measured = 0
        self._asked = self._answered = 0.0
        self._times = [0.0] * BUCKETS
        self.patience = question.unknown

    def learn(self, counts: Handshakes, now: float) -> None:
        """Takes in what was asked and answered since the last time, now that an answer has come."""
        if now < self._at + _LEARN_SECONDS:
            return
        question, last = self._question, self._last
        new = [count - before for count, before in zip(question.times(counts), question.times(last), strict=True)]
        answered = question.answered(counts) - question.answered(last)
        kept = max(0.5 ** ((now - self._at) / _HALF_LIFE), 1 - answered / _REMEMBERED)
        self._times = [kept * before + count for before, count in zip(self._times, new, strict=True)]
        self._asked = kept * self._asked + question.asked(counts) - question.asked(last)
        self._answered = kept * self._answered + answered
        self._measured += sum(new)
        self._last, self._at = counts, now
        self.patience = self._patience()

    def _patience(self) -> float:
        """Seconds that an answer may take; infinite if it cannot be said."""
        question = self._question
        usual = percentile(self._times, _NEARLY_ALL, question.first)
        if self._measured < _KNOWN or usual >= question.first * 2 ** (BUCKETS - 1):  # the last bucket has no end
            return question.unknown
        if self._answered < question.share * self._asked:
            return math.inf
        return max(question.least, _GRACE_TIMES * usual)


class _Silence:
    """How long no question has been answered, and how many wait: those who have asked since then."""

    def __init__(self, question: _Question) -> None:
        self._question = question
        self._usual = _Usual(question)
        self._asked = 0
        self._answered = -1  # of nobody who was ever looked at
        self._begin(0.0)

    def _begin(self, now: float) -> None:
        self._since = now
        self._base = self._old = self._asked  # the silence begins with those, and they have asked long enough ago
        self._young: deque[tuple[float, int]] = deque()

    def look(self, counts: Handshakes, now: float) -> str | None:
        """Takes in the counters, and tells of silence if that speaks against the backend."""
        asked, answered = self._question.asked(counts), self._question.answered(counts)
        if asked != self._asked:
            self._asked = asked
            self._young.append((now, asked))
        if answered != self._answered:
            self._answered = answered
            self._usual.learn(counts, now)
            self._begin(now)
        while self._young and self._young[0][0] <= now - self._usual.patience:
            _, self._old = self._young.popleft()
        waiting = self._old - self._base
        if waiting < self._question.fewest:
            return None
        return f"{waiting} {self._question.told} for {1000 * (now - self._since):.0f} ms"

    def forgive(self, now: float) -> None:
        """Lets only those count who ask from now on."""
        self._begin(now)


class Witness:
    """What is known of one backend's connections of late."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._looks: deque[tuple[float, Handshakes]] = deque()
        self._silences = (_Silence(_HANDSHAKE), _Silence(_REQUEST))
        self._refused_before = 0  # when a connection was accepted for the last time
        self._paused_until = -math.inf

    def look(self, counts: Handshakes, now: float) -> str | None:
        """Takes in the counters as they are now, and tells what speaks against the backend, if something does."""
        if self._looks and not counts.goes_on_from(self._looks[-1][1]):
            self._begin()  # they are another backend's by now
        if not self._looks:
            self._refused_before = counts.refused
        last = self._looks[-1][1] if self._looks else counts
        self._looks.append((now, counts))
        while self._looks[0][0] < now - _KEPT_SECONDS:
            self._looks.popleft()
        said = [self._refusals(counts, last), *(silence.look(counts, now) for silence in self._silences)]
        reason = next(filter(None, said), None)
        if reason is None or now < self._paused_until:
            return None
        self._paused_until = now + PAUSE_SECONDS
        self._refused_before = counts.refused
        for silence in self._silences:
            silence.forgive(now)
        return reason

    @property
    def usual(self) -> float | None:
        """Seconds that handshakes take of late, on the average; None if there were none."""
        if not self._looks:
            return None
        times = [late - early for early, late in zip(self._looks[0][1].times, self._looks[-1][1].times, strict=True)]
        counted = sum(times)
        return sum(12e-6 * 2**bucket * count for bucket, count in enumerate(times)) / counted if counted else None

    def _refusals(self, counts: Handshakes, last: Handshakes) -> str | None:
        """Several in a row were refused, or most of those since the last look."""
        accepted, newly = counts.answered - last.answered, counts.refused - last.refused
        if accepted:
            self._refused_before = counts.refused
        refused = max(counts.refused - self._refused_before, newly if newly > accepted else 0)
        return f"{refused} connections refused" if refused >= FEWEST_REFUSED else None
