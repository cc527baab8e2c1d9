"""From a frame to the flow that it is about."""

import enum
import struct
from dataclasses import dataclass

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60
EXTENSIONS = frozenset((HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION))
MAX_EXTENSIONS = 6  # that are followed
QUOTED_TRANSPORT = 8  # bytes of a transport header that an ICMP error has at least (RFC 792)

_TAGS = (b"\x81\x00", b"\x88\xa8")
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_ERRORS = {False: frozenset((3, 11, 12)), True: frozenset((1, 2, 3, 4))}  # by whether it is IPv6
_ECHO_REQUEST = {False: 8, True: 128}

_IPV4_HEADER = struct.Struct("!BBHHHBBH4s4s")
_IPV6_HEADER = struct.Struct("!IHBB16s16s")
_FRAGMENT_HEADER = struct.Struct("!BBH4s")
_PORTS = struct.Struct("!HH")


class Kind(enum.Enum):
    """What a packet is to its flow."""

    PLAIN = enum.auto()
    FIRST_FRAGMENT = enum.auto()
    LATER_FRAGMENT = enum.auto()
    ERROR = enum.auto()
    ECHO = enum.auto()


@dataclass(slots=True)
class Packet:
    """A frame that was made sense of; places are offsets in it, addresses 4 or 16 bytes.

    Attributes:
        ip: where the IP packet begins, after Ethernet header and VLAN tags.
        transport: where what follows the IP header and its extensions begins.
        total: how long the IP packet says that it is.
        protocol: of the flow; of a later fragment, 0.
        source, source_port, destination, destination_port: the flow's ends, as a packet of it would have them that goes
            this packet's way. An error is about a packet that went the other way.
        datagram: what the fragments of one datagram have in common beside their addresses.
        is_flow: of a later fragment, whether TCP or UDP is what is in it as far as it tells.
        inner, inner_transport: of an error, where the packet that it quotes begins, and its transport header.
    """

    frame: bytes
    v6: bool
    ip: int
    transport: int
    total: int
    ttl: int
    may_fragment: bool
    protocol: int
    source: bytes
    destination: bytes
    kind: Kind = Kind.PLAIN
    datagram: int = 0
    is_flow: bool = True
    source_port: int = 0
    destination_port: int = 0
    inner: int = 0
    inner_transport: int = 0

    @property
    def end(self) -> int:
        """Where the IP packet ends, as it says."""
        return self.ip + self.total

    @property
    def tcp_flags(self) -> int | None:
        """Of a packet with a TCP header, else None."""
        if self.protocol != TCP or self.kind not in (Kind.PLAIN, Kind.FIRST_FRAGMENT):
            return None
        return self.frame[self.transport + 13] if len(self.frame) >= self.transport + 20 else None

    @property
    def begins(self) -> bool:
        """Whether a flow may begin with it: a SYN without ACK, or a datagram."""
        if self.protocol == TCP:
            flags = self.tcp_flags
            return flags is not None and flags & 0x12 == 0x02
        return self.kind is not Kind.ERROR


def parse(frame: bytes, *, ipv6: bool, vlans: bool) -> Packet | str:
    """What a frame is about, or the reason why it cannot be one of ours.

    Args:
        frame: from the Ethernet header on.
        ipv6: whether it is compiled in.
        vlans: whether VLAN tags are.
    """
    if len(frame) < 14:
        return "pass_malformed"
    ip, ether_type = 14, frame[12:14]
    while vlans and ether_type in _TAGS and ip < 22:
        if len(frame) < ip + 4:
            return "pass_malformed"
        ether_type = frame[ip + 2 : ip + 4]
        ip += 4
    if ether_type == _IPV4:
        packet = _parse_ipv4(frame, ip)
    elif ether_type == _IPV6:
        packet = _parse_ipv6(frame, ip) if ipv6 else "pass_not_vip"
    else:
        return "pass_not_ip"
    if isinstance(packet, str) or packet.kind is Kind.LATER_FRAGMENT:
        return packet
    if packet.protocol in (TCP, UDP):
        if len(frame) < packet.transport + 4:
            return "pass_malformed"
        packet.source_port, packet.destination_port = _PORTS.unpack_from(frame, packet.transport)
        return packet
    if packet.protocol != (ICMPV6 if packet.v6 else ICMP) or packet.kind is not Kind.PLAIN:
        return "pass_not_tcp_udp"
    return _parse_icmp(packet)


