"""What a worker does when it is slow itself: in this process, as it has to be made slow."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from l4lb.health.check import Check
from l4lb.probes.channel import Channel, Kind
from l4lb.probes.job import Job, Order, Outcome
from l4lb.probes.target import Target
from l4lb.probes.worker import serve

_FILES = 1_000


@asynccontextmanager
async def working(outcomes: dict[int, list[Outcome]], files: int = _FILES) -> AsyncIterator[Channel]:
    """The daemon's end of a worker's channel; outcomes by their jobs' numbers."""

    def received(kind: Kind, content: object) -> None:
        if kind is Kind.RESULTS:
            assert isinstance(content, list)
            for outcome in map(Outcome.unpacked, content):
                outcomes.setdefault(outcome.number, []).append(outcome)

    ours, theirs = socket.socketpair()
    worker = asyncio.create_task(serve(theirs, files))
    channel = Channel(received, lambda _: None)
    await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=ours)
    try:
        yield channel
    finally:
        channel.close()
        await worker


@asynccontextmanager
async def answering(seconds: float) -> AsyncIterator[int]:
    """Answers HTTP requests so long after they came; its port."""

    async def serve_(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await reader.read(1024):
                await asyncio.sleep(seconds)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve_, "127.0.0.1")
    async with server:
        yield server.sockets[0].getsockname()[1]


def order(number: int, check: str, port: int, interval: float, timeout: float) -> list[object]:
    target = Target("127.0.0.1", port, "192.0.2.1", 80, "tcp", "web")
    return Order(number, Job(f"job {number}", Check.parse(check), target, interval, timeout)).packed()


def test_no_backend_fails_because_the_worker_slept() -> None:
    """It answers in time, but the worker does not run until the time is up; then it is asked again."""

    async def test() -> None:
        outcomes: dict[int, list[Outcome]] = {}
        async with answering(0.1) as port, working(outcomes) as channel:
            channel.send(Kind.SET, [order(1, "http", port, 3600, 0.3)])
            channel.send(Kind.PROBE, ["job 1"])
            await asyncio.sleep(0.05)
            time.sleep(0.5)  # noqa: ASYNC251 - all of this process stands still
            await asyncio.sleep(0.3)
        assert [outcome.result.ok for outcome in outcomes[1]] == [True]

    asyncio.run(test())


def test_a_worker_that_always_sleeps_tells_of_failures() -> None:
    async def test() -> None:
        outcomes: dict[int, list[Outcome]] = {}
        async with answering(3600) as port, working(outcomes) as channel:
            channel.send(Kind.SET, [order(1, "http", port, 3600, 0.1)])
            channel.send(Kind.PROBE, ["job 1"])
            for _ in range(2):
                await asyncio.sleep(0.05)
                time.sleep(0.25)  # noqa: ASYNC251 - as above
            await asyncio.sleep(0.05)
        assert [outcome.result.ok for outcome in outcomes[1]] == [False]

    asyncio.run(test())


def test_a_library_that_loads_slowly_delays_no_other_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("l4lb.probes.worker.prepare", lambda kind: time.sleep(0.35 if kind == "http" else 0))

    async def test() -> None:
        outcomes: dict[int, list[Outcome]] = {}
        async with answering(0) as port, working(outcomes) as channel:
            channel.send(Kind.SET, [order(1, "http", port, 0.1, 1), order(2, "tcp", port, 0.05, 1)])
            await asyncio.sleep(0.25)
            assert 1 not in outcomes
            assert len(outcomes[2]) >= 3
            await asyncio.sleep(0.35)
        assert outcomes[1][0].result.ok

    asyncio.run(test())


def test_with_few_files_probes_wait_for_each_other() -> None:
    """None fails for lack of files, and none is left out."""

    async def test() -> None:
        outcomes: dict[int, list[Outcome]] = {}
        under_way, most = 0, 0

        async def serve_(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.06)
            under_way -= 1
            writer.close()

        server = await asyncio.start_server(serve_, "127.0.0.1")
        async with server, working(outcomes, files=64 + 4 * 3) as channel:
            port = server.sockets[0].getsockname()[1]
            channel.send(Kind.SET, [order(number, "http", port, 3600, 1) for number in range(12)])
            channel.send(Kind.PROBE, [f"job {number}" for number in range(12)])
            before = time.process_time()
            await asyncio.sleep(0.4)
            assert time.process_time() - before < 0.15, "those that wait do not do so quietly"
        assert sorted(outcomes) == list(range(12))
        assert most == 3

    asyncio.run(test())


def test_dropped_jobs_end_their_probes() -> None:
    async def test() -> None:
        outcomes: dict[int, list[Outcome]] = {}
        asked, left = asyncio.Event(), asyncio.Event()

        async def serve_(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.set()
            with contextlib.suppress(ConnectionError):
                while await reader.read(1024):
                    pass
            left.set()
            writer.close()

        server = await asyncio.start_server(serve_, "127.0.0.1")
        async with server, working(outcomes) as channel:
            channel.send(Kind.SET, [order(1, "http", server.sockets[0].getsockname()[1], 3600, 60)])
            channel.send(Kind.PROBE, ["job 1"])
            async with asyncio.timeout(2):
                await asked.wait()
                channel.send(Kind.DROP, ["job 1"])
                await left.wait()
        assert not outcomes

    asyncio.run(test())
