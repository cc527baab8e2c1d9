"""Users of this system, by name. Who they are may have to be asked of a directory in the network."""

import asyncio
import pwd
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

FRESH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Account:
    """A user's numbers."""

    uid: int
    gid: int


def look_up(user: str) -> Account | None:
    """A user, or None if there is no such user, or a directory is out of reach: the system does not tell which."""
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        return None
    return Account(found.pw_uid, found.pw_gid)


class Accounts:
    """Remembers who users are.

    What was found counts for a minute. Who asks then gets it yet, and has it renewed; it stays if it is not found any
    more. Only the first to ask for a user waits, and nobody else meanwhile: each look-up has a thread.

    Args:
        look_up: what may take long.
        clock: seconds.
    """

    def __init__(
        self,
        look_up: Callable[[str], Account | None] = look_up,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look_up = look_up
        self._clock = clock
        self._found: dict[str, tuple[Account | None, float]] = {}
        self._under_way: dict[str, Future[None]] = {}

    async def find(self, user: str) -> Account | None:
        """A user, or None if there is no such user."""
        known = self._found.get(user)
        if known is None or self._clock() - known[1] > FRESH_SECONDS:
            looking = self._begin(user)
            if known is None or known[0] is None:
                await asyncio.shield(asyncio.wrap_future(looking))
                known = self._found[user]
        return known[0]

    def _begin(self, user: str) -> "Future[None]":
        """The look-up of a user that is under way, or a new one."""
        looking = self._under_way.get(user)
        if looking is None:
            looking = self._under_way[user] = Future()
            threading.Thread(target=self._look, args=(user, looking), daemon=True).start()
        return looking

    def _look(self, user: str, looking: "Future[None]") -> None:
        """In a thread."""
        account = self._look_up(user)
        if account is None and user in self._found:
            account = self._found[user][0]
        self._found[user] = (account, self._clock())
        del self._under_way[user]
        looking.set_result(None)
