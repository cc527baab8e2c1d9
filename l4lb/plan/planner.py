"""The operations that lead from what the maps hold to what a configuration wants.

The order is such that traffic never meets a number that leads nowhere: backends and tables, then what points to them;
to delete, the other way round, with a wait for the packets in flight in between. A region or number that is in use
before the plan is not used for anything else by it. A plan cut off after any operation leaves maps that work, and from
which the next plan goes on.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from l4lb.balance.slots import Table
from l4lb.errors import L4lbError
from l4lb.model import Config, Mode
from l4lb.plan import index, tables
from l4lb.plan.limits import Limits
from l4lb.plan.records import BackendRecord, Image, Region, VipRecord


@dataclass(frozen=True, slots=True)
class WriteBackend:
    """Fill a backend's record, which nothing points to yet, and set its counters to 0."""

    number: int
    record: BackendRecord
    vip: VipRecord


@dataclass(frozen=True, slots=True)
class WriteTable:
    """Fill a region, which nothing points to yet."""

    region: Region
    slots: bytes


@dataclass(frozen=True, slots=True)
class WriteVip:
    """Fill a VIP's record, which nothing points to yet."""

    number: int
    record: VipRecord
    region: Region


@dataclass(frozen=True, slots=True)
class SwitchTable:
    """Lead a VIP's traffic to another region, at once."""

    vip: int
    region: Region


@dataclass(frozen=True, slots=True)
class SetIdle:
    """Change for how long a VIP's flows may be silent."""

    vip: int
    idle_ticks: int


@dataclass(frozen=True, slots=True)
class WriteEntry:
    """Set one entry of the index."""

    position: index.Position
    entry: int


@dataclass(frozen=True, slots=True)
class WriteFilter:
    """Set one word of the filter before the index."""

    number: int
    word: int


@dataclass(frozen=True, slots=True)
class WaitForReaders:
    """Wait until no packet is in flight that has read what was changed before."""


@dataclass(frozen=True, slots=True)
class ClearBackend:
    """Empty a backend's record; what its counters hold is handed on."""

    number: int


@dataclass(frozen=True, slots=True)
class ClearVip:
    """Empty a VIP's record."""

    number: int


Operation = (
    WriteBackend
    | WriteTable
    | WriteVip
    | SwitchTable
    | SetIdle
    | WriteEntry
    | WriteFilter
    | WaitForReaders
    | ClearBackend
    | ClearVip
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order, and what the maps hold afterwards."""

    operations: tuple[Operation, ...]
    image: Image


_Record = TypeVar("_Record", VipRecord, BackendRecord)


def ticks(nanoseconds: int) -> int:
    """Time as the program counts it, from the monotonic clock."""
    return nanoseconds >> 30


def make_plan(
    config: Config,
    image: Image,
    limits: Limits,
    read: Callable[[Region], Table],
    now: int,
    untouched: Collection[int] = (),
) -> Plan:
    """The plan that makes the maps a function of `config`, and of the flows that there may be.

    Args:
        config: what is wanted.
        image: what the maps hold.
        limits: of the maps.
        read: tells what a region holds.
        now: the tick.
        untouched: numbers of VIPs that have carried nothing yet.

    Raises:
        L4lbError: the configuration does not fit into the maps.
    """
    vips_by_record = {VipRecord(vip.endpoint, vip.protocol): vip for vip in config.vips}
    vips = _numbered(vips_by_record, image.vips, limits.max_vips, "VIPs")
    weights = {
        BackendRecord(number, backend.endpoint, vip.protocol, vip.mode): backend.weight
        for number, record in vips.items()
        for vip in (vips_by_record[record],)
        for backend in vip.backends
    }
    backends = _numbered(weights, image.backends, limits.max_backends - 1, "backends")
    sources = tables.sources(
        vips, {number: (record, weights[record]) for number, record in backends.items()}, config.seed
    )
    idle = {number: ticks(vips_by_record[record].idle_timeout * 10**9) + 1 for number, record in vips.items()}
    learning_until = {number: now + timeout for number, timeout in idle.items()}
    wanted_tables, contents = tables.place(sources, image.tables, read, untouched, learning_until, limits)
    keys = _keys(vips, backends)
    entries = index.differences(image.index, keys, limits.index_lines)
    filtered = index.filter_words(keys)
    both = {at: image.filter.get(at, 0) | filtered.get(at, 0) for at in {*image.filter, *filtered}}

    appear: list[Operation] = [
        *(
            WriteBackend(number, record, vips[record.vip])
            for number, record in backends.items()
            if number not in image.backends
        ),
        *(WriteTable(region, slots) for region, slots in contents.items()),
        *(
            WriteVip(number, vip, wanted_tables[number].region)
            for number, vip in vips.items()
            if number not in image.vips
        ),
        *(SetIdle(number, timeout) for number, timeout in idle.items() if image.idle.get(number) != timeout),
        *(WriteFilter(at, word) for at, word in both.items() if word != image.filter.get(at, 0)),
        *(WriteEntry(position, entry) for position, entry in entries.items() if entry > index.DELETED),
    ]
    deletions = [WriteEntry(position, entry) for position, entry in entries.items() if entry <= index.DELETED]
    to_vips = {index.entry_of((vip.endpoint, vip.protocol, index.Way.TO_VIP), n) for n, vip in image.vips.items()}
    no_more_sent: list[Operation] = [
        *(entry for entry in deletions if image.index[entry.position] in to_vips),
        *(
            SwitchTable(number, wanted_tables[number].region)
            for number, found in image.tables.items()
            if number in vips and found.region != wanted_tables[number].region
        ),
    ]
    # As long as a backend may be sent packets, its answers have to be recognised.
    no_more_answered: list[Operation] = [entry for entry in deletions if image.index[entry.position] not in to_vips]
    vanish: list[Operation] = [
        *(WriteFilter(at, filtered.get(at, 0)) for at, word in both.items() if word != filtered.get(at, 0)),
        *(ClearVip(number) for number in image.vips if number not in vips),
        *(ClearBackend(number) for number in image.backends if number not in backends),
    ]
    operations = appear
    for stage in (no_more_sent, no_more_answered, vanish):
        operations += [*stage, WaitForReaders()] if stage else []
    index_after = {position: entry for position, entry in {**image.index, **entries}.items() if entry}
    return Plan(tuple(operations), Image(vips, backends, wanted_tables, idle, index_after, filtered))


def _numbered(wanted: Iterable[_Record], found: Mapping[int, _Record], limit: int, what: str) -> dict[int, _Record]:
    """Each wanted record under the number it has, or under one that is free before and after."""
    numbers = {record: number for number, record in found.items()}
    free = (number for number in range(limit) if number not in found)
    numbered: dict[int, _Record] = {}
    for record in wanted:
        number = numbers.get(record)
        if number is None:
            number = next(free, None)
        if number is None:
            raise L4lbError(
                f"more than {limit:,} {what} do not fit into the maps", f"remove {what} that are not needed"
            )
        numbered[number] = record
    return numbered


def _keys(vips: Mapping[int, VipRecord], backends: Mapping[int, BackendRecord]) -> dict[index.Key, int]:
    """What the index has to lead to, in the order in which it has to: nat backends by source, VIPs by destination."""
    keys: dict[index.Key, int] = {
        (backend.endpoint, backend.protocol, index.Way.FROM_BACKEND): number
        for number, backend in backends.items()
        if backend.mode is Mode.NAT
    }
    for number, vip in vips.items():
        keys[vip.endpoint, vip.protocol, index.Way.TO_VIP] = number
    return keys
