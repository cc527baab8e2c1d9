"""Watching over backends: checks out to the worker processes, their results into the book of health."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator

from l4lb.health.book import HealthBook, Key
from l4lb.health.result import Result
from l4lb.model import Backend, Config, Vip
from l4lb.probes.job import Job, JobId
from l4lb.probes.pool import Probers, default_workers
from l4lb.probes.target import Target

log = logging.getLogger(__name__)

Changed = Callable[[Vip, Backend, str, str], None]
"""Called when what is known of a backend moves its weight: whose, what it is now, and why."""


class Watching:
    """Keeps the probes of a configuration going.

    Args:
        book: what is known.
        changed: see :data:`Changed`; it is called by results, one after another.
    """

    def __init__(self, book: HealthBook, changed: Changed) -> None:
        self.book = book
        self._changed = changed
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
        jobs = {job.id: (job, place) for job, place in _jobs(config)}
        self._probers.drop(self._jobs.keys() - jobs.keys())
        self._jobs = {id_: place for id_, (_, place) in jobs.items()}
        self._ids = {}
        for id_, (vip, backend, _) in self._jobs.items():
            self._ids.setdefault((vip.name, backend.endpoint), []).append(id_)
        self._probers.set(job for job, _ in jobs.values())
        for id_ in self._jobs:
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


def _jobs(config: Config) -> Iterator[tuple[Job, tuple[Vip, Backend, int]]]:
    for vip in config.vips:
        for backend in vip.backends:
            rules = vip.rules_for(backend)
            target = Target(
                address=str(backend.endpoint.address),
                port=rules.check_port or backend.endpoint.port,
                vip_address=str(vip.service.address),
                vip_port=vip.service.first_port,
                protocol=vip.protocol.label,
                vip_name=vip.name,
            )
            for index, check in enumerate(vip.checks):
                id_ = f"{vip.name} {backend.endpoint} {check}"
                job = Job(id_, check, target, rules.interval, rules.timeout, rules.jitter)
                yield job, (vip, backend, index)
