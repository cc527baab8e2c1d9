"""The VIPs' tables in the slots map: where each is, and how it is laid out.

A region is a header line, the lines of the slots, those of the turns for schedulers that need them, and while some
slots are unsettled the lines of the previous slots (``struct table_header`` in ``bpf/abi.h``). A slot is a backend's
number and a flag.
"""

import struct
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import ne
from typing import ClassVar, Self

from l4lb.balance import maglev
from l4lb.balance.slots import NOBODY, Table, retarget
from l4lb.errors import L4lbError
from l4lb.model import Scheduler
from l4lb.plan import turns
from l4lb.plan.limits import Limits
from l4lb.plan.records import EMPTY, BackendRecord, Region, TableRecord, TableSource
from l4lb.plan.stretches import Stretches

LINE = 64
TURN_SCHEDULERS = {0: None, 3: Scheduler.ROUND_ROBIN, 4: Scheduler.LEAST_CONNECTIONS}  # enum scheduler
_TURN_NUMBERS = {scheduler: number for number, scheduler in TURN_SCHEDULERS.items()}


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a region.

    Attributes:
        previous_line, previous_slots: where previous slots are, and how many.
        learning_until: the tick until which UDP flows without a record are taken for old ones.
        turns_line, turns: where the turns are, and how many.
        turns_for: the scheduler that they are for.
    """

    previous_line: int
    previous_slots: int
    learning_until: int
    turns_line: int
    turns: int
    turns_for: Scheduler | None

    _LAYOUT: ClassVar = struct.Struct("<6I")

    @property
    def turn_slots(self) -> int:
        """How many slots the turns take."""
        return self.turns * turns.width(self.turns_for)

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """From the map."""
        previous_line, previous_slots, learning_until, turns_line, turns, turns_for = cls._LAYOUT.unpack_from(line)
        return cls(previous_line, previous_slots, learning_until, turns_line, turns, TURN_SCHEDULERS[turns_for])

    def encode(self) -> bytes:
        """As it lies in the map."""
        return self._LAYOUT.pack(
            self.previous_line,
            self.previous_slots,
            self.learning_until,
            self.turns_line,
            self.turns,
            _TURN_NUMBERS[self.turns_for],
        ).ljust(LINE, b"\0")


def sources(
    vips: Mapping[int, Scheduler],
    backends: Mapping[int, tuple[BackendRecord, int]],
    sizes: Mapping[int, int],
    seed: int,
) -> dict[int, TableSource]:
    """What each VIP's table is made from, by the VIP's number.

    Args:
        vips: their schedulers, by number.
        backends: records and weights by number.
        sizes: by the VIP's number, how many backends its table has to have slots for.
        seed: the configuration's.
    """
    members: dict[int, list[tuple[int, str, int]]] = {number: [] for number in vips}
    for number, (record, weight) in backends.items():
        members[record.vip].append((number, str(record.endpoint), weight))
    return {
        number: TableSource(
            tuple(sorted(members[number])),
            seed,
            maglev.table_size(sizes[number]),
            scheduler if scheduler in _TURN_NUMBERS else None,
        )
        for number, scheduler in vips.items()
    }


@dataclass(frozen=True, slots=True)
class Placed:
    """Where all tables are to be.

    Attributes:
        tables: each VIP's, by the VIP's number.
        contents: of the regions that have to be written.
        moved: how many slots get another backend, by the number of each VIP whose table changes.
    """

    tables: dict[int, TableRecord]
    contents: dict[Region, bytes]
    moved: dict[int, int]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a region holds: a table, and turns as slots for a scheduler that needs them."""

    table: Table = Table.settled(())  # noqa: RUF009 - it does not change
    turns: tuple[int, ...] = ()
    turns_for: Scheduler | None = None


def place(
    wanted: Mapping[int, TableSource],
    found: Mapping[int, TableRecord],
    read: Callable[[Region], Contents],
    untouched: Collection[int],
    learning_until: Mapping[int, int],
    limits: Limits,
) -> Placed:
    """Finds each VIP's table a place.

    A table that is right stays where it is; any other goes to a region that holds none.

    Args:
        wanted: what each table is to be made from, by the VIP's number.
        found: what there is, by the VIP's number.
        read: tells what a region holds.
        untouched: numbers of VIPs that have no flow yet, so that none has to be kept.
        learning_until: by the VIP's number, the tick until which UDP flows without a record are taken for old.
        limits: of the maps.
    """
    free = Stretches(((table.region.first_line, table.region.lines) for table in found.values()), limits.slot_lines)
    placed: dict[int, TableRecord] = {}
    encoded: dict[Region, bytes] = {}
    moved: dict[int, int] = {}
    for number, source in wanted.items():
        old = found.get(number, TableRecord(EMPTY))
        if old.source == source:
            placed[number] = old
            continue
        before = read(old.region)
        after = _contents(source, Contents() if number in untouched else before)
        moved[number] = _moved(before.table.current, after.table.current)
        if after == before:
            placed[number] = TableRecord(old.region, source)
        elif not any(backend != NOBODY for backend in after.table.current) and not after.table.previous:
            placed[number] = TableRecord(EMPTY, source)
        else:
            slots, previous = len(after.table.current), len(after.table.previous)
            shape = _region(0, slots, len(after.turns), previous, limits)
            first_line = free.take(shape.lines)
            if first_line is None:
                raise L4lbError(
                    f"the maps have no room for another table of {slots:,} slots", "remove VIPs that are not needed"
                )
            region = replace(shape, first_line=first_line)
            encoded[region] = encode(after, region, learning_until[number], limits)
            placed[number] = TableRecord(region, source)
    return Placed(placed, encoded, moved)


