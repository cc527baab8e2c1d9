"""Worker processes that are none: jobs are kept, and a test says what comes of them."""

import time
from collections.abc import Iterable

from l4lb.health.result import Result
from l4lb.probes.job import Job, JobId
from l4lb.probes.pool import OnResult


class FakeProbers:
    """In place of :class:`~l4lb.probes.pool.Probers`, with what it promises.

    Attributes:
        jobs: those that there are, by id.
        intervals: at which each is done by now.
        done: what was asked for, in order: "set" and "drop" only of what was changed by it.
    """

    def __init__(self, workers: int, on_result: OnResult) -> None:
        assert workers >= 1
        self.jobs: dict[JobId, Job] = {}
        self.intervals: dict[JobId, float] = {}
        self.done: list[tuple[str, JobId]] = []
        self.running = False
        self._on_result = on_result

    async def start(self) -> None:
        self.running = True

    async def close(self) -> None:
        self.running = False

    def set(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            if self.jobs.get(job.id) != job:
                self.done.append(("set", job.id))
                self.jobs[job.id] = job
                self.intervals[job.id] = job.interval

    def drop(self, ids: Iterable[JobId]) -> None:
        for id_ in sorted(set(ids) & self.jobs.keys()):
            self.done.append(("drop", id_))
            del self.jobs[id_], self.intervals[id_]

    def probe_now(self, ids: Iterable[JobId]) -> None:
        self.done += [("probe", id_) for id_ in ids if id_ in self.jobs]

    def set_interval(self, id_: JobId, seconds: float) -> None:
        if id_ in self.jobs:
            self.intervals[id_] = seconds

    def tell(self, id_: JobId, result: str, advice: str | None = None) -> None:
        """Has a probe end just now: `result` is empty for one that passed, or why it failed."""
        assert id_ in self.jobs, "a worker tells nothing of what it has not"
        now = time.monotonic()
        self._on_result(id_, Result(not result, result, 0.0, advice), now, now)
