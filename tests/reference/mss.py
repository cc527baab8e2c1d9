"""The segment size that a SYN announces."""

from tests.reference.parse import Kind, Packet
from tests.reference.translate import place16, read16, update_transport

MAX_OPTIONS = 10  # that are looked at
_END, _NO_OPERATION, _MSS = 0, 1, 2
_SYN = 2


def clamp(packet: Packet, frame: bytearray, most: int) -> None:
    """Lowers it to `most` bytes in `frame`, if that is not 0 and there is such an option.

    SYNs in fragments or behind IPv6 extension headers are left alone, as are those whose options end behind the packet.
    """
    flags = packet.tcp_flags
    if not most or packet.kind is not Kind.PLAIN or flags is None or not flags & _SYN:
        return
    if packet.v6 and packet.transport != packet.ip + 40:
        return
    at, end = packet.transport + 20, packet.transport + (frame[packet.transport + 12] >> 4) * 4
    if end > packet.end:
        return
    for _ in range(MAX_OPTIONS):
        if at + 4 > end or frame[at] == _END:
            return
        if frame[at] == _NO_OPERATION:
            at += 1
        elif frame[at] == _MSS and frame[at + 1] == 4:
            if read16(frame, at + 2) > most:
                before = bytes(frame)
                place16(frame, at + 2, most)
                update_transport(frame, before, packet)
            return
        elif frame[at + 1] < 2:
            return
        else:
            at += frame[at + 1]
