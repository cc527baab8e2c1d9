"""Worker processes: real ones, against servers on loopback."""

import asyncio
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ParamSpec

import pytest

from l4lb.health.check import Check
from l4lb.health.result import Result
from l4lb.probes.job import Job, JobId
from l4lb.probes.pool import Probers, default_workers
from l4lb.probes.target import Target

TCP, HTTP = Check.parse("tcp"), Check.parse("http")
_WELL = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_UNWELL = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
_ALLOWED = 1 << 5 | 1 << 6 | 1 << 7 | 1 << 13  # CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_NET_RAW

_P = ParamSpec("_P")


def in_loop(test: Callable[_P, Coroutine[Any, Any, None]]) -> Callable[_P, None]:
    """A test that is a coroutine."""

    @functools.wraps(test)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@dataclass
class Told:
    """Results, as they came."""

    probers: Probers
    results: list[tuple[JobId, Result, float, float]] = field(default_factory=list)

    def of(self, id_: JobId) -> list[Result]:
        return [result for of, result, _, _ in self.results if of == id_]

    def starts(self, id_: JobId) -> list[float]:
        return [started for of, _, started, _ in self.results if of == id_]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - it is not always a result that is waited for
                await asyncio.sleep(0.01)

    async def more(self, id_: JobId, number: int = 1) -> None:
        """Waits for so many results of a job besides those that there are."""
        before = len(self.of(id_))
        await self.until(lambda: len(self.of(id_)) >= before + number)


@asynccontextmanager
async def probing(workers: int = 1, patience: float = 5) -> AsyncIterator[Told]:
    told = Told(Probers(workers, lambda *result: told.results.append(result), patience))
    await told.probers.start()
    try:
        yield told
    finally:
        await told.probers.close()


@asynccontextmanager
async def server(answer: bytes | None = _WELL) -> AsyncIterator[int]:
    """Gives each connection the same answer, or takes it and says nothing; its port, on all of 127.0.0.0/8."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await reader.read(1024) and answer is not None:
                writer.write(answer)
            else:
                await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "0.0.0.0", backlog=1024)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


def job(
    id_: JobId,
    port: int,
    check: Check = TCP,
    interval: float = 0.1,
    timeout: float = 1.0,
    address: str = "127.0.0.1",
) -> Job:
    return Job(id_, check, Target(address, port, "192.0.2.1", 80, "tcp", "web"), interval, timeout)


def gone(pid: int) -> bool:
    """Whether a process has ended, whoever is to ask for its status."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


@in_loop
async def test_results_come_with_their_times() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        async with server() as port, probing() as told:
            before = time.monotonic()
            told.probers.set([job("up", port), job("down", closed.getsockname()[1])])
            await told.more("up", 3)
            await told.more("down")
            for _, result, started, ended in told.results:
                assert before <= started <= ended <= time.monotonic()
                assert 0 < result.latency <= ended - started
            assert all(result.ok for result in told.of("up"))
            first, _, third = told.starts("up")[:3]
            assert third - first == pytest.approx(0.2, abs=0.08)
            assert not told.of("down")[0].ok
            assert "refused" in told.of("down")[0].reason


@in_loop
async def test_no_job_no_process() -> None:
    async with server() as port, probing(2) as told:
        assert told.probers.processes == []
        told.probers.set([job("a", port)])
        await told.more("a")
        (pid,) = told.probers.processes
        told.probers.drop(["a", "unheard of"])
        await told.until(lambda: gone(pid))
        told.probers.set([job("a", port)])
        await told.more("a")
    assert told.probers.processes == []


@in_loop
async def test_backends_are_spread_over_the_workers() -> None:
    async with probing(2) as told:
        told.probers.set([job(f"b{number}", 1, address=f"127.0.1.{number}", interval=60) for number in range(40)])
        await told.until(lambda: len(told.probers.processes) == 2)
    assert default_workers() in (1, 2)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSTOP])
