"""Where the VIPs' tables are in the slots map, and what is in them."""

from array import array
from collections.abc import Iterable, Mapping

from l4lb.balance import maglev
from l4lb.errors import L4lbError
from l4lb.plan.limits import Limits
from l4lb.plan.records import EMPTY, BackendRecord, Region, TableRecord, TableSource


def sources(
    vips: Iterable[int], backends: Mapping[int, tuple[BackendRecord, int]], seed: int
) -> dict[int, TableSource]:
    """What each VIP's table is made from, by the VIP's number; `backends` are records and weights by number."""
    members: dict[int, list[tuple[int, str, int]]] = {number: [] for number in vips}
    for number, (record, weight) in backends.items():
        if weight:
            members[record.vip].append((number, str(record.endpoint), weight))
    return {number: TableSource(tuple(sorted(chosen)), seed) for number, chosen in members.items()}


def place(
    wanted: Mapping[int, TableSource], found: Mapping[int, TableRecord], limits: Limits
) -> tuple[dict[int, TableRecord], dict[Region, bytes]]:
    """Each VIP's table, and the contents of those that have to be written.

    A table that is right stays where it is; any other goes to a region that holds none.
    """
    free = _FreeLines(found.values(), limits)
    placed: dict[int, TableRecord] = {}
    contents: dict[Region, bytes] = {}
    for number, source in wanted.items():
        old = found.get(number, TableRecord(EMPTY))
        if not source.members:
            placed[number] = TableRecord(EMPTY, source)
        elif old.source == source:
            placed[number] = old
        else:
            slots = fill(source, limits)
            if old.slots == slots:
                placed[number] = TableRecord(old.region, source)
            else:
                region = free.take(len(slots) // limits.slot_bytes)
                contents[region] = slots
                placed[number] = TableRecord(region, source)
    return placed, contents


def fill(source: TableSource, limits: Limits) -> bytes:
    """A table as it lies in the slots map: a backend's number in each slot."""
    identities = [(identity, weight) for _, identity, weight in source.members]
    table = maglev.build(identities, maglev.table_size(len(identities)), source.seed)
    numbers = [number for number, _, _ in source.members]
    return array("H" if limits.slot_bytes == 2 else "I", map(numbers.__getitem__, table)).tobytes()


class _FreeLines:
    """The stretches of the slots map that no table lies in; taken first fit."""

    def __init__(self, tables: Iterable[TableRecord], limits: Limits) -> None:
        self._per_line = limits.slots_per_line
        self._gaps: list[tuple[int, int]] = []  # first line, lines
        position = 0
        for region in sorted((table.region for table in tables if table.region.slots), key=lambda r: r.first_line):
            self._gaps.append((position, region.first_line - position))
            position = region.first_line + self._lines(region.slots)
        self._gaps.append((position, limits.slot_lines - position))

    def _lines(self, slots: int) -> int:
        return -(-slots // self._per_line)

    def take(self, slots: int) -> Region:
        """A free region for so many slots."""
        lines = self._lines(slots)
        for place, (first, size) in enumerate(self._gaps):
            if size >= lines:
                self._gaps[place] = (first + lines, size - lines)
                return Region(first, slots)
        raise L4lbError(
            f"the maps have no room for another table of {slots:,} slots", "remove VIPs that are not needed"
        )
