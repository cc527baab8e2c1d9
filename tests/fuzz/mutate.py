"""Small damages to a frame, as a broken or hostile sender does them."""

import random
import struct
from collections.abc import Callable

from tests.fuzz.frames import renewed

_TAGS = (b"\x81\x00", b"\x88\xa8")
_PROTOCOLS = (0, 1, 2, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135, 253, 255)
_NUMBERS = (0, 1, 7, 8, 19, 20, 39, 40, 41, 0x7F, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF)
LEAST, MOST = 14, 3_000  # bytes of a frame: a test run takes an Ethernet header or more, and what fits a page

Mutation = Callable[[random.Random, bytearray], None]


def mutated(chance: random.Random, frame: bytes) -> bytes:
    """A frame that is damaged once to four times; in half of the cases the checksums are right afterwards."""
    damaged = bytearray(frame)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 4))):
        if len(damaged) < 34:
            break
        chance.choice(_MUTATIONS)(chance, damaged)
    made = bytes(damaged[:MOST]).ljust(LEAST, b"\0")
    return renewed(made) if chance.random() < 0.5 else made


def _ip_at(frame: bytearray) -> int:
    """Where the IP header begins, by the VLAN tags that there are."""
    at = 14
    while bytes(frame[at - 2 : at]) in _TAGS and at < 22:
        at += 4
    return at


def _is_ipv6(frame: bytearray) -> bool:
    ip = _ip_at(frame)
    return bytes(frame[ip - 2 : ip]) == b"\x86\xdd"


def _transport_at(frame: bytearray) -> int:
    ip = _ip_at(frame)
    return ip + (40 if _is_ipv6(frame) else (frame[ip] & 15) * 4 if ip < len(frame) else 20)


def _place(frame: bytearray, at: int, size: int) -> bool:
    return at >= 0 and at + size <= len(frame)


def _store(frame: bytearray, at: int, value: int) -> None:
    """16 bits in network order, if they are there."""
    if _place(frame, at, 2):
        struct.pack_into("!H", frame, at, value & 0xFFFF)


def _load(frame: bytearray, at: int) -> int:
    return int.from_bytes(frame[at : at + 2], "big")


def _flip(chance: random.Random, frame: bytearray) -> None:
    frame[chance.randrange(min(len(frame), chance.choice((60, 100, MOST))))] ^= 1 << chance.randrange(8)


def _byte(chance: random.Random, frame: bytearray) -> None:
    at = chance.randrange(min(len(frame), chance.choice((60, 100, MOST))))
    frame[at] = chance.choice((0, 1, 255, chance.randrange(256)))


def _word(chance: random.Random, frame: bytearray) -> None:
    at = chance.randrange(12, max(13, min(len(frame), chance.choice((60, 100, MOST))) - 1))
    _store(frame, at, chance.choice(_NUMBERS))


def _length(chance: random.Random, frame: bytearray) -> None:
    """Of IP or UDP, a little or entirely wrong."""
    ip = _ip_at(frame)
    at = chance.choice((ip + (4 if _is_ipv6(frame) else 2),) * 2 + (_transport_at(frame) + 4,))
    near = _load(frame, at) + chance.choice((-21, -20, -9, -8, -4, -2, -1, 1, 2, 4, 8, 20, 100))
    _store(frame, at, chance.choice((near, near, chance.choice(_NUMBERS), chance.randrange(0x10000))))


def _header_length(chance: random.Random, frame: bytearray) -> None:
    """Of IPv4, or of TCP."""
    ip, transport = _ip_at(frame), _transport_at(frame)
    if chance.random() < 0.5 and not _is_ipv6(frame) and ip < len(frame):
        frame[ip] = frame[ip] & 0xF0 | chance.choice((0, 4, 5, 6, 7, 14, 15))
    elif transport + 12 < len(frame):
        frame[transport + 12] = frame[transport + 12] & 15 | chance.choice((0, 1, 4, 5, 6, 8, 15)) << 4


def _cut(chance: random.Random, frame: bytearray) -> None:
    end = chance.choice((len(frame), min(len(frame), 120)))
    del frame[chance.randrange(14, end + 1) :]


def _cut_rightly(chance: random.Random, frame: bytearray) -> None:
    """With the length in the IP header that it has then."""
    _cut(chance, frame)
    ip = _ip_at(frame)
    _store(frame, ip + (4 if _is_ipv6(frame) else 2), max(0, len(frame) - ip - (40 if _is_ipv6(frame) else 0)))


def _pad(chance: random.Random, frame: bytearray) -> None:
    """Bytes after the IP packet, as Ethernet has them after a short one."""
    frame += chance.randbytes(chance.choice((1, 2, 6, 46, 200)))