@in_loop
async def test_a_worker_that_dies_or_is_stuck_is_replaced(
    ending: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    """Its jobs go on, at the intervals that they have by now, and the log says so once."""
    stuck = ending is signal.SIGSTOP
    async with server() as port, probing(patience=1.2 if stuck else 60) as told:
        told.probers.set([job("a", port, interval=60), job("dropped", port)])
        told.probers.set_interval("a", 0.1)
        told.probers.drop(["dropped"])
        await told.more("a")
        (pid,) = told.probers.processes
        os.kill(pid, ending)
        await told.more("a", 3)
        assert gone(pid)
        assert told.probers.processes != [pid]
        assert all(result.ok for result in told.of("a"))
        assert not told.of("dropped")
    (message,) = [record.getMessage() for record in caplog.records]
    assert ("said nothing" if stuck else "SIGKILL") in message
    assert "another one" in message


@in_loop
async def test_a_worker_that_does_not_live_is_tried_with_pauses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with server() as port, probing() as told:
        monkeypatch.setattr(sys, "executable", "/bin/false")
        told.probers.set([job("a", port)])
        await asyncio.sleep(0.15)  # time for dozens of tries
        monkeypatch.undo()
        first, second = [record.getMessage() for record in caplog.records]
        assert "ended with status 1" in first
        assert "pauses" in second
        await told.more("a")


@in_loop
async def test_a_stuck_check_delays_no_other() -> None:
    """A hundred backends that take connections and say nothing, and one that is well, in one worker."""
    async with server(None) as silent, server() as port, probing() as told:
        told.probers.set([job(f"stuck {number}", silent, HTTP, timeout=0.4) for number in range(100)])
        told.probers.set([job("well", port, HTTP, 0.05)])
        await told.more("well", 20)
        await told.more("stuck 7")
        gaps = sorted(later - sooner for sooner, later in pairwise(told.starts("well")))
        assert gaps[len(gaps) // 2] == pytest.approx(0.05, abs=0.02)
        assert gaps[-1] < 0.4
        assert all(result.ok for result in told.of("well"))
        assert "no answer" in told.of("stuck 7")[0].reason


@in_loop
async def test_a_dropped_job_tells_nothing_more() -> None:
    """Not even what has been sent already."""
    async with server(None) as silent, server() as port, probing() as told:
        told.probers.set([job("a", port), job("b", port), job("stuck", silent, HTTP, timeout=0.3)])
        await told.more("a")
        time.sleep(0.25)  # noqa: ASYNC251 - results come, and nobody reads them
        told.probers.drop(["a", "stuck"])
        before = len(told.of("a"))
        await told.more("b", 5)
        assert len(told.of("a")) == before
        assert not told.of("stuck")


@in_loop
async def test_a_job_set_anew_tells_nothing_of_what_it_was() -> None:
    async with server(_UNWELL) as bad, server() as port, probing() as told:
        told.probers.set([job("a", bad, HTTP, 0.02)])
        await told.more("a", 2)
        assert not any(result.ok for result in told.of("a"))
        told.results.clear()
        told.probers.set([job("a", port, HTTP, 0.02)])
        await told.more("a", 5)
        assert all(result.ok for result in told.of("a"))


@in_loop
async def test_a_job_set_again_as_it_is_goes_on() -> None:
    """The daemon may set all jobs whenever one changes: the others keep their intervals of now."""
    async with server() as port, probing() as told:
        slow = job("a", port, interval=3600)
        told.probers.set([slow])
        told.probers.set_interval("a", 0.05)
        told.probers.set([slow])
        await told.more("a", 3)
        told.probers.set([replace(slow, timeout=0.5)])
        told.results.clear()
        await asyncio.sleep(0.3)
        assert not told.results, "set to something else, it has the interval that it is set to"


@in_loop
async def test_probe_now() -> None:
    """Whether there is a worker yet or not."""
    async with server() as port, probing() as told:
        told.probers.set([job("a", port, interval=3600), job("b", port, interval=3600)])
        for _ in range(2):
            asked = time.monotonic()
            told.probers.probe_now(["b", "unheard of"])
            await told.more("b")
            assert told.starts("b")[-1] >= asked
        assert not told.of("a")


@in_loop
async def test_jobs_are_spread_over_the_interval() -> None:
    async with server() as port, probing() as told:
        told.probers.set([job(f"web 10.0.0.{number}:80 tcp", port, interval=0.5) for number in range(200)])
        await told.until(lambda: len(told.results) >= 200)
        parts = Counter(int(started % 0.5 * 20) for _, _, started, _ in told.results[:200])
        assert max(parts.values()) < 2 * 200 / 10


_DAEMON = """\
import asyncio
from l4lb.health.check import Check
from l4lb.probes.job import Job
from l4lb.probes.pool import Probers
from l4lb.probes.target import Target

async def main():
    probers = Probers(1, lambda *result: print(*probers.processes, flush=True))
    await probers.start()
    probers.set([Job("a", Check.parse("tcp"), Target("127.0.0.1", 1, "192.0.2.1", 80, "tcp", "web"), 0.1, 1)])
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_worker_ends_with_its_daemon() -> None:
    """Also when that is killed and can tell nobody."""
    with subprocess.Popen([sys.executable, "-c", _DAEMON], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        daemon.kill()
    deadline = time.monotonic() + 3
    while not gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@in_loop
async def test_a_worker_has_nothing_of_the_daemon(tmp_path: Path) -> None:
    """No descriptor, however it was opened, and no right but those that checks need."""
    with (tmp_path / "held").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        async with probing() as told:
            told.probers.set([job("a", 1)])
            await told.more("a")
            (pid,) = told.probers.processes
            process = Path(f"/proc/{pid}")
            files = {str(file.readlink()) for file in (process / "fd").iterdir()}
            lines = (process / "status").read_text().splitlines()
            status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
            session = os.getsid(pid)
    assert held.name not in files
    assert len([file for file in files if file.startswith("socket:")]) <= 3  # the channel, and asyncio's own pair
    for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert int(status[name], 16) & ~_ALLOWED == 0
    assert status["NoNewPrivs"] == "1"
    assert session == pid


@pytest.mark.skipif(os.geteuid() != 0, reason="runs programs as another user, which needs root")
@in_loop
async def test_a_worker_has_the_rights_that_checks_need() -> None:
    """For programs as another user, and their end; and for pings."""
    checks = {"user": "exec:command=/usr/bin/id", "ends": "exec:command=/usr/bin/yes", "ping": "icmp"}
    async with probing() as told:
        told.probers.set(job(id_, 1, Check.parse(text)) for id_, text in checks.items())
        for id_ in checks:
            await told.until(lambda id_=id_: told.of(id_))
    assert told.of("user")[0].ok, told.of("user")[0].reason
    assert "wrote more than" in told.of("ends")[0].reason
    assert told.of("ping")[0].ok, told.of("ping")[0].reason
