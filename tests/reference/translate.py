"""Rewriting of IP headers and of what they cover, the checksums by what all covered bytes were before and are then."""

from dataclasses import dataclass

from tests.reference.parse import TCP, UDP, Kind, Packet
from tests.reference.sums import carried_over

_CHECK_AT = {TCP: 16, UDP: 6}  # in the transport header
_EXPERIMENTAL = 253  # RFC 3692
_NO_NEXT_HEADER = 59

End = tuple[bytes, int]  # address and port


@dataclass(frozen=True, slots=True)
class Translation:
    """The new ends of a flow, None for one that stays.

    Attributes:
        any_source: whether an error leaves with the new source whoever sent it.
    """

    source: End | None = None
    destination: End | None = None
    any_source: bool = False


def place16(frame: bytearray, at: int, value: int) -> None:
    """Writes 16 bits in network order."""
    frame[at : at + 2] = value.to_bytes(2, "big")


def read16(frame: bytes | bytearray, at: int) -> int:
    """Reads 16 bits in network order."""
    return int.from_bytes(frame[at : at + 2], "big")


def write_address(frame: bytearray, ip: int, v6: bool, address: bytes, *, source: bool) -> None:
    """Writes an address into the IP header at `ip`."""
    size = len(address)
    at = ip + (8 if v6 else 12) + (0 if source else size)
    frame[at : at + size] = address


def addresses_at(frame: bytes | bytearray, ip: int, v6: bool) -> bytes:
    """Both addresses of the IP header at `ip`."""
    return bytes(frame[ip + 8 : ip + 40] if v6 else frame[ip + 12 : ip + 20])


def update_header(frame: bytearray, before: bytes, ip: int, v6: bool) -> None:
    """Makes the checksum of the IPv4 header at `ip` cover what it is now; IPv6 has none."""
    if not v6:
        end = ip + (before[ip] & 15) * 4
        place16(frame, ip + 10, carried_over(read16(before, ip + 10), before[ip:end], bytes(frame[ip:end])))


def decrement_ttl(frame: bytearray, packet: Packet) -> None:
    """As a router does."""
    before = bytes(frame)
    frame[packet.ip + (7 if packet.v6 else 8)] -= 1
    update_header(frame, before, packet.ip, packet.v6)


def _update_transport(
    frame: bytearray, before: bytes, protocol: int, v6: bool, ip: int, transport: int, end: int
) -> None:
    """Makes the checksum of a TCP or UDP header cover what it is now, if it is there and there is one."""
    at = transport + _CHECK_AT[protocol]
    if at + 2 > end:
        return
    check = read16(before, at)
    if protocol == UDP and not check:
        return  # the sender made none (RFC 768)
    now = carried_over(
        check,
        addresses_at(before, ip, v6) + before[transport:end],
        addresses_at(frame, ip, v6) + bytes(frame[transport:end]),
    )
    place16(frame, at, 0xFFFF if protocol == UDP and not now else now)


def update_transport(frame: bytearray, before: bytes, packet: Packet) -> None:
    """The same for the transport header of a packet that is no error."""
    _update_transport(frame, before, packet.protocol, packet.v6, packet.ip, packet.transport, packet.end)


def translated(packet: Packet, new: Translation, frame: bytearray) -> None:
    """Rewrites a packet in its frame, which may have been changed before."""
    decrement_ttl(frame, packet)
    if packet.kind is Kind.ERROR:
        _translate_error(packet, new, frame)
        return
    before = bytes(frame)
    for end, source, at in ((new.source, True, packet.transport), (new.destination, False, packet.transport + 2)):
        if end is not None:
            write_address(frame, packet.ip, packet.v6, end[0], source=source)
            if packet.kind is not Kind.LATER_FRAGMENT:
                place16(frame, at, end[1])
    update_header(frame, before, packet.ip, packet.v6)
    if packet.kind is not Kind.LATER_FRAGMENT:
        update_transport(frame, before, packet)


def _translate_error(packet: Packet, new: Translation, frame: bytearray) -> None:
    """An error quotes a packet that went the other way: where the flow goes to is where that came from."""
    before = bytes(frame)
    ip, inner, ports, v6 = packet.ip, packet.inner, packet.inner_transport, packet.v6
    size = len(packet.source)
    sender = addresses_at(before, ip, v6)[:size]
    if new.source is not None:
        if new.any_source or sender == packet.source:
            write_address(frame, ip, v6, new.source[0], source=True)
        write_address(frame, inner, v6, new.source[0], source=False)
        place16(frame, ports + 2, new.source[1])
    if new.destination is not None:
        write_address(frame, ip, v6, new.destination[0], source=False)
        write_address(frame, inner, v6, new.destination[0], source=True)
        place16(frame, ports, new.destination[1])
    update_header(frame, before, inner, v6)
    update_header(frame, before, ip, v6)
    _update_transport(frame, before, packet.protocol, v6, inner, ports, packet.end)
    update_icmp(frame, before, packet)


def update_icmp(frame: bytearray, before: bytes, packet: Packet) -> None:
    """Makes the checksum of an ICMP message cover what it is now; ICMPv6: the addresses, too (RFC 4443 §2.3)."""
    at, end = packet.transport, packet.end
    covered, covers = before[at:end], bytes(frame[at:end])
    if packet.v6:  # the addresses first: the message may end with half a word
        covered = addresses_at(before, packet.ip, True) + covered
        covers = addresses_at(frame, packet.ip, True) + covers
    place16(frame, at + 2, carried_over(read16(before, at + 2), covered, covers))


def emptied(packet: Packet, client: bytes) -> bytes:
    """A bare IP header to `client`, for which the kernel asks for its neighbour and which no host answers."""
    frame = bytearray(packet.frame)
    ip = packet.ip
    write_address(frame, ip, packet.v6, client, source=False)
    if packet.v6:
        place16(frame, ip + 4, 0)
        frame[ip + 6] = _NO_NEXT_HEADER
    else:
        place16(frame, ip + 2, (frame[ip] & 15) * 4)
        frame[ip + 9] = _EXPERIMENTAL
        update_header(frame, packet.frame, ip, False)
    return bytes(frame)