def _moved(before: Sequence[int], after: Sequence[int]) -> int:
    """How many slots have another backend; all of them, if it is another number of slots."""
    if len(before) != len(after):
        return max(len(before), len(after))
    return sum(map(ne, before, after))


def _contents(source: TableSource, before: Contents) -> Contents:
    """What a source makes of what there was."""
    chosen = [(number, identity, weight) for number, identity, weight in source.members if weight]
    if chosen:
        places = maglev.build([(identity, weight) for _, identity, weight in chosen], source.size, source.seed)
        numbers = [number for number, _, _ in chosen]
        wanted = list(map(numbers.__getitem__, places))
    else:
        wanted = [NOBODY] * len(before.table.current)
    if before.table.current:
        table = retarget(before.table, wanted, {number for number, _, _ in source.members})
    else:
        table = Table.settled(wanted)
    in_turn = turns.turns(source.turns, [(number, weight) for number, _, weight in chosen])
    return Contents(table, tuple(in_turn), source.turns)


def encode(contents: Contents, region: Region, learning_until: int, limits: Limits) -> bytes:
    """A table as it lies in its region."""
    table = contents.table
    turns_line = region.first_line + 1 + _lines(len(table.current), limits)
    header = Header(
        previous_line=turns_line + _lines(len(contents.turns), limits),
        previous_slots=len(table.previous),
        learning_until=learning_until,
        turns_line=turns_line,
        turns=len(contents.turns) // turns.width(contents.turns_for),
        turns_for=contents.turns_for,
    )
    return (
        header.encode()
        + _padded(encode_slots(table.current, table.unsettled, limits))
        + _padded(array(limits.slot_type, contents.turns).tobytes())
        + _padded(encode_slots(table.previous, bytes(len(table.previous)), limits))
    )


def decode(read: Callable[[int, int], bytes], region: Region, limits: Limits) -> Contents:
    """What lies in a region; `read` answers so many bytes from the start of a line."""
    if not region.slots:
        return Contents()
    header = Header.decode(read(region.first_line, LINE))
    current, unsettled = decode_slots(read(region.first_line + 1, region.slots * limits.slot_bytes), limits)
    previous, _ = decode_slots(read(header.previous_line, header.previous_slots * limits.slot_bytes), limits)
    in_turn = array(limits.slot_type, read(header.turns_line, header.turn_slots * limits.slot_bytes))
    return Contents(Table(current, unsettled, previous or ()), tuple(in_turn), header.turns_for)


def region_at(first_line: int, slots: int, read: Callable[[int, int], bytes], limits: Limits) -> Region:
    """The region that a VIP's record leads to; `read` as in :func:`decode`."""
    if not slots:
        return EMPTY
    header = Header.decode(read(first_line, LINE))
    return _region(first_line, slots, header.turn_slots, header.previous_slots, limits)


def encode_slots(numbers: Sequence[int], flags: bytes, limits: Limits) -> bytes:
    """Slots as they lie in the map: numbers, and flags as the top bits."""
    flag = limits.slot_flag
    nobody = flag - 1
    values = (
        (nobody if number == NOBODY else number) | (flag if flagged else 0)
        for number, flagged in zip(numbers, flags, strict=True)
    )
    return array(limits.slot_type, values).tobytes()


def decode_slots(data: bytes, limits: Limits) -> tuple[list[int], bytes]:
    """Numbers and flags of slots as they lie in the map."""
    flag = limits.slot_flag
    values = array(limits.slot_type, data)
    numbers = [NOBODY if value & (flag - 1) == flag - 1 else value & (flag - 1) for value in values]
    return numbers, bytes(value >= flag for value in values)


def _region(first_line: int, slots: int, turns: int, previous_slots: int, limits: Limits) -> Region:
    lines = 1 + _lines(slots, limits) + _lines(turns, limits) + _lines(previous_slots, limits)
    return Region(first_line, slots, previous_slots, lines)


def _lines(slots: int, limits: Limits) -> int:
    return -(-slots // limits.slots_per_line)


def _padded(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // LINE) * LINE, b"\0")
