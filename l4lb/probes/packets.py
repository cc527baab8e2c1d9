"""The packets of probes by way of the dataplane: what is sent, and what comes back. Nothing here has a socket.

They are whole IP packets, as a packet socket has them that leaves the link layer to the kernel.
"""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from l4lb.datapath.checksum import sum_words

IPAddress = IPv4Address | IPv6Address

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
SYN, RST, ACK = 0x02, 0x04, 0x10

# A backend that has the VIP does not look at it. One that has lost it and forwards packets would send the probe back to
# the gateway, which is the VIP's way, and another backend would answer.
_TTL = 1
_OUTER_TTL = 64  # as the program has it

_IPV4_WORDS = struct.Struct("!BBHHHBBH4s4s")
_IPV6_WORDS = struct.Struct("!IHBB16s16s")
_HEADER_BYTES = {4: _IPV4_WORDS.size, 6: _IPV6_WORDS.size}
_TCP_WORDS = struct.Struct("!HHIIBBHHH")
_UDP_WORDS = struct.Struct("!HHHH")
_DONT_FRAGMENT = 0x4000
_IN_IP = {4: socket.IPPROTO_IPIP, 6: socket.IPPROTO_IPV6}
_TUNNEL_PORTS = 0xC000  # the least of those that GUE's packets come from, as the program has them

_SEGMENT_SIZE = struct.pack("!BBH", 2, 4, 1_220)  # RFC 9293 §3.7.1; what any way over IPv6 takes
_WINDOW = 65_535

# ICMP errors, by type and code, in a person's words (RFC 792, RFC 1812 §5.2.7, RFC 4443); what is missing has no name.
_FIREWALL = "forbidden by a firewall"
_NO_PROTOCOL, _NO_PORT, _TIME_EXCEEDED = "protocol unreachable", "port unreachable", "time exceeded"
_UNREACHABLE4 = {
    **{0: "network unreachable", 1: "host unreachable", 2: _NO_PROTOCOL, 3: _NO_PORT, 4: "packet too big"},
    **dict.fromkeys((9, 10, 13), _FIREWALL),
}
_UNREACHABLE6 = {0: "no route", 1: _FIREWALL, 3: "address unreachable", 4: _NO_PORT, 5: _FIREWALL, 6: "no route"}
_IN_TRANSIT = {0: _TIME_EXCEEDED}
_ERRORS: dict[int, dict[int, dict[int, str]]] = {
    4: {3: _UNREACHABLE4, 11: _IN_TRANSIT, 12: {}},
    6: {1: _UNREACHABLE6, 3: _IN_TRANSIT, 4: {1: _NO_PROTOCOL}},
}
ERROR_TYPES = {version: tuple(types) for version, types in _ERRORS.items()}


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of a probe: the gateway, and the VIP at some backend; `protocol` is TCP or UDP by its number."""

    protocol: int
    source: IPAddress
    source_port: int
    vip: IPAddress
    vip_port: int


@dataclass(frozen=True, slots=True)
class Tunnel:
    """An outer header; without `gue_port`, the packet is in IP at once."""

    source: IPAddress
    backend: IPAddress
    gue_port: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the VIP says: of a TCP segment its flags and what it acknowledges, of a datagram its payload."""

    ends: Ends
    flags: int = 0
    acknowledged: int = 0
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a host says of a probe that it could not deliver, in an ICMP error.

    Attributes:
        ends: the probe's.
        sequence: of its TCP segment; 0 of a datagram.
        words: what the error means.
        teller: who says so.
        of_tunnel: whether the packet still was in its outer header.
    """

    ends: Ends
    sequence: int
    words: str
    teller: IPAddress
    of_tunnel: bool

    @property
    def takes_no_tunnel(self) -> bool:
        """Whether the backend does not know what to do with an outer header."""
        return self.of_tunnel and self.words in (_NO_PROTOCOL, _NO_PORT)

    @property
    def sends_it_on(self) -> bool:
        """Whether the backend is not the one that the packet is for."""
        return not self.of_tunnel and self.words == _TIME_EXCEEDED


Heard = Answer | Complaint


def segment(ends: Ends, flags: int, sequence: int) -> bytes:
    """An IP packet with a TCP segment that has no data."""
    options = _SEGMENT_SIZE if flags & SYN else b""
    offset = (_TCP_WORDS.size + len(options)) // 4 << 4
    header = _TCP_WORDS.pack(ends.source_port, ends.vip_port, sequence, 0, offset, flags, _WINDOW, 0, 0)
    return _packet(ends, header + options, 16)


def datagram(ends: Ends, payload: bytes) -> bytes:
    """An IP packet with a UDP datagram."""
    header = _UDP_WORDS.pack(ends.source_port, ends.vip_port, _UDP_WORDS.size + len(payload), 0)
    return _packet(ends, header + payload, 6)


def _packet(ends: Ends, transport: bytes, checksum_at: int) -> bytes:
    transport = _summed(ends.source, ends.vip, ends.protocol, transport, checksum_at)
    return _ip(ends.source, ends.vip, ends.protocol, _TTL, len(transport)) + transport


def tunnelled(packet: bytes, tunnel: Tunnel) -> bytes:
    """A packet with an outer header, as the program puts it before the packets of clients."""
    protocol = _IN_IP[packet[0] >> 4]
    if tunnel.gue_port:
        protocol = UDP
        inner = _HEADER_BYTES[packet[0] >> 4]
        port = _TUNNEL_PORTS | int.from_bytes(packet[inner : inner + 2]) & 0x3FFF  # one of its own for each probe
        packet = _UDP_WORDS.pack(port, tunnel.gue_port, _UDP_WORDS.size + len(packet), 0) + packet
        if tunnel.backend.version == 6:  # over IPv4 there need be none (RFC 768)
            packet = _summed(tunnel.source, tunnel.backend, UDP, packet, 6)
    return _ip(tunnel.source, tunnel.backend, protocol, _OUTER_TTL, len(packet)) + packet


def _ip(source: IPAddress, destination: IPAddress, protocol: int, ttl: int, length: int) -> bytes:
    """The header before so many bytes."""
    ends = source.packed, destination.packed
    if source.version == 6:
        return _IPV6_WORDS.pack(6 << 28, length, protocol, ttl, *ends)
    # One that is not to be fragmented needs no number (RFC 6864).
    header = _IPV4_WORDS.pack(0x45, 0, _IPV4_WORDS.size + length, 0, _DONT_FRAGMENT, ttl, protocol, 0, *ends)
    return _with_checksum(header, sum_words(header), 10)


def _summed(source: IPAddress, destination: IPAddress, protocol: int, transport: bytes, at: int) -> bytes:
    """A transport header and what follows it, with the checksum over them and the pseudo-header."""
    pseudo_header = source.packed + destination.packed + struct.pack("!II", len(transport), protocol)
    return _with_checksum(transport, sum_words(pseudo_header + transport + bytes(len(transport) % 2)), at)


def _with_checksum(data: bytes, sum_: int, at: int) -> bytes:
    checksum = ~sum_ & 0xFFFF or 0xFFFF  # UDP's 0 means none; for the others both are the same number
    return data[:at] + struct.pack("<H", checksum) + data[at + 2 :]


def heard(packet: bytes) -> Iterator[Heard]:
    """What an IP packet may say of a probe.

    An ICMP error about UDP may be about a probe, or about a tunnel with one in it: both are answered. Checksums are not
    looked at: those of packets from the same machine may not have been made yet, and addresses, ports and sequence
    numbers are to match anyway.
    """
    found = _opened(packet)
    if found is None or found.fragment:
        return
    if found.protocol in (TCP, UDP):
        answer = _answer(found)
        if answer is not None:
            yield answer
    elif found.protocol == (socket.IPPROTO_ICMP if found.source.version == 4 else socket.IPPROTO_ICMPV6):
        yield from _complaints(found)


@dataclass(frozen=True, slots=True)
class _Opened:
    source: IPAddress
    destination: IPAddress
    protocol: int
    fragment: int  # its offset
    payload: bytes


def _opened(packet: bytes) -> _Opened | None:
    """What is behind an IP header, as far as it is there; None if it is none, or one with extensions."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= _IPV4_WORDS.size:
        first, _, length, _, fragment, _, protocol, _, *ends = _IPV4_WORDS.unpack_from(packet)
        begin, end = (first & 0xF) * 4, length
    elif version == 6 and len(packet) >= _IPV6_WORDS.size:
        _, length, protocol, _, *ends = _IPV6_WORDS.unpack_from(packet)
        begin, fragment, end = _IPV6_WORDS.size, 0, _IPV6_WORDS.size + length
    else:
        return None
    return _Opened(ip_address(ends[0]), ip_address(ends[1]), protocol, fragment & 0x1FFF, packet[begin:end])


