"""What checks take of the machine, and how punctual they are, against nginx behind thousands of addresses."""

import asyncio
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

import click
from pyroute2 import netns

from l4lb.health.check import Check
from l4lb.health.result import Result
from l4lb.lab.servers import HTTP_PORT, start_servers
from l4lb.lab.topology import Lab, Layout, lab
from l4lb.probes.job import Job, JobId
from l4lb.probes.pool import Probers, default_workers
from l4lb.probes.schedule import phase
from l4lb.probes.target import Target

_NETWORK = IPv4Network("10.64.0.0/16")  # all of it is the one server
_TICKS = os.sysconf("SC_CLK_TCK")
_TIMEOUT = 1.0  # seconds; as long as this, so that what is slow here is seen as late, and not as failed


@dataclass(frozen=True, slots=True)
class Load:
    """So many checks, so often."""

    check: str
    backends: int
    interval: float


_LOADS = (Load("tcp", 1_000, 2.0), Load("http", 5_000, 5.0))


@dataclass(slots=True)
class _Watched:
    """Probes that began between two moments; by then, they have all ended."""

    interval: float
    begin: float
    end: float
    late: list[float] = field(default_factory=list)  # seconds
    failures: Counter[str] = field(default_factory=Counter)

    def on_result(self, id_: JobId, result: Result, started: float, _ended: float) -> None:
        """Takes a result down. A regular time is the job's phase and whole intervals, by the clock of all processes."""
        if self.begin <= started < self.end:
            self.late.append((started - phase(id_) * self.interval) % self.interval)
            if not result.ok:
                self.failures[result.reason] += 1


@click.command()
@click.option("--seconds", default=20.0, show_default=True, help="To measure each.")
@click.option("--backends", type=click.IntRange(1, 60_000), help="Other than 1,000 by tcp and 5,000 by http.")
@click.option("--only", type=click.Choice([load.check for load in _LOADS]), help="One of the two.")
@click.option("--workers", default=default_workers(), show_default=True, help="Worker processes.")
def health(seconds: float, backends: int | None, only: str | None, workers: int) -> None:
    """CPU time of health checks, and how late they begin."""
    with _server() as made:
        for load in _LOADS:
            if only in (None, load.check):
                chosen = Load(load.check, backends or load.backends, load.interval)
                asyncio.run(_measure(chosen, seconds, workers, made))


@contextmanager
def _server() -> Iterator[Lab]:
    """A lab whose server has all addresses of the network; this process is at the client for as long."""
    with lab(Layout.SEGMENT, servers=1) as made:
        (server,) = made.servers
        server.namespace.ip(f"route add local {_NETWORK} dev lo")
        made.client.ip(f"route add {_NETWORK} via {server.address}")
        start_servers(made)
        netns.pushns(made.client.name)
        try:
            yield made
        finally:
            netns.popns()


async def _measure(load: Load, seconds: float, workers: int, made: Lab) -> None:
    begin = time.monotonic() + load.interval + 1  # by then each was made once
    watched = _Watched(load.interval, begin, begin + seconds)
    probers = Probers(workers, watched.on_result)
    await probers.start()
    probers.set(_jobs(load))
    servers = made.servers[0].namespace.processes()
    await asyncio.sleep(begin - time.monotonic())
    before = [_cpu(probers.processes), _cpu([os.getpid()]), _cpu(servers)]
    await asyncio.sleep(watched.end - time.monotonic())
    after = [_cpu(probers.processes), _cpu([os.getpid()]), _cpu(servers)]
    memory = [_memory(pid) for pid in probers.processes]
    await asyncio.sleep(_TIMEOUT)
    await probers.close()
    _report(load, seconds, watched, [(end - start) / seconds for start, end in zip(before, after, strict=True)], memory)


def _jobs(load: Load) -> list[Job]:
    check = Check.parse(load.check)
    addresses = (str(_NETWORK[number]) for number in range(1, load.backends + 1))
    return [
        Job(
            f"{address} {load.check}",
            check,
            Target(address, HTTP_PORT, "192.0.2.1", 80, "tcp", "web"),
            load.interval,
            _TIMEOUT,
        )
        for address in addresses
    ]


def _cpu(pids: list[int]) -> float:
    """Seconds of processor time that processes took, in the kernel and outside."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime and stime, fields 14 and 15
    return ticks / _TICKS


def _memory(pid: int) -> tuple[float, float]:
    """What a process holds in memory, and what of it is in no file, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    sizes = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if "kB" in value}
    return sizes["VmRSS"] / 1000, sizes["RssAnon"] / 1000


def _report(
    load: Load, seconds: float, watched: _Watched, shares: list[float], memory: list[tuple[float, float]]
) -> None:
    workers, parent, servers = shares
    late = sorted(watched.late)
    expected = load.backends * seconds / load.interval
    failed = ", ".join(f"{count:,} {reason}" for reason, count in watched.failures.most_common(3)) or "none"
    click.echo(f"{load.backends:,} backends, {load.check} every {load.interval:g} s, measured for {seconds:g} s")
    click.echo(f"  probes      {len(late):,} of {expected:,.0f}; failed: {failed}")
    click.echo(
        f"  late by     {statistics.median(late) * 1000:.1f} ms in the middle,"
        f" {late[int(len(late) * 0.99)] * 1000:.1f} ms at 99 %, {late[-1] * 1000:.1f} ms at most"
    )
    click.echo(
        f"  of a core   {workers + parent:.1%}: {len(memory)} workers {workers:.1%}, the daemon's side {parent:.1%};"
        f" besides, the servers {servers:.1%}"
    )
    click.echo(
        f"  memory      {', '.join(f'{held:.0f} MB' for held, _ in memory)} for the workers,"
        f" of which {', '.join(f'{own:.0f} MB' for _, own in memory)} no other process shares\n"
    )
