"""Where probes by way of the dataplane leave and come back, past the kernel's own TCP and UDP.

The gateway owns the VIP's address, so the kernel would connect to itself, and takes answers from there for forged. A
packet socket sends without it, and hears before it judges. The link layer stays the kernel's: it writes Ethernet header
and VLAN tags, and takes them off.

There is one socket for each IP version, as closing one waits for all processors (synchronize_net in the kernel).
"""

import asyncio
import contextlib
import socket
from collections import deque
from ipaddress import ip_address
from weakref import WeakKeyDictionary

from l4lb.probes import filters
from l4lb.probes.packets import TCP, UDP, Ends, Heard, IPAddress, Tunnel, heard, tunnelled
from l4lb.probes.sockets import open_socket
from l4lb.probes.target import Target, Way

_ETHERNET_TYPES = {4: 0x0800, 6: 0x86DD}
_PIECE = 1 << 16  # bytes: the longest packet
_AT_ONCE = 64  # packets read before others get their turn: who floods the gateway must not stop the checks
_BACKLOG = 8  # packets that one probe has not looked at
_IDLE_SECONDS = 300.0  # without a probe, until the sockets are closed: every packet to the gateway passes them
_KEPT_PORTS = 128


class Wire:
    """The packet sockets of an event loop, and who waits for what comes in there; :func:`wire` gives it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sockets: dict[int, socket.socket] = {}
        self._addresses: set[IPAddress] = set()
        self._waiting: dict[Ends, asyncio.Queue[Heard]] = {}
        self._kept: deque[socket.socket] = deque()
        self._idle: asyncio.TimerHandle | None = None

    def enter(self, ends: Ends, queue: "asyncio.Queue[Heard]", addresses: set[IPAddress]) -> None:
        """Puts into the queue what comes back of a probe, to one of these addresses.

        Raises:
            OSError: the system has no socket left, or does not let us.
        """
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._open()
        if not addresses <= self._addresses:
            self._listen(addresses)
        self._waiting[ends] = queue

    def leave(self, ends: Ends) -> None:
        """Ends it."""
        del self._waiting[ends]
        if not self._waiting:
            self._idle = self._loop.call_later(_IDLE_SECONDS, self.close)

    def keep(self, port: socket.socket) -> None:
        """Holds a port for longer, in place of one held before.

        A late datagram tells by nothing else which probe it answers, and shall not answer another backend's.
        """
        self._kept.append(port)
        if len(self._kept) > _KEPT_PORTS:
            self._kept.popleft().close()

    def send(self, packet: bytes, way: Way) -> None:
        """Sends an IP packet to the next hop; one that does not fit into the system's buffer is lost, as on the way.

        Raises:
            OSError: the interface is down or gone.
        """
        version = packet[0] >> 4
        with contextlib.suppress(BlockingIOError):
            self._sockets[version].sendto(packet, (way.interface, _ETHERNET_TYPES[version], 0, 0, way.mac))

    def close(self) -> None:
        """Lets go of everything; the next probe opens it again."""
        for sock in self._sockets.values():
            self._loop.remove_reader(sock)
            sock.close()
        while self._kept:
            self._kept.pop().close()
        self._sockets.clear()
        self._addresses.clear()

    def _open(self) -> None:
        for version, type_ in _ETHERNET_TYPES.items():
            if version not in self._sockets:
                kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
                sock = socket.socket(socket.AF_PACKET, kind, socket.htons(type_))
                filters.attach(sock, version, ())
                self._loop.add_reader(sock, self._read, sock)
                self._sockets[version] = sock

    def _listen(self, addresses: set[IPAddress]) -> None:
        if len(self._addresses | addresses) > filters.MOST_ADDRESSES:
            self._addresses = {ends.source for ends in self._waiting}
        self._addresses |= addresses
        for version, sock in self._sockets.items():
            filters.attach(sock, version, self._addresses)

    def _read(self, sock: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                packet = sock.recv(_PIECE)
            except BlockingIOError:
                return
            for found in heard(packet):
                if (queue := self._waiting.get(found.ends)) is not None and queue.qsize() < _BACKLOG:
                    queue.put_nowait(found)


_wires: "WeakKeyDictionary[asyncio.AbstractEventLoop, Wire]" = WeakKeyDictionary()


def wire() -> Wire:
    """That of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _wires:
        _wires[loop] = Wire(loop)
    return _wires[loop]


class Line:
    """One probe's port of the gateway, and what it sends and hears by it. A context manager.

    The port is held by a socket that is bound and nothing else, so nobody else on the gateway gets it.
    """

    def __init__(self, target: Target, way: Way, protocol: int) -> None:
        self._way = way
        self._wire = wire()
        self._heard: asyncio.Queue[Heard] = asyncio.Queue()
        self._tunnel = None
        source = ip_address(way.source)
        addresses = {source}
        if way.outer_source:
            outer = ip_address(way.outer_source)
            self._tunnel = Tunnel(outer, ip_address(target.address), way.gue_port if way.mode == "gue" else 0)
            addresses.add(outer)
        kind = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}[protocol]
        self._port = open_socket(way.source, kind)
        try:
            self._port.bind((way.source, 0))
            number = self._port.getsockname()[1]
            self.ends = Ends(protocol, source, number, ip_address(target.vip_address), target.port)
            self._wire.enter(self.ends, self._heard, addresses)
        except BaseException:
            self._port.close()
            raise
        self._unanswered = protocol == UDP

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.leave(self.ends)
        if self._unanswered:
            self._wire.keep(self._port)
        else:
            self._port.close()

    def send(self, packet: bytes) -> None:
        """Sends an IP packet to the VIP, by its way.

        Raises:
            OSError: the interface is down or gone.
        """
        self._wire.send(packet if self._tunnel is None else tunnelled(packet, self._tunnel), self._way)

    async def hear(self) -> Heard:
        """What comes back next."""
        found = await self._heard.get()
        self._unanswered = False
        return found
