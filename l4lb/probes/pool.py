"""The daemon's side of the worker processes: they are there as long as there are jobs, whatever becomes of them."""

import asyncio
import contextlib
import hashlib
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from l4lb.health.result import Result
from l4lb.probes.channel import Kind
from l4lb.probes.job import Job, JobId, Order, Outcome
from l4lb.probes.process import Process, started

log = logging.getLogger(__name__)

OnResult = Callable[[JobId, Result, float, float], None]

PATIENCE_SECONDS = 5.0  # without a word from a worker, until it counts as stuck
MOST_WORKERS = 2  # where nothing else is said: each holds some 20 MB
_LOOK_SECONDS = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 30.0  # seconds between starts of a worker that does not live long
_LONG_LIFE = 30.0  # seconds after which a worker that dies is started at once again
_ORDERS_TOGETHER = 200  # in a message, so that a worker with many new jobs keeps the times of its old ones
_REMEMBERED = 60  # beats of a worker, one a second


def default_workers() -> int:
    """As many as there are processors, but no more than two."""
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)))


class Probers:
    """Probes backends in worker processes.

    Args:
        workers: how many; a backend is always with the same one. One without jobs is not started, and ended.
        on_result: called with each result: the job, the result, and when the probe started and ended. Never for a job
            that is dropped, nor for what it was before it was set anew.
        patience: seconds without a word from a worker until it is replaced.
    """

    def __init__(self, workers: int, on_result: OnResult, patience: float = PATIENCE_SECONDS) -> None:
        self._on_result = on_result
        self._places = [_Place(number, self._outcome, patience) for number in range(workers)]
        self._place_of: dict[JobId, _Place] = {}
        self._by_number: dict[int, JobId] = {}
        self._numbers = itertools.count(1)
        self._keeping: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begins to keep workers for the jobs that there are."""
        self._keeping = [asyncio.create_task(place.keep()) for place in self._places]

    async def close(self) -> None:
        """Ends the workers; no result comes after that."""
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        self._by_number.clear()

    def set(self, jobs: Iterable[Job]) -> list[JobId]:
        """Adds jobs, and changes those whose ids are known. One that is as it was goes on undisturbed.

        Answers which are new or changed.
        """
        new: dict[_Place, list[Order]] = {}
        for job in jobs:
            place = self._places[_share(job.target.address, len(self._places))]
            old = self._place_of.get(job.id)
            if old is not None:
                if old.orders[job.id].job == job:
                    continue
                self.drop([job.id])
            order = Order(next(self._numbers), job)
            self._place_of[job.id] = place
            self._by_number[order.number] = job.id
            new.setdefault(place, []).append(order)
        for place, orders in new.items():
            place.set(orders)
        return [order.job.id for orders in new.values() for order in orders]

    def drop(self, ids: Iterable[JobId]) -> None:
        """Ends jobs; those not known are none."""
        for place, known in self._known(ids):
            for id_ in known:
                del self._by_number[place.orders[id_].number]
                del self._place_of[id_]
            place.drop(known)

    def probe_now(self, ids: Iterable[JobId]) -> None:
        """Probes at once, besides the regular times; for a probe that is under way, another one follows."""
        for place, known in self._known(ids):
            place.probe_now(known)

    def set_interval(self, id_: JobId, seconds: float) -> None:
        """Has a job done at another interval than it was set with, until it is set anew to something else."""
        for place, _ in self._known([id_]):
            place.set_interval(id_, seconds)

    @property
    def longest_delay(self) -> float:
        """By how many seconds the least punctual probe of the last minute began late."""
        return max((place.longest_delay for place in self._places), default=0.0)

    @property
    def processes(self) -> list[int]:
        """Process numbers of the workers that are there."""
        return [place.process.pid for place in self._places if place.process]

    def _known(self, ids: Iterable[JobId]) -> Iterator[tuple["_Place", list[JobId]]]:
        """Ids of jobs that there are, by who does them."""
        places: dict[_Place, list[JobId]] = {}
        for id_ in ids:
            if place := self._place_of.get(id_):
                places.setdefault(place, []).append(id_)
        yield from places.items()

    def _outcome(self, outcome: Outcome) -> None:
        id_ = self._by_number.get(outcome.number)
        if id_ is None:
            return
        try:
            self._on_result(id_, outcome.result, outcome.started, outcome.ended)
        except Exception:
            log.exception("internal error about a result of %s", id_)


class _Place:
    """A worker's place, and its jobs, whichever process has it at the moment.

    Attributes:
        orders: its jobs.
        process: who does them; None if there is nobody.
    """

    def __init__(self, number: int, on_outcome: Callable[[Outcome], None], patience: float) -> None:
        self.orders: dict[JobId, Order] = {}
        self.process: Process | None = None
        self._number = number
        self._on_outcome = on_outcome
        self._patience = patience
        self._intervals: dict[JobId, float] = {}  # where it is another one than the order's
        self._hurried: set[JobId] = set()  # to be done at once when there is a worker
        self._wanted = asyncio.Event()
        self._delays: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def longest_delay(self) -> float:
        """Of the probes in the last minute, in seconds."""
        return max(self._delays, default=0.0)

    def set(self, orders: list[Order]) -> None:
        """Adds orders."""
        self.orders.update((order.job.id, order) for order in orders)
        self._wanted.set()
        self._tell(orders)

    def drop(self, ids: list[JobId]) -> None:
        """Takes jobs away."""
        for id_ in ids:
            del self.orders[id_]
            self._intervals.pop(id_, None)
            self._hurried.discard(id_)
        self._send(Kind.DROP, ids)

    def set_interval(self, id_: JobId, seconds: float) -> None:
        """Changes the interval of a job."""
        self._intervals[id_] = seconds
        self._send(Kind.INTERVAL, [(id_, seconds)])

    def probe_now(self, ids: list[JobId]) -> None:
        """Has jobs done at once, or as soon as there is a worker."""
        if self.process is None:
            self._hurried.update(ids)
        else:
            self._send(Kind.PROBE, ids)

    async def keep(self) -> None:
        """Has a process there whenever there are jobs, until cancelled."""
        loop = asyncio.get_running_loop()
        pause = 0.0
        while True:
            await self._wanted.wait()
            began = loop.time()
            why = await self._run()
            if why is None:
                if not self.orders:
                    self._wanted.clear()
                continue
            if loop.time() - began > _LONG_LIFE:
                pause = 0.0
            if pause == 0:
                log.warning("health-check worker %d %s; another one takes its place", self._number, why)
            elif pause == _FIRST_PAUSE:
                log.error("health-check worker %d %s again; it is tried further, with pauses", self._number, why)
            await asyncio.sleep(pause)
            pause = min(max(_FIRST_PAUSE, 2 * pause), _LONGEST_PAUSE)

    async def _run(self) -> str | None:
        """One process' life; why it ended, or None if there are no more jobs."""
        try:
            process = await started(self._received)
        except OSError as error:
            return f"cannot be started ({error.strerror or error})"
        try:
            self.process = process
            self._tell(list(self.orders.values()))
            self._send(Kind.PROBE, list(self._hurried))
            self._hurried.clear()
            return await self._watch(process)
        finally:
            self.process = None
            await process.close()

    async def _watch(self, process: Process) -> str | None:
        loop = asyncio.get_running_loop()
        while self.orders:
            looked = loop.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await process.ended.wait()
                return process.end
            now = loop.time()
            if now - process.heard > self._patience and now - looked < 2 * _LOOK_SECONDS:  # it was not us who slept
                process.kill()
                return f"said nothing for {now - process.heard:.0f} s and was ended"
        return None

    def _send(self, kind: Kind, content: object) -> None:
        """Tells the worker, if there is one; the next one is told all that there is."""
        if self.process is not None:
            self.process.channel.send(kind, content)

    def _tell(self, orders: list[Order]) -> None:
        """Sends orders with the intervals that they have by now."""
        for first in range(0, len(orders), _ORDERS_TOGETHER):
            some = orders[first : first + _ORDERS_TOGETHER]
            self._send(Kind.SET, [self._as_it_is(order).packed() for order in some])

    def _as_it_is(self, order: Order) -> Order:
        interval = self._intervals.get(order.job.id)
        return order if interval is None else replace(order, job=replace(order.job, interval=interval))

    def _received(self, kind: Kind, content: object) -> None:
        match kind, content:
            case Kind.RESULTS, list(outcomes):
                for outcome in outcomes:
                    self._on_outcome(Outcome.unpacked(outcome))
            case Kind.BEAT, [int(), float(delay)]:
                self._delays.append(delay)
            case _:
                raise ValueError("not what workers say")


def _share(address: str, places: int) -> int:
    """Which place has the backends of an address, whatever others there are."""
    digest = hashlib.blake2b(address.encode(), digest_size=8, person=b"l4lb worker").digest()
    return int.from_bytes(digest, "little") % places
