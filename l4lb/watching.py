"""Watching over backends: checks out to the worker processes, their results into the book of health."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator

from l4lb.health.book import HealthBook, Key
from l4lb.health.result import Result
from l4lb.model import Backend, Config, IPAddress, Via, Vip
from l4lb.probes.job import Job, JobId
from l4lb.probes.pool import Probers, default_workers
from l4lb.probes.target import NoWay, Target, Way

log = logging.getLogger(__name__)

Changed = Callable[[Vip, Backend, str, str], None]
"""Called when what is known of a backend moves its weight: whose, what it is now, and why."""

WayTo = Callable[[Vip, Backend, Collection[IPAddress]], Way | NoWay]
"""By which way traffic reaches a backend now; the addresses are those of all VIPs."""

_SETTLE_SECONDS = 0.02  # changes of ways come in bursts


class Watching:
    """Keeps the probes of a configuration going.

    Args:
        book: what is known.
        changed: see :data:`Changed`; it is called by results, one after another.
        way_to: see :data:`WayTo`; it is called for VIPs that are probed by way of the dataplane.
    """

    def __init__(self, book: HealthBook, changed: Changed, way_to: WayTo) -> None:
        self.book = book
        self._changed = changed
        self._way_to = way_to
        self._config = Config()
        self._probers = Probers(default_workers(), self._result)
        self._jobs: dict[JobId, tuple[Vip, Backend, int]] = {}
        self._ids: dict[Key, list[JobId]] = {}

    async def start(self) -> None:
        """Begins with the checks of the configuration that is followed."""
        await self._probers.start()

    async def close(self) -> None:
        """Ends all probes."""
        await self._probers.close()

    def follow(self, config: Config) -> None:
        """Watches what this configuration has, and nothing else; what is known stays."""
        self.book.follow(config, time.monotonic())
        self._config = config
        jobs = {job.id: (job, place) for job, place in _jobs(config, self._way_to)}
        self._probers.drop(self._jobs.keys() - jobs.keys())
        self._jobs = {id_: place for id_, (_, place) in jobs.items()}
        self._ids = {}
        for id_, (vip, backend, _) in self._jobs.items():
            self._ids.setdefault((vip.name, backend.endpoint), []).append(id_)
        self._probers.set(job for job, _ in jobs.values())
        for id_ in self._jobs:
            self._pace(id_)

    async def follow_ways(self, moved: asyncio.Event) -> None:
        """Has probes go by other ways when traffic does, for ever; `moved` tells that it may."""
        while True:
            await moved.wait()
            await asyncio.sleep(_SETTLE_SECONDS)
            moved.clear()
            vips = tuple(vip for vip in self._config.vips if vip.via is Via.DATAPLANE)
            for id_ in self._probers.set(job for job, _ in _jobs(self._config, self._way_to, vips)):
                self._pace(id_)

    def suspect(self, vip: Vip, backend: Backend, reason: str) -> None:
        """Probes a backend at once that its own traffic speaks against."""
        if self.book.suspect(vip, backend, reason, time.monotonic()):
            log.info("backend %s of VIP %s is suspected: %s", backend.endpoint, vip.name, reason)
            self._hurry(self._ids.get((vip.name, backend.endpoint), ()))

    def _hurry(self, ids: Iterable[JobId]) -> None:
        for id_ in ids:
            self._pace(id_)
        self._probers.probe_now(ids)

    def _pace(self, id_: JobId) -> None:
        """Has a check done as often as is due, as its backend is now."""
        vip, backend, index = self._jobs[id_]
        self._probers.set_interval(id_, self.book.interval(vip, backend, index))

    def _result(self, id_: JobId, result: Result, started: float, ended: float) -> None:
        vip, backend, index = self._jobs[id_]
        before = self.book.interval(vip, backend, index)
        transition = self.book.observe(vip, backend, index, result, ended)
        if self.book.interval(vip, backend, index) != before or transition is not None:
            for other in self._ids[vip.name, backend.endpoint]:
                self._pace(other)
        if transition is not None:
            self._changed(vip, backend, transition.what, transition.why)


def _jobs(
    config: Config, way_to: WayTo, chosen: Iterable[Vip] | None = None
) -> Iterator[tuple[Job, tuple[Vip, Backend, int]]]:
    """Those of a configuration, or of some of its VIPs; and whose they are."""
    addresses = {vip.service.address for vip in config.vips}
    for vip in config.vips if chosen is None else chosen:
        for backend in vip.backends:
            rules = vip.rules_for(backend)
            target = Target(
                address=str(backend.endpoint.address),
                port=rules.check_port or backend.endpoint.port,
                vip_address=str(vip.service.address),
                vip_port=vip.service.first_port,
                protocol=vip.protocol.label,
                vip_name=vip.name,
                way=way_to(vip, backend, addresses) if vip.via is Via.DATAPLANE else None,
            )
            for index, check in enumerate(vip.checks):
                id_ = f"{vip.name} {backend.endpoint} {check}"
                job = Job(id_, check, target, rules.interval, rules.timeout, rules.jitter)
                yield job, (vip, backend, index)
