"""A control server in a thread of its own, for tests that are its clients, and what a daemon tells of health."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from l4lb.health.book import HealthBook
from l4lb.health.report import Clocks, in_short
from l4lb.model import Config
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


NOW = Clocks(monotonic=100.0, wall=1_700_000_000.0)


def live_health(config: Config, book: HealthBook | None = None) -> dict[str, Any]:
    """What :class:`~l4lb.view.Live` takes of health, by a book at the moment NOW; without one, nothing is known."""
    known = book or HealthBook()
    pictures = {vip.name: known.picture(vip, NOW.monotonic) for vip in config.vips}
    return {
        "health": {
            (vip.name, backend.endpoint): in_short(
                vip, backend, known.health(vip, backend, NOW.monotonic), effective, NOW
            )
            for vip in config.vips
            for backend, effective in zip(vip.backends, pictures[vip.name].backends, strict=True)
        },
        "verdicts": {
            name: {"verdict": str(picture.verdict), "verdict_why": picture.why} for name, picture in pictures.items()
        },
    }
