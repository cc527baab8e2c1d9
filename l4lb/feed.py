"""The events as clients read them: at once, or as soon as there are any."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence

from l4lb.errors import L4lbError
from l4lb.health.events import Event, Log
from l4lb.settings import seconds, value

log = logging.getLogger(__name__)

MOST_FOLLOWERS = 16  # at once
LONGEST_WAIT = 30.0  # seconds, for an event


class Feed:
    """Keeps the last events, and wakes those who wait for more."""

    def __init__(self) -> None:
        self._events = Log(first=int(time.time() * 1000))
        self._news = asyncio.Condition()  # that there are events
        self._followers = 0

    async def add(self, events: Sequence[Event]) -> None:
        """Tells of events, in the daemon's log too."""
        for event in events:
            log.warning("%s", event)
            self._events.add(event)
        if events:
            async with self._news:
                self._news.notify_all()

    async def tell(self, args: Mapping[str, object]) -> object:
        """The events from a number on; with `wait`, as soon as there is one, or after so many seconds."""
        given = {"since": 0, "wait": 0, **args}
        since, wait = value(given, "since", int), seconds(given, "wait")
        if wait > 0 and self._followers >= MOST_FOLLOWERS:
            raise L4lbError(f"{MOST_FOLLOWERS} clients follow the events already", "ask without --follow")
        self._followers += 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait, LONGEST_WAIT)), self._news:
                    await self._news.wait_for(lambda: self._events.has(since))
        finally:
            self._followers -= 1
        return self._events.plain(since)
