"""An echo request is answered."""

import asyncio
import os
import socket
import struct

from l4lb.datapath.checksum import sum_words
from l4lb.health.check import Check
from l4lb.probes.sockets import hear_all_errors, open_socket
from l4lb.probes.target import Target

_HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number (RFC 792, RFC 4443)
_RANDOM = 32  # bytes sent, to be sent back
_ECHO = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}  # types of request and reply
_PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
_PIECE = 2_048


async def probe(_check: Check, target: Target) -> None:
    """Sends one echo request and waits for its reply."""
    loop = asyncio.get_running_loop()
    with _open(target.address) as sock:
        family = socket.AddressFamily(sock.family)
        sock.connect((target.address, 0))
        raw = sock.type == socket.SOCK_RAW
        identifier = int.from_bytes(os.urandom(2), "big") if raw else sock.getsockname()[1]
        sequence = int.from_bytes(os.urandom(2), "big")
        payload = os.urandom(_RANDOM)
        request_type, reply_type = _ECHO[family]
        sock.send(_message(request_type, identifier, sequence, payload))
        expected = _message(reply_type, identifier, sequence, payload)
        while True:
            packet = await loop.sock_recv(sock, _PIECE)
            if raw and family == socket.AF_INET:  # raw sockets show IPv4's header, and no header of IPv6
                packet = packet[(packet[0] & 0xF) * 4 :]
            # All but the checksum, that the kernel has looked at, and makes itself where there are addresses in it.
            if packet[:2] == expected[:2] and packet[4:] == expected[4:]:
                return


def _open(address: str) -> socket.socket:
    """A socket for echoes alone if the system gives one (net.ipv4.ping_group_range), else for all of ICMP."""
    protocol = _PROTOCOL[socket.AF_INET6 if ":" in address else socket.AF_INET]
    try:
        sock = open_socket(address, socket.SOCK_DGRAM, protocol)
    except PermissionError:
        # It would hear of errors that others' packets have caused, as a traceroute's.
        return open_socket(address, socket.SOCK_RAW, protocol)
    hear_all_errors(sock)
    return sock


def _message(kind: int, identifier: int, sequence: int, payload: bytes) -> bytes:
    bare = _HEADER.pack(kind, 0, 0, identifier, sequence) + payload
    return bare[:2] + struct.pack("<H", sum_words(bare) ^ 0xFFFF) + bare[4:]