def _answer(found: _Opened) -> Answer | None:
    """Its ends are those of the probe that it answers."""
    payload = found.payload
    if len(payload) < (_TCP_WORDS if found.protocol == TCP else _UDP_WORDS).size:
        return None
    vip_port, source_port = struct.unpack_from("!HH", payload)
    ends = Ends(found.protocol, found.destination, source_port, found.source, vip_port)
    if found.protocol == TCP:
        return Answer(ends, flags=payload[13], acknowledged=int.from_bytes(payload[8:12]))
    return Answer(ends, payload=payload[_UDP_WORDS.size : int.from_bytes(payload[4:6])])


def _complaints(found: _Opened) -> Iterator[Complaint]:
    codes = _ERRORS[found.source.version].get(found.payload[0]) if len(found.payload) > 8 else None
    if codes is None:
        return
    type_, code = found.payload[:2]
    words = codes.get(code, f"ICMP error {type_}, code {code}")
    quoted, of_tunnel = _opened(found.payload[8:]), False
    while quoted is not None:
        inner = None
        if quoted.protocol in (TCP, UDP) and len(quoted.payload) >= 8:
            source_port, vip_port = struct.unpack_from("!HH", quoted.payload)
            ends = Ends(quoted.protocol, quoted.source, source_port, quoted.destination, vip_port)
            sequence = int.from_bytes(quoted.payload[4:8]) if quoted.protocol == TCP else 0
            yield Complaint(ends, sequence, words, found.source, of_tunnel)
            if quoted.protocol == UDP:
                inner = _opened(quoted.payload[_UDP_WORDS.size :])
        elif quoted.protocol in _IN_IP.values():
            inner = _opened(quoted.payload)
        if of_tunnel:  # there is no more than one
            return
        quoted, of_tunnel = inner, True
