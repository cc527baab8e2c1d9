"""Frames to measure with: TCP segments of many flows, the shortest there are."""

import random
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from l4lb.datapath.checksum import sum_words
from l4lb.datapath.links import mac_bytes
from l4lb.lab.testbed import CLIENT_MAC, GATEWAY_MAC
from l4lb.model import Endpoint, IPAddress

SIZES = {4: 64, 6: 80}  # bytes: the least, in words of 8
SYN, ACK = 0x02, 0x10
_FIRST_PORT, _PORTS = 1024, 64_000
_ETHERNET = mac_bytes(GATEWAY_MAC) + mac_bytes(CLIENT_MAC)


def tcp_frame(source: Endpoint, destination: Endpoint, flags: int = ACK) -> bytes:
    """A frame with a TCP segment; its checksum is 0, as nothing here looks at it."""
    segment = struct.pack("!HHIIBBHHH", source.port, destination.port, 1, 1, 0x50, flags, 512, 0, 0)
    addresses = source.address.packed + destination.address.packed
    version = source.address.version
    if version == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0x4000, 64, 6, 0) + addresses
        header = header[:10] + struct.pack("<H", ~sum_words(header) & 0xFFFF) + header[12:]
        frame = _ETHERNET + b"\x08\x00" + header + segment
    else:
        frame = _ETHERNET + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(segment), 6, 64) + addresses + segment
    return frame.ljust(SIZES[version], b"\0")


def clients(count: int, version: int) -> list[Endpoint]:
    """So many distinct clients, in random order."""
    base = IPv4Address("10.64.0.0") if version == 4 else IPv6Address("fd64::")
    return [
        Endpoint(base + number // _PORTS, _FIRST_PORT + number % _PORTS)
        for number in random.Random(1).sample(range(count), count)  # noqa: S311 - the same in each run, to compare
    ]


def to_vips(flows: int, vips: Sequence[IPAddress], port: int, flags: int, order: int) -> bytes:
    """One frame of each flow, a VIP by chance for each.

    Args:
        flows: how many.
        vips: addresses.
        port: of all VIPs.
        flags: of TCP.
        order: another number for another order of the same frames.
    """
    version = vips[0].version
    numbers = random.Random(2)  # noqa: S311
    at = {4: 34, 6: 54}[version]  # where the source port is
    heads: dict[tuple[IPAddress, IPAddress], bytes] = {}
    frames = []
    for client in clients(flows, version):
        vip = numbers.choice(vips) if len(vips) > 1 else vips[0]
        head = heads.get((client.address, vip))
        if head is None:
            head = tcp_frame(Endpoint(client.address, 0), Endpoint(vip, port), flags)
            heads[client.address, vip] = head
        frames.append(head[:at] + client.port.to_bytes(2, "big") + head[at + 2 :])
    random.Random(order).shuffle(frames)  # noqa: S311
    return b"".join(frames)
