"""A connection to a target, plain or by TLS."""

import asyncio
import ssl
from typing import Self

from l4lb.probes.sockets import connect
from l4lb.probes.target import Target, Unwell

_PIECE = 1 << 16  # bytes read at a time


class Stream:
    """A TCP connection; an asynchronous context manager, that ends it by a reset.

    TLS is spoken through memory instead of asyncio's transports: so nothing of it lives on after a probe that was given
    up, and a handshake takes half the time.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._tls: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()

    async def __aenter__(self) -> Self:
        self._sock = await connect(self._target)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sock.close()

    async def start_tls(self, context: ssl.SSLContext, name: str | None) -> ssl.SSLObject:
        """Makes the handshake, asking for `name`.

        Raises:
            OSError, Unwell: it failed.
        """
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
            except ssl.SSLZeroReturnError:
                raise Unwell("connection closed in the TLS handshake") from None
        await self._flush()
        self._tls = tls
        return tls

    async def send(self, data: bytes) -> None:
        """Sends all of it."""
        if self._tls is None:
            await self._loop.sock_sendall(self._sock, data)
        else:
            self._tls.write(data)
            await self._flush()

    async def receive(self) -> bytes:
        """The next piece; none when the other side has ended."""
        if self._tls is None:
            return await self._loop.sock_recv(self._sock, _PIECE)
        while True:
            try:
                return self._tls.read(_PIECE)
            except ssl.SSLWantReadError:
                await self._feed()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._loop.sock_sendall(self._sock, self._outgoing.read())

    async def _feed(self) -> None:
        data = await self._loop.sock_recv(self._sock, _PIECE)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
