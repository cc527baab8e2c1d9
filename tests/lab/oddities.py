"""Servers that do what they should not: ``python -m tests.lab.oddities FILE``, where the agent says what FILE holds."""

import asyncio
import enum
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from tests.unit.probing import Handler, closing, endless, saying, serving, silent


class Port(enum.IntEnum):
    """Where each is, over IPv4 and IPv6, by TCP but for `MUTE`."""

    SILENT = 9001
    HANGING_UP = 9002
    CLOSING = 9003
    GARBAGE = 9004
    BANNER = 9005
    HALF = 9006
    LONG_HEAD = 9007
    LONG_BODY = 9008
    DRIPPING = 9009
    FULL = 9010
    MUTE = 9011
    AGENT = 9012


_HEAD = b"HTTP/1.1 200 OK\r\n"


async def _hang_up(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Ends without having listened."""


async def _drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in _HEAD + b"X-Late: " + 1_000 * b"a":
        writer.write(bytes([byte]))
        await asyncio.sleep(0.02)


def _advising(file: Path) -> Handler:
    async def advise(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(file.read_bytes())  # noqa: ASYNC240 - a short one, in memory

    return advise


_HANDLERS: dict[Port, Handler] = {
    Port.SILENT: silent,
    Port.HANGING_UP: _hang_up,
    Port.CLOSING: closing,
    Port.GARBAGE: saying(bytes(range(256))),
    Port.BANNER: saying(b"220 mail.example.test ESMTP ready\r\n", hold=True),
    Port.HALF: saying(_HEAD + b"Content-Length: 100\r\n\r\nhalf", hold=True),
    Port.LONG_HEAD: endless(_HEAD, b"X-More: of it\r\n"),
    Port.LONG_BODY: endless(_HEAD + b"\r\nbeginning", b"a" * 65_536),
    Port.DRIPPING: _drip,
}


def _full() -> list[socket.socket]:
    """A service that takes no connection out of its queue, which is full."""
    server = socket.create_server(("", Port.FULL), family=socket.AF_INET6, dualstack_ipv6=True, backlog=0)
    return [server, socket.create_connection(("127.0.0.1", int(Port.FULL)))]


async def _main(agent: Path) -> None:
    async with AsyncExitStack() as stack:
        for port, handle in {**_HANDLERS, Port.AGENT: _advising(agent)}.items():
            await stack.enter_async_context(serving(handle, None, port=int(port)))
        for sock in _full():
            stack.enter_context(sock)
        mute = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        mute.bind(("::", Port.MUTE))
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
