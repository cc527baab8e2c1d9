"""A client with long-lived connections, to be run in the client's namespace.

    python -m l4lb.lab.connections ADDRESS PORT COUNT [--pause S] [--patience S] [--reopen] [--from ADDRESS ...]

It opens them, prints ``open``, and asks over all of them again and again until a line comes in on standard input. Then
it prints as JSON what became of each, and keeps those open that still are until standard input ends. Times are those of
the monotonic clock, which is the same in all processes.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from l4lb.errors import L4lbError
from l4lb.lab.namespace import Namespace
from l4lb.model import IPAddress

_REQUEST = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n"
_REQUESTS_PER_SECOND = 2_500  # over all connections: more would tell nothing more
_LONGEST_RUN = 120  # seconds


@dataclass(slots=True)
class Fate:
    """What became of a connection.

    Attributes:
        backend: the server's name.
        began: when it was asked for.
        opened: when the first answer had come.
        ended: when it broke, or was reported.
        error: how it broke; empty if it did not.
    """

    backend: str
    began: float
    opened: float
    ended: float
    error: str


class Connections:
    """Connections that go on in a client; made by :func:`connections`."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def report(self) -> list[Fate]:
        """Ends the asking; what became of all connections. Those that did not break stay open, and silent."""
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(BrokenPipeError):  # a client that died says why on its output
            stdin.write(b"\n")
            stdin.flush()
        return [Fate(**fate) for fate in json.loads(self._line())]

    def close(self) -> None:
        """Closes those that are open."""
        self._process.communicate(timeout=30)

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise L4lbError("the client of long-lived connections failed; it says why above")
        return line

    def wait_until_open(self) -> None:
        """Returns when every connection had an answer."""
        self._line()


@contextmanager
def connections(
    namespace: Namespace,
    address: IPAddress,
    port: int,
    count: int,
    pause: float = 0,
    patience: float = 10,
    reopen: bool = False,
    sources: Sequence[IPAddress] = (),
) -> Iterator[Connections]:
    """So many connections, open and in use as long as the with block runs.

    Args:
        namespace: where the client is.
        address: of the VIP.
        port: of the VIP.
        count: how many.
        pause: seconds between two requests of a connection; 0: as it seems good for so many.
        patience: seconds for an answer.
        reopen: whether another connection is opened for each that breaks.
        sources: the client's addresses to connect from, in turn; none: any.
    """
    words = ["-m", "l4lb.lab.connections", str(address), str(port), str(count)]
    words += ["--pause", str(pause or max(0.02, count / _REQUESTS_PER_SECOND)), "--patience", str(patience)]
    words += ["--reopen"] if reopen else []
    words += ["--from", *map(str, sources)] if sources else []
    process = subprocess.Popen(namespace.command(sys.executable, *words), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        try:
            made = Connections(process)
            made.wait_until_open()
            yield made
        finally:
            process.kill()


class _Client:
    """All connections, and what became of those that there were before."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._stop = asyncio.Event()
        self._fates: list[Fate] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def run(self) -> None:
        opened = [asyncio.Event() for _ in range(self._options.count)]
        users = [asyncio.create_task(self._use(number, event)) for number, event in enumerate(opened)]
        await asyncio.gather(*(event.wait() for event in opened))
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        self._stop.set()
        await asyncio.gather(*users)
        print(json.dumps([asdict(fate) for fate in self._fates]), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for writer in self._writers:
            writer.close()
        for writer in self._writers:
            with suppress(OSError):
                await writer.wait_closed()

    async def _use(self, number: int, opened: asyncio.Event) -> None:
        """One connection, and those that replace it."""
        while True:
            fate = Fate("", time.monotonic(), 0, 0, "")
            writer = None
            try:
                sources = self._options.sources
                source = (sources[number % len(sources)], 0) if sources else None
                async with asyncio.timeout(self._options.patience):
                    reader, writer = await asyncio.open_connection(
                        self._options.address, self._options.port, local_addr=source
                    )
                await self._ask_on(reader, writer, fate, opened)
            except (OSError, EOFError, TimeoutError) as error:
                fate.error = type(error).__name__
            fate.ended = time.monotonic()
            self._fates.append(fate)
            opened.set()
            if writer is not None and fate.error:
                writer.close()
            elif writer is not None:
                self._writers.append(writer)
            if self._stop.is_set() or not self._options.reopen:
                return

    async def _ask_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fate: Fate, opened: asyncio.Event
    ) -> None:
        """Asks again and again; another backend's answer is an error."""
        while not fate.error:
            async with asyncio.timeout(self._options.patience):
                writer.write(_REQUEST)
                await reader.readuntil(b"\r\n\r\n")
                answer = (await reader.readuntil(b"\n")).decode().strip()
            if not fate.backend:
                fate.backend, fate.opened = answer, time.monotonic()
                opened.set()
            elif answer != fate.backend:
                fate.error = f"moved to {answer}"
            if self._stop.is_set():
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(self._options.pause):
                    await self._stop.wait()


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--pause", type=float, default=0.02)
    parser.add_argument("--patience", type=float, default=10)
    parser.add_argument("--reopen", action="store_true")
    parser.add_argument("--from", dest="sources", nargs="*", default=[])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(asyncio.wait_for(_Client(parser.parse_args()).run(), _LONGEST_RUN))


if __name__ == "__main__":
    _main()
