"""The operations that lead from what the maps hold to what a configuration wants.

The order is such that traffic never meets a number that leads nowhere: backends and tables, then what points to them;
to delete, the other way round, with a wait for the packets in flight in between. A region or number that is in use
before the plan is not used for anything else by it. A plan cut off after any operation leaves maps that work, and from
which the next plan goes on.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from l4lb.errors import L4lbError
from l4lb.health.rules import NoneLeft
from l4lb.model import Config, IPAddress, IPNetwork, Mode, Vip
from l4lb.plan import index, pools, ranges, tables
from l4lb.plan.limits import Limits
from l4lb.plan.operations import (
    ClearAddress,
    ClearBackend,
    ClearVip,
    EmptyPool,
    Operation,
    SetBackend,
    SetPool,
    SetVip,
    SwitchRanges,
    SwitchTable,
    WaitForReaders,
    WriteAddress,
    WriteBackend,
    WriteEntry,
    WriteFilter,
    WriteRanges,
    WriteTable,
    WriteVip,
)
from l4lb.plan.records import (
    BackendRecord,
    BackendSettings,
    Image,
    Pool,
    RangeTable,
    Region,
    VipRecord,
    VipSettings,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order, and what the maps hold afterwards.

    Attributes:
        sources: where packets to a backend come from, by its number; None if that is the network's to say.
        moved: how many slots get another backend, by the names of VIPs whose tables change.
    """

    operations: tuple[Operation, ...]
    image: Image
    sources: Mapping[int, IPNetwork | None]
    moved: Mapping[str, int]


_Record = TypeVar("_Record", VipRecord, BackendRecord, IPAddress)
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def ticks(nanoseconds: int) -> int:
    """Time as the program counts it, from the monotonic clock."""
    return nanoseconds >> 30


def make_plan(
    config: Config,
    image: Image,
    limits: Limits,
    read: Callable[[Region], tables.Contents],
    now: int,
    untouched: Collection[int] = (),
    configured: Config | None = None,
) -> Plan:
    """The plan that makes the maps a function of `config`, and of the flows that there may be.

    Args:
        config: what is wanted.
        image: what the maps hold.
        limits: of the maps.
        read: tells what a region holds.
        now: the tick.
        untouched: numbers of VIPs that have carried nothing yet.
        configured: what it would be if all were healthy; None: it is. The sizes of tables go by that, as they have to
            stay what they are when backends go down and come back.

    Raises:
        L4lbError: the configuration does not fit into the maps.
    """
    by_record = {VipRecord(vip.service): vip for vip in config.vips}
    vips = _numbered(by_record, image.vips, limits.max_vips, "VIPs")
    of = {number: by_record[record] for number, record in vips.items()}
    addresses = _numbered(
        dict.fromkeys(vip.service.address for vip in config.vips), image.addresses, limits.max_vips, "addresses"
    )
    weights = {
        BackendRecord(number, backend.endpoint, vip.protocol, vip.mode): backend.weight
        for number, vip in of.items()
        for backend in vip.backends
    }
    backends = _numbered(weights, image.backends, limits.max_backends - 1, "backends")
    vip_settings = {number: _vip_settings(vip) for number, vip in of.items()}
    shared = pools.shared(config)
    watched = _watched(of, backends, image, limits)
    backend_settings = {
        number: BackendSettings(
            record.mode is Mode.NAT and record.server in shared, of[record.vip].gue_port, watched.get(number, 0)
        )
        for number, record in backends.items()
    }
    pools_of = {image.backends[number].server: pool for number, pool in image.pools.items() if number in image.backends}
    wanted_pools = pools.place(backends, shared, {number: vip.pool for number, vip in of.items()}, pools_of, limits)
    sizes = {vip.name: sum(backend.weight > 0 for backend in vip.backends) for vip in (configured or config).vips}
    table_sources = tables.sources(
        {number: vip.scheduler for number, vip in of.items()},
        {number: (record, weights[record]) for number, record in backends.items()},
        {number: sizes[vip.name] for number, vip in of.items()},
        config.seed,
    )
    # A tick more than a flow may be silent, as of this one a part is over.
    learning_until = {number: now + settings.idle_ticks + 1 for number, settings in vip_settings.items()}
    placed = tables.place(table_sources, image.tables, read, untouched, learning_until, limits)
    wanted_tables = placed.tables
    wide = ranges.wanted({number: vip.service for number, vip in of.items()}, addresses)
    wanted_ranges = ranges.place(wide, image.ranges, limits)
    keys = _keys(vips, backends, addresses, image)
    entries = index.differences(image.index, keys, limits.index_lines)
    filtered = index.filter_words(keys)
    both = {at: image.filter.get(at, 0) | filtered.get(at, 0) for at in {*image.filter, *filtered}}

    appear: list[Operation] = [
        *(EmptyPool(pool) for pool in dict.fromkeys(wanted_pools.values()) if pool not in image.pools.values()),
        *(SetPool(number, pool) for number, pool in _changed(wanted_pools, image.pools)),
        *(
            WriteBackend(number, record, backend_settings[number], vips[record.vip])
            for number, record in backends.items()
            if number not in image.backends
        ),
        *(
            SetBackend(number, settings)
            for number, settings in _changed(backend_settings, image.backend_settings)
            if number in image.backends
        ),
        *(WriteTable(region, slots) for region, slots in placed.contents.items()),
        *(
            WriteVip(number, vip, vip_settings[number], wanted_tables[number].region)
            for number, vip in vips.items()
            if number not in image.vips
        ),
        *(
            SetVip(number, settings)
            for number, settings in _changed(vip_settings, image.vip_settings)
            if number in image.vips
        ),
        *(WriteAddress(number, address) for number, address in addresses.items() if number not in image.addresses),
        *(WriteRanges(table) for _, table in _changed(wanted_ranges, image.ranges)),
        *(WriteFilter(at, word) for at, word in both.items() if word != image.filter.get(at, 0)),
        *(WriteEntry(position, entry) for position, entry in entries.items() if entry > index.DELETED),
        *(SwitchRanges(*of_address, table) for of_address, table in _changed(wanted_ranges, image.ranges)),
    ]
    deletions = [WriteEntry(position, entry) for position, entry in entries.items() if entry <= index.DELETED]
    answered = {
        index.entry_of(index.server_key(*backend.server), number)
        for number, backend in image.backends.items()
        if backend.mode.translates
    }
    no_more_sent: list[Operation] = [
        *(entry for entry in deletions if image.index[entry.position] not in answered),
        *(SwitchRanges(*of_address, RangeTable()) for of_address in image.ranges if of_address not in wanted_ranges),
        *(
            SwitchTable(number, wanted_tables[number].region)
            for number, found in image.tables.items()
            if number in vips and found.region != wanted_tables[number].region
        ),
    ]
    # As long as a backend may be sent packets, its answers have to be recognised.
    no_more_answered: list[Operation] = [entry for entry in deletions if image.index[entry.position] in answered]
    vanish: list[Operation] = [
        *(WriteFilter(at, filtered.get(at, 0)) for at, word in both.items() if word != filtered.get(at, 0)),
        *(ClearAddress(number) for number in image.addresses if number not in addresses),
        *(ClearVip(number) for number in image.vips if number not in vips),
        *(ClearBackend(number) for number in image.backends if number not in backends),
    ]
    unpooled: list[Operation] = [SetPool(number, Pool(0, 0)) for number in image.pools if number not in wanted_pools]
    operations = appear
    for stage in (no_more_sent, no_more_answered, vanish, unpooled):
        operations += [*stage, WaitForReaders()] if stage else []
    after = Image(
        vips=vips,
        vip_settings=vip_settings,
        tables=wanted_tables,
        backends=backends,
        backend_settings=backend_settings,
        pools=wanted_pools,
        addresses=addresses,
        ranges=wanted_ranges,
        index={position: entry for position, entry in {**image.index, **entries}.items() if entry},
        filter=filtered,
    )
    sources = {number: of[record.vip].source_for(record.endpoint.address) for number, record in backends.items()}
    return Plan(tuple(operations), after, sources, {of[number].name: count for number, count in placed.moved.items()})


