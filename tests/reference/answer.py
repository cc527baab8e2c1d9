"""Packets that are answered: pings, and what is too long for its way."""

import struct

from tests.reference.parse import ICMP, ICMPV6, Kind, Packet
from tests.reference.sums import checksum
from tests.reference.translate import update_header, update_icmp, write_address

QUOTED = 128  # bytes
TTL = 64
LEAST_IPV6_MTU = 1280

_TOO_BIG = {False: (3, 4), True: (2, 0)}  # type and code
_ECHO_REPLY = {False: 0, True: 129}


def is_host(address: bytes) -> bool:
    """Whether an address can be a single host's, so that it may be answered (RFC 1122 §3.2.2, RFC 4443 §2.4)."""
    if len(address) == 4:
        return address[0] not in (0, 127) and address[0] < 224
    return address[0] != 0xFF and int.from_bytes(address, "big") > 1


def _returned(packet: Packet) -> bytes:
    """The frame's header up to the IP packet, the other way round."""
    frame = packet.frame
    return frame[6:12] + frame[:6] + frame[12 : packet.ip]


def echo_reply(packet: Packet) -> bytes:
    """The answer to a ping."""
    before, ip = packet.frame, packet.ip
    frame = bytearray(_returned(packet) + before[ip:])
    frame[packet.transport] = _ECHO_REPLY[packet.v6]
    write_address(frame, ip, packet.v6, packet.destination, source=True)
    write_address(frame, ip, packet.v6, packet.source, source=False)
    frame[ip + (7 if packet.v6 else 8)] = TTL
    update_header(frame, before, ip, packet.v6)
    update_icmp(frame, before, packet)
    return bytes(frame)


def may_be_told(packet: Packet) -> bool:
    """Whether the sender of a packet may get an error about it."""
    return (
        packet.kind in (Kind.PLAIN, Kind.FIRST_FRAGMENT)
        and is_host(packet.source)
        and len(packet.frame) >= packet.ip + QUOTED
    )


def too_big(packet: Packet, mtu: int) -> bytes:
    """The message that it is longer than `mtu` bytes, from whom it was for (RFC 1191, RFC 4443 §3.2)."""
    quoted = packet.frame[packet.ip : packet.ip + QUOTED]
    kind, code = _TOO_BIG[packet.v6]
    addresses = packet.destination + packet.source
    if packet.v6:
        mtu = max(mtu, LEAST_IPV6_MTU)
    message = struct.pack("!BBHI", kind, code, 0, mtu) + quoted
    pseudo = addresses + struct.pack("!II", len(message), ICMPV6) if packet.v6 else b""
    message = message[:2] + checksum(pseudo + message).to_bytes(2, "big") + message[4:]
    if packet.v6:
        header = struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, TTL) + addresses
    else:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0, TTL, ICMP, 0) + addresses
        header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
    return _returned(packet) + header + message
