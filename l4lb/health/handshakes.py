"""What the connections of clients tell of a backend, beside its probes: it answers them or does not.

It never takes a backend out. It makes one suspected that has stopped to answer, and its checks decide at once; so
clients that only pretend to connect, or a service that is slow to reply, cost a probe and no more.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

LOOK_SECONDS = 0.05  # between looks at the counters
GRACE_SECONDS = 0.06  # that a handshake may take where nothing is known
GRACE_TIMES = 3  # times what nearly all handshakes took, if that is longer
REPLY_SECONDS = 0.2  # that a backend may send no data at all to those who wait for it
FEWEST = 3  # connections that have to wait
WINDOW_SECONDS = 0.2  # in which refusals are counted
FEWEST_REFUSED = 2
PAUSE_SECONDS = 1.0  # between two suspicions of one backend
_KEPT_SECONDS = 3.0
_NEARLY_ALL = 0.95


@dataclass(frozen=True, slots=True)
class Handshakes:
    """Counters of one backend, all CPUs together; ``struct handshakes`` in ``bpf/abi.h`` explains them.

    Attributes:
        times: how many handshakes took less than 16 microseconds, less than 32 and so on.
    """

    begun: int = 0
    repeated: int = 0
    answered: int = 0
    refused: int = 0
    requests: int = 0
    replies: int = 0
    times: tuple[int, ...] = ()

    def plain(self) -> dict[str, object]:
        """As it is shown."""
        shown: dict[str, object] = {name: getattr(self, name) for name in self.__slots__ if name != "times"}
        return {**shown, "times_us": list(self.times), "median_ms": round(1000 * percentile(self.times, 0.5), 3)}


def percentile(times: Sequence[int], share: float) -> float:
    """Seconds within which a share of the handshakes was answered, to a factor of two; 0 if there were none."""
    wanted, counted = share * sum(times), 0
    for bucket, count in enumerate(times):
        counted += count
        if count and counted >= wanted:
            return float(16e-6 * 2**bucket)
    return 0.0


class Witness:
    """What is known of one backend's connections of late."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, Handshakes]] = deque()
        self._paused_until = 0.0

    def look(self, counts: Handshakes, now: float) -> str | None:
        """Takes in the counters as they are now, and tells what speaks against the backend, if something does."""
        if self._looks and counts.begun < self._looks[-1][1].begun:
            self._looks.clear()  # they are another backend's by now
        self._looks.append((now, counts))
        while self._looks[0][0] < now - _KEPT_SECONDS:
            self._looks.popleft()
        if now < self._paused_until:
            return None
        reason = self._refused() or self._unanswered() or self._silent()
        if reason is not None:
            self._paused_until = now + PAUSE_SECONDS
        return reason

    @property
    def usual(self) -> float | None:
        """Seconds that handshakes take of late, on the average; None if there were none."""
        if not self._looks:
            return None
        times = [late - early for early, late in zip(self._looks[0][1].times, self._looks[-1][1].times, strict=True)]
        counted = sum(times)
        return sum(12e-6 * 2**bucket * count for bucket, count in enumerate(times)) / counted if counted else None

    def _refused(self) -> str | None:
        now, counts = self._looks[-1]
        before = next(then for at, then in self._looks if at >= now - WINDOW_SECONDS)
        refused = counts.refused - before.refused
        if refused < FEWEST_REFUSED or refused <= counts.answered - before.answered:
            return None
        return f"{refused} connections refused"

    def _unanswered(self) -> str | None:
        _, counts = self._looks[-1]
        grace = max(GRACE_SECONDS, GRACE_TIMES * percentile(counts.times, _NEARLY_ALL))
        waiting, since = self._waiting(("begun",), ("answered", "refused"), grace)
        return f"{waiting} handshakes unanswered for {1000 * since:.0f} ms" if waiting >= FEWEST else None

    def _silent(self) -> str | None:
        waiting, since = self._waiting(("requests",), ("replies",), REPLY_SECONDS)
        return f"{waiting} requests without a reply for {1000 * since:.0f} ms" if waiting >= FEWEST else None

    def _waiting(self, asked: Sequence[str], answered: Sequence[str], grace: float) -> tuple[int, float]:
        """How many have asked after the last answer, `grace` ago or earlier; and how long ago that answer was."""
        now, counts = self._looks[-1]

        def total(of: Handshakes, names: Sequence[str]) -> int:
            return sum(getattr(of, name) for name in names)

        silent = [(at, look) for at, look in self._looks if total(look, answered) == total(counts, answered)]
        since, first = silent[0]
        old = [look for at, look in silent if at <= now - grace]
        return (total(old[-1], asked) - total(first, asked), now - since) if old else (0, 0.0)
