"""What an interface sends and receives, as it is on the wire, and whether its checksums are right."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from pyroute2 import netns

from l4lb.errors import L4lbError
from l4lb.lab.namespace import Namespace

_ETH_P_ALL = 3  # uapi/linux/if_ether.h
_SOL_PACKET = 263
_PACKET_STATISTICS = 6  # uapi/linux/if_packet.h
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_BUFFER_BYTES = 64 << 20  # tens of thousands of packets: they are read only afterwards


@contextmanager
def capture(namespace: Namespace, interface: str) -> Iterator[list[bytes]]:
    """Records frames while the with block runs; they are in the list when it ends.

    Frames that an XDP program on this interface handles do not come by here: capture at the other hosts.

    Raises:
        L4lbError: when there were more than the buffer holds.
    """
    netns.pushns(namespace.name)
    try:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        tap.bind((interface, _ETH_P_ALL))
    finally:
        netns.popns()
    frames: list[bytes] = []
    with tap:
        yield frames
        seen, dropped = struct.unpack("=II", tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        if dropped:
            raise L4lbError(f"the capture on {interface} of {namespace.name} lost {dropped} of {seen} frames")
        frames.extend(tap.recv(65_536) for _ in range(seen))


def wrong_checksums(frames: list[bytes]) -> list[bytes]:
    """Those of the frames whose IPv4 header, TCP or UDP checksum is wrong; what is not IPv4 is not judged."""
    return [frame for frame in frames if frame[12:14] == _IPV4 and not _is_right(frame[_ETHERNET_BYTES:])]


_ETHERNET_BYTES = 14
_IPV4 = b"\x08\x00"


def _is_right(packet: bytes) -> bool:
    header_bytes = (packet[0] & 0xF) * 4
    header, payload = packet[:header_bytes], packet[header_bytes : int.from_bytes(packet[2:4])]
    if not _sums_up(header):
        return False
    protocol = header[9]
    if protocol not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        return True
    if protocol == socket.IPPROTO_UDP and payload[6:8] == bytes(2):
        return True  # the sender made none (RFC 768)
    pseudo_header = header[12:20] + struct.pack("!HH", protocol, len(payload))
    return _sums_up(pseudo_header + payload)


def _sums_up(data: bytes) -> bool:
    """Whether the ones' complement sum of all 16-bit words, the checksum among them, is all ones (RFC 1071).

    Such sums are remainders of a division by 0xffff, of which big integers are a quick way.
    """
    return int.from_bytes(data + bytes(len(data) % 2)) % 0xFFFF == 0
