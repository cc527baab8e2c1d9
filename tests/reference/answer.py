"""Packets that are answered: pings, what is too long for its way, what nobody serves."""

import struct

from tests.reference.parse import ICMP, ICMPV6, TCP, Kind, Packet
from tests.reference.sums import checksum
from tests.reference.translate import update_header, update_icmp, write_address

QUOTED = 128  # bytes
TTL = 64
LEAST_IPV6_MTU = 1280

_TOO_BIG = {False: (3, 4), True: (2, 0)}  # type and code
_PORT_UNREACHABLE = {False: (3, 3), True: (1, 4)}
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
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
    return _error(packet, *_TOO_BIG[packet.v6], max(mtu, LEAST_IPV6_MTU) if packet.v6 else mtu, QUOTED)


def unreachable(packet: Packet) -> bytes:
    """The message that nobody listens on a UDP port, from whom it was for (RFC 792, RFC 4443 §3.1)."""
    return _error(packet, *_PORT_UNREACHABLE[packet.v6], 0, packet.transport + 8 - packet.ip)


def reset(packet: Packet) -> bytes | None:
    """The segment that ends a TCP connection (RFC 9293 §3.10.7.1), if that is to be sent."""
    sequence, acknowledged, offset, flags = struct.unpack_from("!IIBB", packet.frame, packet.transport + 4)
    header = offset >> 4 << 2
    length = packet.end - packet.transport - header
    if flags & _RST or header < 20 or length < 0:
        return None
    if flags & _ACK:
        numbers, flags = (acknowledged, 0), _RST
    else:
        numbers, flags = (0, (sequence + length + bool(flags & _SYN) + (flags & _FIN)) % 2**32), _RST | _ACK
    ports = packet.destination_port, packet.source_port
    segment = struct.pack("!HHIIBBHHH", *ports, *numbers, 5 << 4, flags, 0, 0, 0)
    pseudo = packet.destination + packet.source + struct.pack("!II", len(segment), TCP)
    segment = segment[:16] + checksum(pseudo + segment).to_bytes(2, "big") + segment[18:]
    return _returned(packet) + _header(packet, TCP, len(segment)) + segment


def _error(packet: Packet, kind: int, code: int, rest: int, quoted: int) -> bytes:
    message = struct.pack("!BBHI", kind, code, 0, rest) + packet.frame[packet.ip : packet.ip + quoted]
    addresses = packet.destination + packet.source
    pseudo = addresses + struct.pack("!II", len(message), ICMPV6) if packet.v6 else b""
    message = message[:2] + checksum(pseudo + message).to_bytes(2, "big") + message[4:]
    return _returned(packet) + _header(packet, ICMPV6 if packet.v6 else ICMP, len(message)) + message


def _header(packet: Packet, protocol: int, payload: int) -> bytes:
    """The IP header of an answer, from whom the packet was for, to its sender."""
    addresses = packet.destination + packet.source
    if packet.v6:
        header = struct.pack("!IHBB", 6 << 28, payload, protocol, TTL) + addresses
    else:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + payload, 0, 0, TTL, protocol, 0) + addresses
        header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
    return header
