"""One worker process, as the daemon sees it."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

from l4lb.probes.channel import Channel, Kind

_GOODBYE_SECONDS = 2.0  # for a worker to end by itself


class Process:
    """A worker process; :func:`started` makes one.

    Attributes:
        pid: its number.
        ended: set when it is dead.
        heard: when it last said something; seconds of the loop's clock.
    """

    def __init__(self, popen: "subprocess.Popen[bytes]", received: Callable[[Kind, object], None]) -> None:
        self.pid = popen.pid
        self.ended = asyncio.Event()
        self.channel = Channel(self._heard_of, self._lost)
        self._popen = popen
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._death = os.pidfd_open(popen.pid)  # readable when it is dead
        self._loop.add_reader(self._death, self._reap)
        self.heard = self._loop.time()

    @property
    def end(self) -> str:
        """How it ended."""
        status: int = self._popen.returncode
        return f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"

    def kill(self) -> None:
        """Ends it at once, even if it is stopped."""
        self._popen.kill()

    async def close(self) -> None:
        """Lets it end by itself, if it does so soon."""
        self.channel.close()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_SECONDS):
                    await self.ended.wait()
        finally:
            if not self.ended.is_set():
                self.kill()
                self._reap()

    def _heard_of(self, kind: Kind, content: object) -> None:
        self.heard = self._loop.time()
        self._received(kind, content)

    def _lost(self, wanted: bool) -> None:
        """The channel is closed. If not by us, the worker is of no use any more."""
        if not wanted:
            self.kill()

    def _reap(self) -> None:
        self._popen.wait()
        self._loop.remove_reader(self._death)
        os.close(self._death)
        self.channel.close()
        self.ended.set()


async def started(received: Callable[[Kind, object], None]) -> Process:
    """Starts a worker process; what is sent to it before it is ready waits for it.

    It inherits standard error and its end of the channel, and nothing else of the daemon's.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = Process(_spawn(theirs.fileno()), received)
        except BaseException:
            ours.close()
            raise
    await asyncio.get_running_loop().create_unix_connection(lambda: process.channel, sock=ours)
    return process


def _spawn(channel: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        # -P: a daemon that is started in somebody's folder must not load modules from there.
        [sys.executable, "-P", "-m", "l4lb.probes.worker", str(channel)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[channel],
        start_new_session=True,  # a Ctrl-C at the daemon's terminal is for the daemon
    )
