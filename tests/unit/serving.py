"""A control server in a thread of its own, for tests that are its clients."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from l4lb.server import MESSAGE_SECONDS, ControlServer, Handler


@contextmanager
def serving(path: Path, handler: Handler, patience: float = MESSAGE_SECONDS) -> Iterator[None]:
    """Answers on a socket at `path` as long as the with block runs."""
    started, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        server = ControlServer(path, handler, patience=patience)
        server.listen()
        await server.start()
        started.set()
        await stop.wait()
        await server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(5)
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)
        loop.close()
