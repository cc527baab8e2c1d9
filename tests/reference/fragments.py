"""Records of first fragments, by which later ones go."""

from dataclasses import dataclass

from l4lb.model import Endpoint
from tests.reference.connections import Connection
from tests.reference.parse import Packet
from tests.reference.services import Target, address_of
from tests.reference.world import Way, World

LIFE = 30  # ticks
TICKS = 0xFFFFFF
PER_LINE = 4
ANY_DATAGRAM = 1 << 40
_WORD = (1 << 64) - 1
_WAYS: dict[Way, int] = {"to_vip": 1, "from_backend": 2}
_PLACE = 16  # added to a way: a record of the connection


@dataclass(frozen=True, slots=True)
class Place:
    """Where the connection of a datagram by fullnat is."""

    number: int
    connection: Connection


@dataclass(slots=True)
class _Record:
    key: tuple[object, ...]
    told: Target | Place
    seen: int


class Fragments:
    """The table of records: as bounded as the program's, or without bounds."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._unbounded: dict[tuple[object, ...], _Record] = {}
        self._lines: dict[int, list[_Record | None]] = {}

    def remember(self, packet: Packet, way: Way, target: Target) -> None:
        """Records whose a first fragment is: for its own datagram, and for any between its addresses."""
        self._write(packet, _WAYS[way], packet.datagram, target)
        self._write(packet, _WAYS[way], ANY_DATAGRAM, target)

    def remember_place(self, packet: Packet, way: Way, place: Place) -> None:
        """Records which connection a first fragment belongs to.

        By fullnat the gateway's address stands for many clients, so an answer tells of its own datagram only.
        """
        self._write(packet, _WAYS[way] + _PLACE, packet.datagram, place)
        if way == "to_vip":
            self._write(packet, _WAYS[way] + _PLACE, ANY_DATAGRAM, place)

    def recall(self, packet: Packet, way: Way) -> Target | None:
        """Whose a later fragment is, if its first one told lately, or another datagram's did.

        One that is not of TCP or UDP, as far as it tells, may still be: RFC 8200 §4.5 goes by the first one alone.
        """
        told = self._read(packet, _WAYS[way], packet.datagram)
        if told is None and packet.is_flow:
            told = self._read(packet, _WAYS[way], ANY_DATAGRAM)
        return told if isinstance(told, Target) else None

    def recall_place(self, packet: Packet, way: Way) -> Place | None:
        """Which connection it belongs to."""
        told = self._read(packet, _WAYS[way] + _PLACE, packet.datagram)
        if told is None and way == "to_vip":
            told = self._read(packet, _WAYS[way] + _PLACE, ANY_DATAGRAM)
        return told if isinstance(told, Place) else None

    def _read(self, packet: Packet, way: int, datagram: int) -> Target | Place | None:
        key, now = (way, packet.source, packet.destination, datagram), self._world.now()
        if self._world.fragment_lines:
            line = self._lines.get(self._line(packet, way, datagram), [])
            record = next((record for record in line if record is not None and record.key == key), None)
        else:
            record = self._unbounded.get(key)
        if record is None or now - record.seen & TICKS > LIFE:
            return None
        record.seen = now
        return record.told

    def _write(self, packet: Packet, way: int, datagram: int, told: Target | Place) -> None:
        record = _Record((way, packet.source, packet.destination, datagram), told, self._world.now())
        if not self._world.fragment_lines:
            self._unbounded[record.key] = record
            return
        line = self._lines.setdefault(self._line(packet, way, datagram), [None] * PER_LINE)
        line[_place_for(record, line)] = record

    def _line(self, packet: Packet, way: int, datagram: int) -> int:
        """Where the program has a record: it finds room in that line or makes it there."""
        _, _, middle, last = self._world.constants
        high, low = _words(packet.destination)
        value = self._world.flow_hash64(Endpoint(address_of(packet.source), 0), 0) ^ low
        value = (value ^ value >> 32) * middle & _WORD ^ high
        value = (value ^ value >> 32) * last & _WORD ^ (datagram << 8 | way)
        value = (value ^ value >> 32) * middle & _WORD
        return (value ^ value >> 32) >> 32 & self._world.fragment_lines - 1


def _place_for(record: _Record, line: list[_Record | None]) -> int:
    """Its own, the last free one, or that of the record which was used least recently."""
    for place, other in enumerate(line):
        if other is not None and other.key == record.key:
            return place
    free = [place for place, other in enumerate(line) if other is None]
    if free:
        return free[-1]
    ages = [record.seen - other.seen & TICKS for other in line if other is not None]
    return ages.index(max(ages))


def _words(address: bytes) -> tuple[int, int]:
    packed = address if len(address) == 16 else bytes(10) + b"\xff\xff" + address
    return int.from_bytes(packed[:8], "little"), int.from_bytes(packed[8:], "little")
