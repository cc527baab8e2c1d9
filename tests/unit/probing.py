"""Little servers on the loopback, good and bad ones, and probes of them."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from l4lb.health.check import Check
from l4lb.health.result import Result
from l4lb.probes.run import run
from l4lb.probes.target import Target

SOON = 0.15  # seconds: a probe's time, where it is bound to run out

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def target(port: int, address: str = "127.0.0.1") -> Target:
    return Target(address, port, vip_address="192.0.2.10", vip_port=80, protocol="tcp", vip_name="web")


@asynccontextmanager
async def serving(
    handle: Handler, address: str | None = "127.0.0.1", tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[int]:
    """Serves TCP at an address, or at all; on a port, or on a free one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the probe or the test has ended
        finally:
            writer.close()

    server = await asyncio.start_server(serve, address, port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def probe(
    text: str, handle: Handler, timeout: float = 5.0, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> Result:
    """What comes of one check of a server that answers by `handle`."""

    async def main() -> Result:
        async with serving(handle, address, tls) as port:
            return await run(Check.parse(text), target(port, address), timeout)

    return asyncio.run(main())


def probe_port(text: str, port: int, timeout: float = 5.0, address: str = "127.0.0.1") -> Result:
    """What comes of one check of a port that somebody else has."""
    return asyncio.run(run(Check.parse(text), target(port, address), timeout))


async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Takes connections and says nothing."""
    await asyncio.sleep(60)


async def closing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Ends once it has been asked."""
    await reader.read(1)


def saying(*pieces: bytes, hold: bool = False) -> Handler:
    """Says something once it has been asked, and then ends, or stays open."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)  # so that each is read alone
        if hold:
            await asyncio.sleep(60)

    return handle


def endless(beginning: bytes, piece: bytes) -> Handler:
    """Says something, and then the same thing for ever."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(beginning)
        while True:
            writer.write(piece)
            await writer.drain()

    return handle


@contextmanager
def refusing() -> Iterator[int]:
    """A TCP port that nobody else gets and nobody answers at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def probe_datagrams(text: str, answer: Callable[[bytes], list[bytes]], timeout: float = 5.0) -> Result:
    """What comes of one check of a UDP server that answers each datagram by some."""

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: object) -> None:
            for each in answer(data):
                self.transport.sendto(each, address)

    async def main() -> Result:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Server, ("127.0.0.1", 0))
        try:
            return await run(Check.parse(text), target(transport.get_extra_info("sockname")[1]), timeout)
        finally:
            transport.close()

    return asyncio.run(main())
