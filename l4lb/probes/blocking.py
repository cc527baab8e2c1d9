"""Libraries that wait for a socket themselves, and let nobody else run meanwhile."""

import asyncio
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

from l4lb.probes.sockets import connect
from l4lb.probes.target import Target

T = TypeVar("T")

_GRACE = 0.1  # seconds; a thread without a connection ends at once, unless the other side made it calculate for long


async def attend(target: Target, work: Callable[[socket.socket], T]) -> T:
    """Connects, and runs `work` on the connection in a thread of its own, so that a slow one keeps nobody waiting.

    A probe that is given up shuts the connection down, which is all that `work` may wait for.

    Raises:
        OSError: there is no connection to be had.
    """
    with await connect(target) as sock, sock.dup() as handle:  # as TLS takes the socket away from its object
        outcome: Future[T] = Future()
        outcome.set_running_or_notify_cancel()  # from now on it has an outcome, whether somebody waits for it or not
        threading.Thread(target=_run, args=(outcome, work, sock), name="l4lb probe", daemon=True).start()
        running = asyncio.wrap_future(outcome)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            with suppress(OSError):  # the other side was quicker
                handle.shutdown(socket.SHUT_RDWR)
            await asyncio.wait({running}, timeout=_GRACE)
            if running.done():
                running.exception()  # whatever the shutdown led to is of no interest
            else:
                running.cancel()
            raise


def _run(outcome: Future[T], work: Callable[[socket.socket], T], sock: socket.socket) -> None:
    try:
        sock.setblocking(True)
        outcome.set_result(work(sock))
    except BaseException as error:
        # Errors and what was called when they came up hold each other, until a garbage collection, and files with them.
        for each in beneath(error):
            traceback.clear_frames(each.__traceback__)
        outcome.set_exception(error)


def beneath(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that led to it, each once: libraries hide the system's behind their own."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__
