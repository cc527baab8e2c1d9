"""A process that probes backends, apart from the daemon: ``python -m l4lb.probes.worker FD``, FD being its channel.

It does what the channel says, tells results as they come, and ends when the channel does.
"""

import asyncio
import gc
import logging
import os
import random
import signal
import socket
import sys
from typing import Any

from l4lb.errors import UsageError
from l4lb.probes import privileges
from l4lb.probes.channel import Channel, Kind
from l4lb.probes.job import JobId, Order, Outcome
from l4lb.probes.run import prepare, run
from l4lb.probes.schedule import Schedule

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
_TOGETHER_SECONDS = 0.001  # results within it are told together
_AT_ONCE = 32  # probes begun before those under way get their turn: a burst must not look like slow backends
_FILES_EACH = 4  # open files that a probe may need
_FILES_OF_OUR_OWN = 64
_OUR_DELAY = 0.1  # seconds past its timeout after which a probe says more about this process than about the backend
_GOODBYE_SECONDS = 1.0  # for probes to put away what they began


class Worker:
    """Probes what its channel tells it to, `most` backends at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self.ended = asyncio.Event()
        self.channel = Channel(self._told, lambda _: self.ended.set())
        self._loop = loop
        self._most = most
        self._schedule = Schedule(random.random)
        self._orders: dict[JobId, Order] = {}
        self._under_way: dict[JobId, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()  # cancelled, but not ended
        self._preparing: dict[str, asyncio.Task[None]] = {}  # kinds of checks
        self._excused: set[JobId] = set()
        self._outcomes: list[Outcome] = []
        self._timer: asyncio.TimerHandle | None = None
        self._begun = 0
        self._longest_delay = 0.0

    async def beat(self) -> None:
        """Tells every second that this process is well, and how punctual it is."""
        while True:
            self.channel.send(Kind.BEAT, (self._begun, self._longest_delay))
            self._begun, self._longest_delay = 0, 0.0
            await asyncio.sleep(BEAT_SECONDS)

    async def stop(self) -> None:
        """Ends all probes."""
        for name in list(self._orders):
            self._drop(name)
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=_GOODBYE_SECONDS)

    def _told(self, kind: Kind, content: Any) -> None:
        now = self._loop.time()
        match kind:
            case Kind.SET:
                for values in content:
                    self._set(values, now)
            case Kind.DROP:
                for name in content:
                    self._drop(name)
            case Kind.PROBE:
                for name in filter(self._orders.__contains__, content):
                    self._schedule.probe_now(name, now)
            case Kind.INTERVAL:
                for name, seconds in content:
                    if name in self._orders:
                        self._schedule.set_interval(name, seconds, now)
        self._wake_in_time()

    def _set(self, values: list[Any], now: float) -> None:
        try:
            order = Order.unpacked(values)
        except UsageError as error:
            # The daemon knew the check, so the files of l4lb are of another version by now.
            log.warning("%s is not checked until the daemon is restarted: %s", values[1], error)
            return
        job = order.job
        self._drop(job.id)
        self._orders[job.id] = order
        self._schedule.put(job.id, job.interval, job.jitter, now)

    def _drop(self, name: JobId) -> None:
        if self._orders.pop(name, None) is None:
            return
        self._schedule.drop(name)
        self._excused.discard(name)
        if probe := self._under_way.pop(name, None):
            self._leaving.add(probe)
            probe.add_done_callback(self._leaving.discard)
            probe.cancel()

    def _wake_in_time(self) -> None:
        at = self._schedule.next_time() if len(self._under_way) < self._most else None
        if at is not None and (self._timer is None or at < self._timer.when()):
            if self._timer:
                self._timer.cancel()
            self._timer = self._loop.call_at(at, self._begin_due)

    def _begin_due(self) -> None:
        self._timer = None
        room = self._most - len(self._under_way)
        for name, at in self._schedule.take(self._loop.time(), min(room, _AT_ONCE)):
            self._under_way[name] = self._loop.create_task(self._probe(self._orders[name], at))
        self._wake_in_time()

    async def _probe(self, order: Order, at: float) -> None:
        job = order.job
        try:
            await self._prepare(job.check.kind)
            started = self._loop.time()
            self._begun += 1
            self._longest_delay = max(self._longest_delay, started - at)
            result = await run(job.check, job.target, job.timeout)
            outcome = Outcome(order.number, result, started, self._loop.time())
            if self._is_our_delay(job.id, outcome, job.timeout):
                self._schedule.probe_now(job.id, outcome.ended)
            else:
                self._tell(outcome)
        finally:
            if self._under_way.get(job.id) is asyncio.current_task():  # and was not dropped
                del self._under_way[job.id]
                self._schedule.done(job.id, self._loop.time())
                self._wake_in_time()

    async def _prepare(self, kind: str) -> None:
        """Libraries are loaded in a thread: some take so long that other probes would fail by it."""
        preparing = self._preparing.get(kind)
        if preparing is None:
            preparing = self._preparing[kind] = self._loop.create_task(asyncio.to_thread(prepare, kind))
        if not preparing.done():
            await asyncio.shield(preparing)

    def _is_our_delay(self, name: JobId, outcome: Outcome, timeout: float) -> bool:
        """Whether a backend failed because this process did not run for a while; said once, then it is taken as true.

        What came in meanwhile has been read by nobody when the time is up.
        """
        late = not outcome.result.ok and outcome.ended - outcome.started > timeout + _OUR_DELAY
        if late and name not in self._excused:
            self._excused.add(name)
            return True
        self._excused.discard(name)
        return False

    def _tell(self, outcome: Outcome) -> None:
        if not self._outcomes:
            self._loop.call_later(_TOGETHER_SECONDS, self._send_outcomes)
        self._outcomes.append(outcome)

    def _send_outcomes(self) -> None:
        self.channel.send(Kind.RESULTS, [outcome.packed() for outcome in self._outcomes])
        self._outcomes.clear()


async def serve(end: socket.socket, files: int) -> None:
    """Works until the other end of the channel is closed; `files` may be open."""
    loop = asyncio.get_running_loop()
    worker = Worker(loop, max(1, (files - _FILES_OF_OUR_OWN) // _FILES_EACH))
    await loop.create_unix_connection(lambda: worker.channel, sock=end)
    beating = asyncio.create_task(worker.beat())
    await worker.ended.wait()
    beating.cancel()
    await worker.stop()


def main() -> None:
    """The whole process."""
    # Who ends this process is the daemon. A handler is not inherited by programs of exec checks, but to ignore is.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: None)
    logging.basicConfig(format="l4lb: %(message)s")
    files = privileges.raise_open_files()
    privileges.drop()
    end = socket.socket(fileno=int(sys.argv[1]))
    end.set_inheritable(False)
    gc.freeze()  # what is there now stays: no collection needs to look at it
    asyncio.run(serve(end, files))


if __name__ == "__main__":
    try:
        main()
    finally:
        os._exit(0)  # without waiting for a thread that is stuck in a library
