"""Connections as they arrive at servers, before any firewall of theirs: what a balancer still sends to whom."""

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from pyroute2 import netns

from l4lb.lab.topology import Server
from l4lb.model import IPAddress

_ETH_P_IP = 0x0800
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; its control message has the same number
_TIMESPEC = struct.Struct("@ll")
_SYN, _SYN_ACK = 0x02, 0x12
_HEADERS = 14 + 20 + 20  # bytes: Ethernet, IPv4 without options, TCP


class Arrivals:
    """Of some servers; made by :func:`arrivals`. Times are seconds of the wall clock, as the kernel took them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: set[tuple[str, bytes]] = set()
        self.begin("")

    def begin(self, victim: str) -> None:
        """Counts anew.

        Args:
            victim: the name of the server that matters.
        """
        with self._lock:
            self._victim = victim
            self.last: float | None = None  # connection to it
            self.since = 0  # then, so many have come to others

    def add(self, name: str, segment: bytes, at: float) -> None:
        """Takes note of a SYN; one that is sent again is no other connection."""
        with self._lock:
            if (name, segment) in self._seen:
                return
            self._seen.add((name, segment))
            if name == self._victim:
                self.last, self.since = at, 0
            else:
                self.since += 1


@contextmanager
def arrivals(servers: Sequence[Server], source: IPAddress) -> Iterator[Arrivals]:
    """What arrives at servers, at their own addresses, from `source`, as long as the with block runs."""
    made, over = Arrivals(), threading.Event()
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for server in servers:
            selector.register(stack.enter_context(_tap(server)), selectors.EVENT_READ, server)
        thread = threading.Thread(target=_listen, args=(made, selector, source, over), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            over.set()
            thread.join()


def _tap(server: Server) -> socket.socket:
    netns.pushns(server.namespace.name)
    try:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        tap.bind(("eth0", _ETH_P_IP))  # incoming packets only
        tap.setblocking(False)
        return tap
    finally:
        netns.popns()


def _listen(made: Arrivals, selector: selectors.BaseSelector, source: IPAddress, over: threading.Event) -> None:
    while not over.is_set():
        for key, _ in selector.select(0.1):
            server: Server = key.data
            with contextlib.suppress(BlockingIOError):
                while True:
                    frame, control, _, _ = key.fileobj.recvmsg(_HEADERS, 64)  # type: ignore[union-attr]
                    if frame[26:34] == source.packed + server.address.packed and frame[47] & _SYN_ACK == _SYN:
                        seconds, nanoseconds = _TIMESPEC.unpack(control[0][2])
                        made.add(server.name, frame[34:42], seconds + nanoseconds / 1e9)  # ports and sequence number
