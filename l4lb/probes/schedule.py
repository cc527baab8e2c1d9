"""When each check is due. Nothing here waits or reads a clock: times are arguments, in seconds of one clock.

A job has a place of its own in its interval, by a hash of its name. So the jobs of many backends are spread over the
interval however they came to be there, all at once or one by one, and after a restart they are where they were. A
regular time that cannot be kept is left out, and never moves the later ones.
"""

import hashlib
import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

_HASH_BYTES = 6  # so many that a float holds the number exactly
_STALE = 64  # entries of the heap that no longer count are cleared away when they are so many, and the most of it


@dataclass(slots=True)
class _Job:
    """One job's plan.

    Attributes:
        due: the next of its regular times.
        entry: the number of the heap's entry that counts; 0: none, as it is under way.
        began: when it was last handed out; None: never.
        again: it is wanted once more as soon as it ends.
    """

    interval: float
    jitter: float
    phase: float
    due: float
    entry: int = 0
    began: float | None = None
    again: bool = False


class Schedule:
    """Hands out the names of jobs when they are due; a job that was handed out is not due again before :meth:`done`.

    `chance` gives numbers from 0 up to, but not including, 1; jitter is taken from it.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._jobs: dict[str, _Job] = {}
        self._heap: list[tuple[float, int, str]] = []  # when, number of the entry, job
        self._entries = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, name: str, interval: float, jitter: float, now: float) -> None:
        """Adds a job, or begins one of that name anew; it is due within an interval.

        Args:
            name: of the job, which decides its place in the interval.
            interval: seconds between its regular times.
            jitter: by how much of an interval, 0 to 1, it may begin later than its regular time.
            now: the time.
        """
        job = _Job(interval, jitter, phase(name), 0.0)
        job.due = _own_time(job, now)
        self._jobs[name] = job
        self._plan(name, job, now)

    def drop(self, name: str) -> None:
        """Forgets a job, also one that is under way."""
        del self._jobs[name]

    def set_interval(self, name: str, interval: float, now: float) -> None:
        """Changes a job's interval.

        With a shorter one it is next due that long after it last began, if not before. With a longer one it returns to
        its own place, so that backends that failed and came back together are not checked together from then on.
        """
        job = self._jobs[name]
        if interval == job.interval:
            return
        shorter, job.interval = interval < job.interval, interval
        if shorter and job.began is not None:
            job.due = min(job.due, _after(job.began, interval, now))
        else:
            job.due = _own_time(job, now)
        if job.entry:
            self._plan(name, job, now)

    def probe_now(self, name: str, now: float) -> None:
        """Makes a job due at once, or as soon as it ends if it is under way; its regular times stay."""
        job = self._jobs[name]
        if job.entry:
            self._push(name, job, now)
        else:
            job.again = True

    def next_time(self) -> float | None:
        """When :meth:`take` has something to hand out, unless the plan changes."""
        while self._heap:
            at, entry, name = self._heap[0]
            if self._counts(entry, name):
                return at
            heapq.heappop(self._heap)
        return None

    def take(self, now: float, most: int) -> list[tuple[str, float]]:
        """The jobs that are due, `most` at once, and when each should have begun; they are under way from now on."""
        taken: list[tuple[str, float]] = []
        while len(taken) < most and (at := self.next_time()) is not None and at <= now:
            name = heapq.heappop(self._heap)[2]
            job = self._jobs[name]
            job.entry, job.began = 0, now
            taken.append((name, at))
        return taken

    def done(self, name: str, now: float) -> None:
        """A job that was handed out has ended."""
        job = self._jobs[name]
        job.due = _after(job.due, job.interval, now)
        if job.again:
            job.again = False
            self._push(name, job, now)
        else:
            self._plan(name, job, now)

    def _plan(self, name: str, job: _Job, now: float) -> None:
        self._push(name, job, max(now, job.due + job.jitter * job.interval * self._chance()))

    def _push(self, name: str, job: _Job, at: float) -> None:
        self._entries += 1
        job.entry = self._entries
        heapq.heappush(self._heap, (at, job.entry, name))
        if len(self._heap) > 2 * len(self._jobs) + _STALE:
            self._heap = [entry for entry in self._heap if self._counts(entry[1], entry[2])]
            heapq.heapify(self._heap)

    def _counts(self, entry: int, name: str) -> bool:
        job = self._jobs.get(name)
        return job is not None and job.entry == entry


def phase(name: str) -> float:
    """Where in its interval a job of that name is, from 0 up to 1."""
    digest = hashlib.blake2b(name.encode(), digest_size=_HASH_BYTES, person=b"l4lb phase").digest()
    return int.from_bytes(digest, "little") / (1 << 8 * _HASH_BYTES)


def _own_time(job: _Job, now: float) -> float:
    """The first time after `now` that is in the job's own place of its interval."""
    return _after(job.phase * job.interval, job.interval, now)


def _after(time: float, interval: float, now: float) -> float:
    """The first time after `now` that is whole intervals before or after `time`."""
    found = time + math.floor((now - time) / interval + 1) * interval
    return found if found > now else found + interval  # rounded down to `now` itself