def _ttl(chance: random.Random, frame: bytearray) -> None:
    at = _ip_at(frame) + (7 if _is_ipv6(frame) else 8)
    if at < len(frame):
        frame[at] = chance.choice((0, 1, 2, 255))


def _protocol(chance: random.Random, frame: bytearray) -> None:
    at = _ip_at(frame) + (6 if _is_ipv6(frame) else 9)
    if at < len(frame):
        frame[at] = chance.choice(_PROTOCOLS)


def _fragment(chance: random.Random, frame: bytearray) -> None:
    """An IPv4 packet becomes a fragment, an IPv6 one gets a header that says so."""
    if _is_ipv6(frame):
        header = struct.pack("!BBHI", 0, 0, chance.choice((0, 1, 8, 9, 0x100, 0xFFF9)), chance.randrange(4))
        _insert_extension(chance, frame, 44, header)
    else:
        ip = _ip_at(frame)
        _store(frame, ip + 4, chance.randrange(4))
        _store(frame, ip + 6, chance.choice((0x2000, 0x2001, 0x0001, 0x00B9, 0x4000, 0x8000, 0x6000, 0x3FFF, 0x1FFF)))


def _insert_extension(chance: random.Random, frame: bytearray, number: int, header: bytes) -> None:
    ip = _ip_at(frame)
    if not _place(frame, ip, 40):
        return
    header = bytes(frame[ip + 6 : ip + 7]) + header[1:]
    frame[ip + 6] = number
    frame[ip + 40 : ip + 40] = header
    if chance.random() < 0.8:
        _store(frame, ip + 4, _load(frame, ip + 4) + len(header))


def _insert(chance: random.Random, frame: bytearray) -> None:
    """An extension header, or IPv4 options."""
    size = chance.choice((8, 8, 16, 24))
    if _is_ipv6(frame):
        number = chance.choice((0, 43, 60, 60, 44, 51))
        length = chance.choice((size // 8 - 1,) * 4 + (0, 31, 255))
        rest = chance.choice((b"\0\0", b"\0\1", b"\0\0"))
        _insert_extension(chance, frame, number, bytes((0, length)) + rest + bytes(size - 4))
        return
    ip = _ip_at(frame)
    words = chance.choice((1, 2, 3, 10))
    if _place(frame, ip, 20) and (frame[ip] & 15) + words < 16:
        frame[ip] += words
        frame[ip + 20 : ip + 20] = chance.choice((b"\1", b"\0", b"\x07")) * (4 * words)
        if chance.random() < 0.8:
            _store(frame, ip + 2, _load(frame, ip + 2) + 4 * words)


def _tag(chance: random.Random, frame: bytearray) -> None:
    """A VLAN tag more, or one less."""
    if bytes(frame[12:14]) in _TAGS and chance.random() < 0.3:
        del frame[12:16]
    else:
        frame[12:12] = chance.choice(_TAGS) + chance.randrange(0x10000).to_bytes(2, "big")


def _mac(chance: random.Random, frame: bytearray) -> None:
    frame[chance.randrange(6)] ^= 1 << chance.randrange(8)


def _checksum(chance: random.Random, frame: bytearray) -> None:
    """None, or a wrong one."""
    transport = _transport_at(frame)
    at = chance.choice((transport + 6, transport + 16, transport + 2, _ip_at(frame) + 10))
    _store(frame, at, chance.choice((0, 0xFFFF, chance.randrange(0x10000))))


def _flags(chance: random.Random, frame: bytearray) -> None:
    at = _transport_at(frame) + 13
    if at < len(frame):
        frame[at] = chance.choice((0, 1, 2, 4, 16, 17, 18, 20, 3, 6, 63, 255))


def _option(chance: random.Random, frame: bytearray) -> None:
    """TCP options that contradict themselves."""
    at = _transport_at(frame) + 20 + chance.randrange(12)
    if _place(frame, at, 4):
        frame[at] = chance.choice((0, 1, 2, 2, 3, 5, 8, 255))
        frame[at + 1] = chance.choice((0, 1, 2, 3, 4, 4, 10, 38, 40, 255))


def _quote(chance: random.Random, frame: bytearray) -> None:
    """What an ICMP error quotes, if it is one."""
    at = _transport_at(frame) + 8 + chance.randrange(48)
    if at < len(frame):
        frame[at] = chance.choice((0, 255, frame[at] ^ 1 << chance.randrange(8), 0x45, 0x46, 0x60))


_MUTATIONS: tuple[Mutation, ...] = (
    *(_flip, _byte, _word, _length, _length, _header_length, _cut, _cut_rightly, _pad, _ttl, _protocol),
    *(_fragment, _insert, _insert, _tag, _mac, _checksum, _flags, _option, _quote, _quote),
)