def _parse_ipv4(frame: bytes, ip: int) -> Packet | str:
    if len(frame) < ip + 20:
        return "pass_malformed"
    first, _, total, number, offset, ttl, protocol, _, source, destination = _IPV4_HEADER.unpack_from(frame, ip)
    if first >> 4 != 4 or first & 15 < 5:
        return "pass_malformed"
    packet = Packet(
        frame, False, ip, ip + (first & 15) * 4, total, ttl, not offset & 0x4000, protocol, source, destination
    )
    if offset & 0x3FFF:
        packet.datagram = protocol << 16 | int.from_bytes(number.to_bytes(2, "big"), "little")
        packet.kind = Kind.LATER_FRAGMENT if offset & 0x1FFF else Kind.FIRST_FRAGMENT
    if packet.kind is Kind.LATER_FRAGMENT:
        packet.protocol, packet.is_flow = 0, protocol in (TCP, UDP)
    return packet


def _parse_ipv6(frame: bytes, ip: int) -> Packet | str:
    if len(frame) < ip + 40:
        return "pass_malformed"
    first, length, following, ttl, source, destination = _IPV6_HEADER.unpack_from(frame, ip)
    if first >> 28 != 6:
        return "pass_malformed"
    packet = Packet(frame, True, ip, ip + 40, 40 + length, ttl, False, following, source, destination)
    return packet if following in (TCP, UDP) else _follow_extensions(packet, ip, following)


def _follow_extensions(packet: Packet, ip: int, following: int) -> Packet | str:
    """Sets protocol, transport, kind and datagram from the extension headers of an IPv6 packet at `ip`."""
    frame, at = packet.frame, ip + 40
    for _ in range(MAX_EXTENSIONS):
        if following not in EXTENSIONS:
            break
        if len(frame) < at + 8:
            return "pass_malformed"
        after, length, rest, number = _FRAGMENT_HEADER.unpack_from(frame, at)
        if following == ROUTING and rest & 0xFF:
            return "pass_not_vip"  # segments left: this is not its destination
        if following != FRAGMENT:
            at += (length + 1) * 8
        else:
            at += 8
            packet.datagram = int.from_bytes(number, "little")
            if rest & 0xFFF8:
                packet.kind, packet.protocol, packet.transport = Kind.LATER_FRAGMENT, 0, at
                packet.is_flow = after in (TCP, UDP)
                return packet
            if rest & 1:
                packet.kind = Kind.FIRST_FRAGMENT
        following = after
    packet.protocol, packet.transport = following, at
    return packet


def _parse_icmp(packet: Packet) -> Packet | str:
    frame, icmp = packet.frame, packet.transport
    if len(frame) < icmp + 8:
        return "pass_not_tcp_udp"
    if frame[icmp] == _ECHO_REQUEST[packet.v6]:
        packet.kind = Kind.ECHO
        return packet
    if frame[icmp] not in _ERRORS[packet.v6]:
        return "pass_not_tcp_udp"
    quoted = _parse_quoted(packet, icmp + 8)
    if isinstance(quoted, str) or quoted.kind is Kind.LATER_FRAGMENT or quoted.protocol not in (TCP, UDP):
        return "pass_not_tcp_udp"
    # Sent to another than whom it quotes, it is about no packet that came from here.
    if len(frame) < quoted.transport + QUOTED_TRANSPORT or packet.destination != quoted.source:
        return "pass_not_tcp_udp"
    packet.kind = Kind.ERROR
    packet.protocol = quoted.protocol
    packet.inner, packet.inner_transport = icmp + 8, quoted.transport
    packet.source, packet.destination = quoted.destination, quoted.source
    packet.destination_port, packet.source_port = _PORTS.unpack_from(frame, quoted.transport)
    return packet


def _parse_quoted(packet: Packet, inner: int) -> Packet | str:
    return _parse_ipv6(packet.frame, inner) if packet.v6 else _parse_ipv4(packet.frame, inner)


def is_sound(packet: Packet) -> bool:
    """Whether the lengths of a packet that is ours agree with each other."""
    least = packet.transport + 8  # UDP, ICMP
    if packet.kind is Kind.LATER_FRAGMENT:
        least = packet.transport + 1
    elif packet.kind is Kind.ERROR:
        least = packet.inner_transport + QUOTED_TRANSPORT
    elif packet.protocol == TCP:
        least = packet.transport + 20
    return least <= packet.end <= len(packet.frame)
