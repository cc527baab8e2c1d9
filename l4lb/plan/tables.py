"""The VIPs' tables in the slots map: where each is, and how it is laid out.

A region is a header line, the lines of the slots, and while some are unsettled the lines of the previous slots
(``struct table_header`` in ``bpf/abi.h``). A slot is a backend's number and a flag.
"""

import struct
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from l4lb.balance import maglev
from l4lb.balance.slots import NOBODY, Table, retarget
from l4lb.errors import L4lbError
from l4lb.plan.limits import Limits
from l4lb.plan.records import EMPTY, BackendRecord, Region, TableRecord, TableSource

LINE = 64
_HEADER = struct.Struct("<III")  # previous line, previous slots, learning until


def sources(
    vips: Iterable[int], backends: Mapping[int, tuple[BackendRecord, int]], seed: int
) -> dict[int, TableSource]:
    """What each VIP's table is made from, by the VIP's number; `backends` are records and weights by number."""
    members: dict[int, list[tuple[int, str, int]]] = {number: [] for number in vips}
    for number, (record, weight) in backends.items():
        members[record.vip].append((number, str(record.endpoint), weight))
    return {number: TableSource(tuple(sorted(chosen)), seed) for number, chosen in members.items()}


def place(
    wanted: Mapping[int, TableSource],
    found: Mapping[int, TableRecord],
    read: Callable[[Region], Table],
    untouched: Collection[int],
    learning_until: Mapping[int, int],
    limits: Limits,
) -> tuple[dict[int, TableRecord], dict[Region, bytes]]:
    """Each VIP's table, and the contents of the regions that have to be written.

    A table that is right stays where it is; any other goes to a region that holds none.

    Args:
        wanted: what each table is to be made from, by the VIP's number.
        found: what there is, by the VIP's number.
        read: tells what a region holds.
        untouched: numbers of VIPs that have no flow yet, so that none has to be kept.
        learning_until: by the VIP's number, the tick until which UDP flows without a record are taken for old.
        limits: of the maps.
    """
    free = _FreeLines(found.values(), limits)
    placed: dict[int, TableRecord] = {}
    contents: dict[Region, bytes] = {}
    for number, source in wanted.items():
        old = found.get(number, TableRecord(EMPTY))
        if old.source == source:
            placed[number] = old
            continue
        before = read(old.region) if old.region.slots else Table.settled(())
        table = _table(source, Table.settled(()) if number in untouched else before)
        if table == before:
            placed[number] = TableRecord(old.region, source)
        elif not any(backend != NOBODY for backend in table.current) and not table.previous:
            placed[number] = TableRecord(EMPTY, source)
        else:
            region = free.take(len(table.current), len(table.previous))
            contents[region] = encode(table, region, learning_until[number], limits)
            placed[number] = TableRecord(region, source)
    return placed, contents


def _table(source: TableSource, before: Table) -> Table:
    """The table that a source makes of the one before it."""
    chosen = [(number, identity, weight) for number, identity, weight in source.members if weight]
    if chosen:
        size = maglev.table_size(len(chosen))
        places = maglev.build([(identity, weight) for _, identity, weight in chosen], size, source.seed)
        numbers = [number for number, _, _ in chosen]
        wanted = list(map(numbers.__getitem__, places))
    else:
        wanted = [NOBODY] * len(before.current)
    if not before.current:
        return Table.settled(wanted)
    return retarget(before, wanted, {number for number, _, _ in source.members})


def encode(table: Table, region: Region, learning_until: int, limits: Limits) -> bytes:
    """A table as it lies in its region."""
    previous_line = region.first_line + 1 + _lines(len(table.current), limits)
    header = _HEADER.pack(previous_line, len(table.previous), learning_until)
    return (
        header.ljust(LINE, b"\0")
        + _padded(encode_slots(table.current, table.unsettled, limits))
        + _padded(encode_slots(table.previous, bytes(len(table.previous)), limits))
    )


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


def decode_header(header: bytes) -> tuple[int, int, int]:
    """First line and number of a region's previous slots, and the tick until which UDP flows are learned."""
    line, slots, learning_until = _HEADER.unpack_from(header)
    return line, slots, learning_until


def region_of(first_line: int, slots: int, previous_slots: int, limits: Limits) -> Region:
    """The region of a table with so many slots."""
    if not slots:
        return EMPTY
    return Region(first_line, slots, 1 + _lines(slots, limits) + _lines(previous_slots, limits))


def _lines(slots: int, limits: Limits) -> int:
    return -(-slots // limits.slots_per_line)


def _padded(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // LINE) * LINE, b"\0")


class _FreeLines:
    """The stretches of the slots map that no table lies in; taken first fit."""

    def __init__(self, tables: Iterable[TableRecord], limits: Limits) -> None:
        self._limits = limits
        self._gaps: list[tuple[int, int]] = []  # first line, lines
        position = 0
        for region in sorted((table.region for table in tables if table.region.slots), key=lambda r: r.first_line):
            self._gaps.append((position, region.first_line - position))
            position = region.first_line + region.lines
        self._gaps.append((position, limits.slot_lines - position))

    def take(self, slots: int, previous_slots: int) -> Region:
        """A free region for a table of so many slots."""
        for place, (first, size) in enumerate(self._gaps):
            region = region_of(first, slots, previous_slots, self._limits)
            if size >= region.lines:
                self._gaps[place] = (first + region.lines, size - region.lines)
                return region
        raise L4lbError(
            f"the maps have no room for another table of {slots:,} slots", "remove VIPs that are not needed"
        )
