"""Packets whose checksums come out as 0, which chance alone would make one of in 65,536: 0 has two forms."""

import random

from tests.fuzz.frames import CHECK_AT
from tests.reference.parse import TCP, UDP, Kind, Packet, parse
from tests.reference.translate import place16, read16

_OUTER = 48  # bytes of IPv6 and UDP around a packet
_MOST = 0xFFFF


def to_zero(chance: random.Random, frame: bytes, left: bytes) -> bytes | None:
    """A frame that came again, changed so that one of the checksums that it leaves with has to be 0.

    None where there is nothing that could be changed to that end.

    Args:
        chance: says which checksum.
        frame: as it came.
        left: as it was forwarded to a backend.
    """
    came, goes = (parse(each, ipv6=True, vlans=True) for each in (frame, left))
    if not isinstance(came, Packet) or not isinstance(goes, Packet):
        return None
    if came.kind is not Kind.PLAIN or goes.kind is not Kind.PLAIN:
        return None
    made = bytearray(frame)
    if came.v6 and goes.v6 and goes.protocol == UDP and goes.total == came.total + _OUTER:
        # The flow label is in no checksum but the outer one.
        _add(made, came.ip + 2, read16(left, goes.transport + CHECK_AT[UDP]))
        return bytes(made)
    if not came.v6 and not goes.v6 and chance.random() < 0.5:
        check = read16(left, goes.ip + 10)
        _add(made, came.ip + 4, check)
        _add(made, came.ip + 10, _MOST - check)
        return bytes(made)
    payload = came.transport + (20 if came.protocol == TCP else 8)
    if goes.protocol != came.protocol or payload + 2 > min(came.end, len(frame)) or goes.total != came.total:
        return None
    check = read16(left, goes.transport + CHECK_AT[goes.protocol])
    at = came.transport + CHECK_AT[came.protocol]
    if not check or not read16(frame, at):
        return None
    _add(made, payload, check)
    _add(made, at, _MOST - check)
    return bytes(made)


def _add(frame: bytearray, at: int, value: int) -> None:
    """To 16 bits, as one's complement has it; a sum of 0 in the form that says that there is a checksum."""
    place16(frame, at, (read16(frame, at) + value) % _MOST or _MOST)
