"""What a worker process is told to do, and what it tells; as values, and as they are on the channel."""

from dataclasses import astuple, dataclass, replace
from typing import Any, Self

from l4lb.health.check import Check
from l4lb.health.result import Result
from l4lb.probes.target import NoWay, Target, Way

JobId = str  # stable over restarts, as a job's place in its interval follows from it


@dataclass(frozen=True, slots=True)
class Job:
    """A check of one backend, again and again.

    Attributes:
        interval: seconds from one beginning to the next.
        timeout: seconds after which a probe has failed.
        jitter: by how much of an interval, 0 to 1, a probe may begin later than its regular time.
    """

    id: JobId
    check: Check
    target: Target
    interval: float
    timeout: float
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class Order:
    """A job as a worker has it; `number` is what the worker calls it by, and another one whenever the job changes."""

    number: int
    job: Job

    def packed(self) -> list[object]:
        """As it is sent."""
        job, target = self.job, self.job.target
        place = (target.address, target.port, target.vip_address, target.vip_port, target.protocol, target.vip_name)
        return [self.number, job.id, str(job.check), place, _packed(target.way), job.interval, job.timeout, job.jitter]

    @classmethod
    def unpacked(cls, values: list[Any]) -> Self:
        """From what was sent.

        Raises:
            UsageError: this process does not know the check.
        """
        number, id_, check, place, way, interval, timeout, jitter = values
        target = replace(Target(*place), way=_unpacked(way))
        return cls(number, Job(id_, Check.parse(check), target, interval, timeout, jitter))


def _packed(way: Way | NoWay | None) -> object:
    return way.reason if isinstance(way, NoWay) else astuple(way) if way is not None else None


def _unpacked(way: Any) -> Way | NoWay | None:
    return NoWay(way) if isinstance(way, str) else Way(*way) if way is not None else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the probe of the job `number` went, and when it started and ended, by the clock of all processes."""

    number: int
    result: Result
    started: float
    ended: float

    def packed(self) -> list[object]:
        """As it is sent."""
        result = self.result
        return [self.number, result.ok, result.reason, result.latency, result.advice, self.started, self.ended]

    @classmethod
    def unpacked(cls, values: object) -> Self:
        """From what was sent.

        Raises:
            ValueError: it is something else.
        """
        match values:
            case [
                int(number),
                bool(ok),
                str(reason),
                float(latency),
                str() | None as advice,
                float(started),
                float(ended),
            ]:
                return cls(number, Result(ok, reason, latency, advice), started, ended)
        raise ValueError("no outcome of a probe")
