"""The channel between the daemon and a worker process: messages of msgpack, each a kind and its content."""

import asyncio
import enum
from collections.abc import Callable
from typing import cast

import msgpack

_MAX_MESSAGE = 16 << 20  # bytes


class Kind(enum.StrEnum):
    """What a message says."""

    SET = "set"  # to the worker: orders
    DROP = "drop"  # the ids of jobs that end
    PROBE = "probe"  # the ids of jobs to do at once
    INTERVAL = "interval"  # pairs of id and seconds
    RESULTS = "results"  # to the daemon: outcomes
    BEAT = "beat"  # every second: how many probes began, and the longest delay of one in seconds


class Channel(asyncio.Protocol):
    """One end of it, in either process.

    Args:
        received: called with each message. It raises ValueError for one that is not as it should be; then the channel
            is closed, as after all that cannot be understood.
        lost: called once, when it is closed: with True if by this end's :meth:`close`.
    """

    def __init__(self, received: Callable[[Kind, object], None], lost: Callable[[bool], None]) -> None:
        self._received = received
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._closing = False
        self._unpacker = msgpack.Unpacker(max_buffer_size=_MAX_MESSAGE)

    def send(self, kind: Kind, content: object) -> None:
        """Sends a message, as soon as the other end takes it; none if the channel is closed."""
        if self._transport is not None:
            self._transport.write(msgpack.packb((kind.value, content)))

    def close(self) -> None:
        """Closes this end; what was sent still arrives."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        try:
            self._unpacker.feed(data)
            for kind, content in self._unpacker:
                self._received(Kind(kind), content)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException):
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Of asyncio."""
        self._transport = None
        self._lost(self._closing)
