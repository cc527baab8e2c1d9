"""Packets as bytes. Scapy takes ten times as long for one as program and reference together do."""

import struct
from dataclasses import dataclass, replace
from typing import Self

from tests.reference.parse import ICMP, ICMPV6, TCP, UDP, Kind, Packet, parse
from tests.reference.sums import checksum

ETHER_TYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
CHECK_AT = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}  # in what follows the IP header

FIN, SYN, RST, PUSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10


@dataclass(frozen=True, slots=True)
class Flow:
    """From where to where; addresses are 4 or 16 bytes."""

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    protocol: int

    @property
    def version(self) -> int:
        """Of IP."""
        return 4 if len(self.source) == 4 else 6

    def back(self) -> Self:
        """The other way."""
        return replace(
            self,
            source=self.destination,
            destination=self.source,
            source_port=self.destination_port,
            destination_port=self.source_port,
        )


def summed(source: bytes, destination: bytes, protocol: int, data: bytes) -> bytes:
    """What follows an IP header, with its checksum in place; ICMP for IPv4 has no pseudo-header."""
    at = CHECK_AT[protocol]
    data = data[:at] + b"\0\0" + data[at + 2 :]
    pseudo = b"" if protocol == ICMP else source + destination + struct.pack("!II", len(data), protocol)
    check = checksum(pseudo + data) or 0xFFFF
    return data[:at] + check.to_bytes(2, "big") + data[at + 2 :]


def tcp(flow: Flow, flags: int, options: bytes, payload: bytes, sequence: int = 1) -> bytes:
    """A TCP segment; the options' length is a multiple of 4."""
    offset = 5 + len(options) // 4
    header = struct.pack(
        "!HHIIBBHHH", flow.source_port, flow.destination_port, sequence, 9, offset << 4, flags, 8192, 0, 0
    )
    return summed(flow.source, flow.destination, TCP, header + options + payload)


def udp(flow: Flow, payload: bytes) -> bytes:
    """A UDP datagram."""
    header = struct.pack("!HHHH", flow.source_port, flow.destination_port, 8 + len(payload), 0)
    return summed(flow.source, flow.destination, UDP, header + payload)


def icmp(source: bytes, destination: bytes, kind: int, code: int, rest: bytes, data: bytes) -> bytes:
    """A message of ICMP or ICMPv6; `rest` is the second half of its header."""
    protocol = ICMP if len(source) == 4 else ICMPV6
    return summed(source, destination, protocol, bytes((kind, code, 0, 0)) + rest + data)


@dataclass(frozen=True, slots=True)
class Header:
    """What may be different in an IP header.

    Attributes:
        options: IPv4's, a multiple of 4 bytes.
        extensions: of IPv6, each (number, the header with a first byte of any value).
        fragment: (offset in bytes, whether more follow, number of the datagram).
    """

    ttl: int = 64
    traffic_class: int = 0
    number: int = 0
    dont_fragment: bool = False
    options: bytes = b""
    extensions: tuple[tuple[int, bytes], ...] = ()
    fragment: tuple[int, bool, int] | None = None


def ip(source: bytes, destination: bytes, protocol: int, data: bytes, header: Header) -> bytes:
    """An IP packet."""
    if len(source) == 4:
        return _ipv4(source, destination, protocol, data, header)
    return _ipv6(source, destination, protocol, data, header)


def _ipv4(source: bytes, destination: bytes, protocol: int, data: bytes, header: Header) -> bytes:
    offset, more, number = header.fragment or (0, False, header.number)
    length = 20 + len(header.options)
    made = struct.pack(
        "!BBHHHBBH",
        0x40 | length // 4,
        header.traffic_class,
        length + len(data),
        number & 0xFFFF,
        header.dont_fragment << 14 | more << 13 | offset // 8,
        header.ttl,
        protocol,
        0,
    )
    made += source + destination + header.options
    return made[:10] + checksum(made).to_bytes(2, "big") + made[12:] + data


def _ipv6(source: bytes, destination: bytes, protocol: int, data: bytes, header: Header) -> bytes:
    chain = list(header.extensions)
    if header.fragment is not None:
        offset, more, number = header.fragment
        chain.append((44, struct.pack("!BBHI", 0, 0, offset | more, number)))
    following = [*(kind for kind, _ in chain[1:]), protocol][: len(chain)]
    body = b"".join(bytes((after,)) + made[1:] for after, (_, made) in zip(following, chain, strict=True)) + data
    first = 6 << 28 | header.traffic_class << 20 | header.number
    next_header = chain[0][0] if chain else protocol
    return struct.pack("!IHBB", first, len(body), next_header, header.ttl) + source + destination + body


def fragments(data: bytes, size: int, number: int) -> list[tuple[bytes, tuple[int, bool, int]]]:
    """What follows an IP header, cut into pieces of so many bytes (a multiple of 8), each with what its header says."""
    return [(data[at : at + size], (at, at + size < len(data), number)) for at in range(0, len(data), size)]


def renewed(frame: bytes, *, ipv6: bool = True, vlans: bool = True) -> bytes:
    """A frame with the checksums that it ought to have: its IPv4 header's, and that of what follows where it can be."""
    packet = parse(frame, ipv6=ipv6, vlans=vlans)
    if isinstance(packet, str):
        return frame
    if not packet.v6 and packet.transport <= len(frame):
        header = frame[packet.ip : packet.ip + 10] + b"\0\0" + frame[packet.ip + 12 : packet.transport]
        frame = _written(frame, packet.ip + 10, checksum(header))
    protocol = packet.protocol
    if packet.kind in (Kind.ERROR, Kind.ECHO):
        protocol = ICMPV6 if packet.v6 else ICMP
    elif packet.kind is not Kind.PLAIN:
        return frame
    if packet.transport + CHECK_AT[protocol] + 2 > packet.end or packet.end > len(frame):
        return frame
    return frame[: packet.transport] + _summed_again(frame, packet, protocol) + frame[packet.end :]


def _summed_again(frame: bytes, packet: Packet, protocol: int) -> bytes:
    at = packet.ip + (8 if packet.v6 else 12)
    size = 16 if packet.v6 else 4
    addresses = frame[at : at + size], frame[at + size : at + 2 * size]
    return summed(*addresses, protocol, frame[packet.transport : packet.end])


def _written(frame: bytes, at: int, value: int) -> bytes:
    return frame[:at] + value.to_bytes(2, "big") + frame[at + 2 :]
