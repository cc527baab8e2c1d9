"""The sockets that probes are made by: non-blocking, to an address, never to a name."""

import asyncio
import contextlib
import socket
import struct

from l4lb.probes.refusals import refusals
from l4lb.probes.target import Target, Unwell

_PIECE = 1 << 16  # bytes read at a time: the longest datagram, at least
_IP_RECVERR, _IPV6_RECVERR = 11, 25  # uapi/linux/in.h and in6.h
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger


def open_socket(address: str, kind: socket.SocketKind, protocol: int = 0) -> socket.socket:
    """A socket of the address's family.

    Raises:
        OSError: it is no address, or the system has no socket left.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.inet_pton(family, address)
    except OSError:  # a name would be looked up, and stop everybody for as long
        raise OSError(f"{address!r} is no IP address") from None
    return socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)


def hear_all_errors(sock: socket.socket) -> None:
    """Has a connected socket for datagrams told of all that comes back for what it sent.

    Without that the system keeps to itself what may pass, as that a router does not reach the host.
    """
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)


async def connect(target: Target) -> socket.socket:
    """A TCP connection, that is reset when it is closed.

    So neither side keeps it in TIME_WAIT, which thousands of checks a minute would fill tables with.

    Raises:
        OSError: there is none to be had.
    """
    sock = open_socket(target.address, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        await asyncio.get_running_loop().sock_connect(sock, (target.address, target.port))
    except BaseException:
        sock.close()
        raise
    return sock


class Datagrams:
    """A UDP socket that hears of one target alone, errors included. A context manager."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._sock = open_socket(target.address, socket.SOCK_DGRAM)
        hear_all_errors(self._sock)
        self._sock.connect((target.address, target.port))

    def __enter__(self) -> "Datagrams":
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def send(self, payload: bytes) -> None:
        """Sends one datagram; one that does not fit into the system's buffer is lost, as on the way."""
        with contextlib.suppress(BlockingIOError):
            self._sock.send(payload)

    async def receive(self) -> bytes:
        """The next datagram from the target.

        Raises:
            Unwell: the target has no such port.
        """
        try:
            answer = await self._loop.sock_recv(self._sock, _PIECE)
        except ConnectionRefusedError:
            refusals.add(self._target, self._loop.time())
            raise Unwell("port unreachable") from None
        refusals.forget(self._target)
        return answer
