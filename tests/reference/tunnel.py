"""Outer headers: IP in IP (RFC 2003, RFC 2473, RFC 4213), and UDP of GUE in its short form."""

import struct

from l4lb.model import Mode
from tests.reference.parse import TCP, UDP, Kind, Packet
from tests.reference.services import Target
from tests.reference.sums import checksum, total
from tests.reference.translate import addresses_at, decrement_ttl, read16

OUTER_TTL = 64
_IPV4_IN_IP, _IPV6_IN_IP = 4, 41
_DONT_FRAGMENT = 0x4000


def encapsulated(packet: Packet, target: Target, flow: int, frame: bytearray) -> tuple[bytes, bool]:
    """The outer packet, from its IP header to the end of the frame, and whether it is IPv6.

    Args:
        packet: in `frame`.
        target: whom it is for.
        flow: its hash, 64 bits.
        frame: changed as a router does, by one hop.
    """
    decrement_ttl(frame, packet)
    inner = bytes(frame[packet.ip :])
    length = packet.total
    gue = target.vip.mode is Mode.GUE
    v6 = len(target.address) == 16
    source = _source(target, flow)
    traffic_class = read16(inner, 0) >> 4 & 0xFF if packet.v6 else inner[1]
    protocol = UDP if gue else _IPV6_IN_IP if packet.v6 else _IPV4_IN_IP
    udp = b""
    if gue:
        length += 8
        udp = struct.pack("!HHHH", 0xC000 | flow >> 48 & 0x3FFF, target.vip.gue_port, length, 0)
        if v6 and _adds_up(packet, inner):
            udp = _summed(udp, source + target.address, _corrected(packet, inner[: packet.total]))
    if v6:
        first = 6 << 28 | traffic_class << 20 | flow >> 44
        header = struct.pack("!IHBB", first, length, protocol, OUTER_TTL) + source + target.address
    else:
        length += 20
        header = struct.pack("!BBHHHBBH", 0x45, traffic_class, length, 0, _DONT_FRAGMENT, OUTER_TTL, protocol, 0)
        header += source + target.address
        header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
    return header + udp + inner, v6


def _source(target: Target, flow: int) -> bytes:
    """The flow's own of the source addresses."""
    own = int.from_bytes((flow & 0xFFFFFFFF).to_bytes(4, "little"), "big") & target.source_mask
    last = int.from_bytes(target.source[-4:], "big") ^ own
    return target.source[:-4] + last.to_bytes(4, "big")


def _adds_up(packet: Packet, inner: bytes) -> bool:
    """Whether the outer checksum can be told from the headers: one transport checksum covers all that follows them.

    It is not told where there is none, or where UDP's length leaves something out; then there is no outer one
    either, as RFC 6935 allows for tunnels.
    """
    if packet.kind is not Kind.PLAIN or (packet.v6 and packet.transport != packet.ip + 40):
        return False
    at = packet.transport - packet.ip
    return packet.protocol == TCP or (read16(inner, at + 6) != 0 and read16(inner, at + 4) == packet.total - at)


def _corrected(packet: Packet, inner: bytes) -> bytes:
    """The inner packet with the checksums that it ought to have: the outer one takes them to be right."""
    at = packet.transport - packet.ip
    if not packet.v6:
        header = inner[:10] + b"\0\0" + inner[12:at]
        inner = header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + inner[at:]
    check = at + (16 if packet.protocol == TCP else 6)
    inner = inner[:check] + b"\0\0" + inner[check + 2 :]
    pseudo = addresses_at(inner, 0, packet.v6) + struct.pack("!II", len(inner) - at, packet.protocol)
    return inner[:check] + checksum(pseudo + inner[at:]).to_bytes(2, "big") + inner[check + 2 :]


def _summed(udp: bytes, addresses: bytes, inner: bytes) -> bytes:
    """The UDP header with the checksum over pseudo-header, header and payload (RFC 8200 §8.1)."""
    pseudo = addresses + struct.pack("!II", len(udp) + len(inner), UDP)
    check = -total(pseudo + udp + inner) % 0xFFFF or 0xFFFF
    return udp[:6] + check.to_bytes(2, "big")