def _vip_settings(vip: Vip) -> VipSettings:
    bits = vip.service.address.max_prefixlen
    return VipSettings(
        idle_ticks=ticks(vip.idle_timeout * 10**9) + 1,
        scheduler=vip.scheduler,
        mss=vip.mss,
        client_bits=128 - bits + (vip.client_prefix or bits),
        refuses=vip.spread.none_left is NoneLeft.REJECT,
    )


def _changed(wanted: Mapping[_Key, _Value], found: Mapping[_Key, _Value]) -> Iterable[tuple[_Key, _Value]]:
    """What is wanted and not so yet."""
    return ((key, value) for key, value in wanted.items() if found.get(key) != value)


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


def _watched(
    vips: Mapping[int, Vip], backends: Mapping[int, BackendRecord], image: Image, limits: Limits
) -> dict[int, int]:
    """Where the handshakes of backends are counted whose VIP is watched, by the backend's number; 0 is nowhere."""
    found = {
        settings.watch - 1: image.backends[number]
        for number, settings in image.backend_settings.items()
        if settings.watch
    }
    wanted = [record for record in backends.values() if vips[record.vip].passive]
    numbers = {record: number for number, record in backends.items()}
    placed = _numbered(wanted, found, limits.max_watched - 1, "backends of VIPs with --passive")
    return {numbers[record]: place + 1 for place, record in placed.items()}


def _keys(
    vips: Mapping[int, VipRecord],
    backends: Mapping[int, BackendRecord],
    addresses: Mapping[int, IPAddress],
    image: Image,
) -> dict[index.Key, int]:
    """What the index has to lead to, in the order in which it has to: backends by source, VIPs by destination."""
    keys: dict[index.Key, int] = {}
    in_use = set(image.index.values())

    def age(item: tuple[int, BackendRecord]) -> tuple[bool, bool, int]:
        number, backend = item
        return (
            index.entry_of(index.server_key(*backend.server), number) not in in_use,
            number not in image.backends,
            number,
        )

    # Of the backends of one server, the one that has been there for longest: the answers of old connections are its.
    for number, backend in sorted(backends.items(), key=age):
        if backend.mode.translates:
            keys.setdefault(index.server_key(*backend.server), number)
    for number, address in addresses.items():
        keys[index.address_key(address)] = number
    for number, vip in vips.items():
        if vip.service.is_single:
            keys[index.vip_key(vip.service.endpoint, vip.service.protocol)] = number
    return keys
