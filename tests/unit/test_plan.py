"""Plans, carried out one operation at a time on a model of the maps: no packet meets a number that leads nowhere."""

from collections import Counter
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from operator import ne
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4lb.balance import maglev
from l4lb.balance.slots import NOBODY
from l4lb.errors import L4lbError
from l4lb.model import Backend, Config, Endpoint, IPAddress, Mode, Protocol, Scheduler, Service, Vip
from l4lb.plan import index, ranges, tables
from l4lb.plan import operations as plan
from l4lb.plan.limits import Limits
from l4lb.plan.planner import Plan, make_plan
from l4lb.plan.records import (
    EMPTY,
    BackendRecord,
    BackendSettings,
    Image,
    Pool,
    Region,
    TableRecord,
    VipRecord,
    VipSettings,
)
from l4lb.ports import MAX_PORT

LIMITS = Limits(
    max_vips=16,
    max_backends=65,
    max_interfaces=8,
    index_lines=16,
    slot_lines=1024,
    range_lines=16,
    flow_lines=8,
    fragment_lines=8,
    max_connections=16_384,
    route_lines=8,
)


@dataclass
class Kernel:
    """The maps and the program's look-ups in them, as far as a configuration decides them."""

    vips: dict[int, VipRecord] = field(default_factory=dict)
    vip_settings: dict[int, VipSettings] = field(default_factory=dict)
    regions: dict[int, Region] = field(default_factory=dict)
    backends: dict[int, BackendRecord] = field(default_factory=dict)
    backend_settings: dict[int, BackendSettings] = field(default_factory=dict)
    generations: Counter[int] = field(default_factory=Counter)
    pools: dict[int, Pool] = field(default_factory=dict)
    addresses: dict[int, IPAddress] = field(default_factory=dict)
    ranges: dict[tuple[int, Protocol], int] = field(default_factory=dict)  # words
    slots: bytearray = field(default_factory=lambda: bytearray(LIMITS.slot_lines * 64))
    range_lines: bytearray = field(default_factory=lambda: bytearray(LIMITS.range_lines * 64))
    entries: dict[tuple[int, int], int] = field(default_factory=dict)
    filter: dict[int, int] = field(default_factory=dict)
    known: Image = field(default_factory=Image)

    def make_plan(self, config: Config, image: Image | None = None, configured: Config | None = None) -> Plan:
        """A plan for these maps, made from an image of them or as after a restart."""
        found = self.image() if image is None else image
        return make_plan(config, found, LIMITS, self.read, 1000, configured=configured)

    def follow(self, config: Config, configured: Config | None = None) -> Plan:
        """Makes a plan, as a daemon that goes on, and does it."""
        made = self.make_plan(config, self.known, configured)
        for operation in made.operations:
            self.apply(operation)
        self.known = made.image
        return made

    def recorded(self, endpoint: Endpoint) -> tuple[int, int]:
        """What a record of a flow to a backend holds: its number, and which one of those that had it."""
        (number,) = (number for number, record in self.backends.items() if record.endpoint == endpoint)
        return number, self.generations[number]

    def leads_to(self, record: tuple[int, int]) -> Endpoint | None:
        """The backend that a flow with this record goes to."""
        number, generation = record
        found = self.backends.get(number)
        return found.endpoint if found is not None and self.generations[number] == generation else None

    def apply(self, operation: plan.Operation) -> None:
        match operation:
            case plan.WriteBackend(number, record, chosen, _):
                assert number not in self.backends
                self.backends[number], self.backend_settings[number] = record, chosen
                self.generations[number] += 1
            case plan.SetBackend(number, chosen):
                self.backend_settings[number] = chosen
            case plan.EmptyPool(pool):
                assert all(not _overlap(pool, used) for used in self.pools.values()), "of a server in use"
            case plan.SetPool(number, pool):
                self.pools[number] = pool
                if not pool.size:
                    del self.pools[number]
            case plan.WriteTable(region, slots):
                self.slots[region.first_line * 64 : region.first_line * 64 + len(slots)] = slots
            case plan.WriteVip(number, vip, settings_, region):
                assert number not in self.vips
                self.vips[number], self.vip_settings[number], self.regions[number] = vip, settings_, region
            case plan.SetVip(number, settings_):
                self.vip_settings[number] = settings_
            case plan.SwitchTable(number, region):
                self.regions[number] = region
            case plan.WriteAddress(number, address):
                assert number not in self.addresses
                self.addresses[number] = address
            case plan.WriteRanges(table):
                data = ranges.encode(table)
                self.range_lines[table.first_line * 64 : table.first_line * 64 + len(data)] = data
            case plan.SwitchRanges(number, protocol, table):
                self.ranges[number, protocol] = table.word
            case plan.WriteEntry(position, entry):
                self.entries[position] = entry
            case plan.WriteFilter(number, word):
                self.filter[number] = word
            case plan.ClearVip(number):
                del self.vips[number], self.vip_settings[number], self.regions[number]
            case plan.ClearBackend(number):
                del self.backends[number], self.backend_settings[number]
            case plan.ClearAddress(number):
                del self.addresses[number]
                self.ranges = {of: word for of, word in self.ranges.items() if of[0] != number}
            case plan.WaitForReaders():
                pass

    def find(self, key: index.Key) -> int | None:
        """Searches as bpf/lookup.h does."""
        want, (word, bit) = index.entry_of(key, 0), divmod(index.hash_of(key) >> 48, 64)
        if not self.filter.get(word, 0) >> bit & 1:
            return None
        for probe in range(index.PROBES):
            line = (index.hash_of(key) + probe) % LIMITS.index_lines
            for place in range(index.ENTRIES):
                difference = self.entries.get((line, place), 0) - want
                if 0 <= difference < 1 << index.NUMBER_BITS:
                    return difference
            if not self.entries.get((line, index.ENTRIES - 1), 0):
                return None
        return None

    def find_vip(self, to: Endpoint, protocol: Protocol) -> int | None:
        """The VIP that a packet is for: by its port, else the range that its port is in."""
        number = self.find(index.vip_key(to, protocol))
        if number is not None and self.vips[number].service.endpoint == to:
            return number
        address = self.find(index.address_key(to.address))
        if address is None or self.addresses.get(address) != to.address:
            return None
        table = ranges.decode(self.ranges.get((address, protocol), 0), self.read_ranges)
        return next((number for first, number in reversed(table.ranges) if first <= to.port), None)

    def serving(self, to: Endpoint, protocol: Protocol) -> set[Endpoint] | None:
        """All backends that a flow may meet; None if it is for no VIP."""
        number = self.find_vip(to, protocol)
        if number is None:
            return None
        assert self.vips[number].service.takes(to, protocol)
        contents = self.read(self.regions[number])
        table, served = contents.table, set()
        turns = contents.turns[::2] if contents.turns_for is Scheduler.LEAST_CONNECTIONS else contents.turns
        for slot in {*table.current, *table.previous, *turns} - {NOBODY}:
            record = self.backends[slot]  # KeyError: leads nowhere
            assert record.vip == number
            if slot in table.current:
                served.add(record.endpoint)
            else:
                assert slot not in turns, "new flows by turns go where they go by hash"
            if record.mode.translates:
                answering = self.find(index.server_key(*record.server))
                assert answering is not None
                assert self.backends[answering].server == record.server
        return served

    def check_pools(self) -> None:
        """Backends of one server have one pool if they need any: all by fullnat, by nat those of several VIPs."""
        servers: dict[Any, dict[int, BackendRecord]] = {}
        for number, record in self.backends.items():
            if record.mode.translates:
                servers.setdefault(record.server, {})[number] = record
        for backends in servers.values():
            wide = any(
                record.endpoint.port and not self.vips[record.vip].service.is_single for record in backends.values()
            )
            shared = {n for n, record in backends.items() if record.mode is Mode.NAT and (len(backends) > 1 or wide)}
            assert {number for number in backends if self.backend_settings[number].shared} == shared
            pooled = shared or {number for number, record in backends.items() if record.mode is Mode.FULLNAT}
            assert len({self.pools[number] for number in pooled}) <= 1
            assert {number for number in backends if number in self.pools} == pooled

    def read(self, region: Region) -> tables.Contents:
        """As the daemon reads a table."""
        return tables.decode(self.read_slots, region, LIMITS)

    def read_slots(self, first_line: int, length: int) -> bytes:
        return bytes(self.slots[first_line * 64 : first_line * 64 + length])

    def read_ranges(self, first_line: int, length: int) -> bytes:
        return bytes(self.range_lines[first_line * 64 : first_line * 64 + length])

    def image(self) -> Image:
        """As a restarted daemon reads it."""
        found = {
            number: TableRecord(tables.region_at(region.first_line, region.slots, self.read_slots, LIMITS))
            for number, region in self.regions.items()
        }
        return Image(
            vips=dict(self.vips),
            vip_settings=dict(self.vip_settings),
            tables=found,
            backends=dict(self.backends),
            backend_settings=dict(self.backend_settings),
            pools=dict(self.pools),
            addresses=dict(self.addresses),
            ranges={of: ranges.decode(word, self.read_ranges) for of, word in self.ranges.items() if word >> 32},
            index=_used(self.entries),
            filter=_used(self.filter),
        )


def _used(values: dict[Any, int]) -> dict[Any, int]:
    return {at: value for at, value in values.items() if value}


def _overlap(one: Pool, other: Pool) -> bool:
    return one.first < other.first + other.size and other.first < one.first + one.size


PORTS = [(80, 80), (81, 81), (70, 90), (80, 85), (1, MAX_PORT)]


def vip_of(number: int, mode: Mode, weights: list[int], ports: tuple[int, int], scheduler: Scheduler) -> Vip:
    """Two VIPs have one address. Backends by nat are shared by all VIPs, others are their VIP's own."""
    address = IPv4Address("192.0.2.1") + number // 2
    service = Service(address, *ports, Protocol.TCP)
    port = 0 if not service.is_single and number % 3 else 1000 if mode.translates else ports[0] * service.is_single
    own = 16 * number if not port else 160 if mode is Mode.FULLNAT else 0
    backends = tuple(
        Backend(Endpoint(IPv4Address("10.0.0.1") + own + place, port), weight) for place, weight in enumerate(weights)
    )
    return Vip(f"v{number}", service, mode, scheduler, backends, pool=256)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    vips: dict[Service, Vip] = {}
    for number in range(draw(st.integers(0, 6))):
        mode, ports, scheduler = (draw(st.sampled_from(values)) for values in (list(Mode), PORTS, list(Scheduler)))
        vip = vip_of(number, mode, draw(st.lists(st.integers(0, 3), max_size=5)), ports, scheduler)
        vips.setdefault(vip.service, vip)
    return Config(tuple(vips.values()))


@st.composite
def healthy(draw: st.DrawFn) -> tuple[Config, Config]:
    """A configuration, and what is served of it: backends are left out, or have another weight."""
    config = draw(configs())

    def served(vip: Vip) -> Vip:
        weights = [
            (backend, draw(st.sampled_from([None, 0, min(1, backend.weight), backend.weight])))
            for backend in vip.backends
        ]
        return replace(
            vip,
            backends=tuple(
                replace(backend, weight=min(weight, backend.weight))
                for backend, weight in weights
                if weight is not None
            ),
        )

    return config, replace(config, vips=tuple(map(served, config.vips)))


def expected(config: Config, to: Endpoint) -> set[Endpoint] | None:
    vip = config.vip_for(to, Protocol.TCP)
    return None if vip is None else {backend.endpoint for backend in vip.backends if backend.weight}


PROBES = [
    Endpoint(IPv4Address("192.0.2.1") + host, port)
    for host in range(3)
    for port in (1, 69, 70, 80, 81, 86, 91, MAX_PORT)
]


@settings(deadline=None, max_examples=40)
@given(st.lists(healthy(), min_size=2, max_size=4), st.data())
def test_traffic_meets_the_old_state_or_the_new(steps: list[tuple[Config, Config]], data: st.DataObject) -> None:
    """After each operation every port is served by the old set of backends or by the new one, never by half of one."""
    kernel, image, before = Kernel(), Image(), Config()
    for configured, config in steps:
        made = kernel.make_plan(config, image, configured)
        for operation in made.operations:
            kernel.apply(operation)
            for to in PROBES:
                served = kernel.serving(to, Protocol.TCP)
                if served not in (expected(before, to), expected(config, to)):
                    # Of two VIPs that take one port, one may have gone before the other comes.
                    assert any(expected(replace(c, vips=(v,)), to) == served for c in (before, config) for v in c.vips)
        for to in PROBES:
            assert kernel.serving(to, Protocol.TCP) == expected(config, to)
        kernel.check_pools()
        assert kernel.vips == made.image.vips
        assert kernel.backends == made.image.backends
        assert kernel.pools == made.image.pools
        assert kernel.addresses == made.image.addresses
        image, before = made.image, config
        if data.draw(st.booleans(), label="restart"):
            image = kernel.image()
            assert kernel.make_plan(config, image, configured).operations == ()


@settings(deadline=None, max_examples=40)
@given(configs(), configs(), st.data())
def test_a_plan_cut_off_anywhere_is_picked_up(first: Config, second: Config, data: st.DataObject) -> None:
    """The daemon is killed between two operations; the next one reads the maps and finishes."""
    kernel = Kernel()
    for operation in kernel.make_plan(first).operations:
        kernel.apply(operation)
    operations = kernel.make_plan(second).operations
    for operation in operations[: data.draw(st.integers(0, len(operations)), label="cut")]:
        kernel.apply(operation)
    for operation in kernel.make_plan(second).operations:
        kernel.apply(operation)
    assert [kernel.serving(to, Protocol.TCP) for to in PROBES] == [expected(second, to) for to in PROBES]
    assert len(kernel.vips) == len(second.vips)
    assert len(kernel.backends) == sum(len(vip.backends) for vip in second.vips)
    assert kernel.make_plan(second).operations == ()


def simple(number: int, mode: Mode, weights: list[int]) -> Vip:
    return vip_of(number, mode, weights, PORTS[number % 2], Scheduler.MAGLEV)


def test_the_index_survives_crowding() -> None:
    """Keys that overflow into the next lines are still found when others in front of them go."""
    keys = {index.vip_key(Endpoint(IPv4Address("10.0.0.0") + number, 80), Protocol.TCP): number for number in range(88)}
    kernel = Kernel()
    kernel.entries.update(index.differences({}, keys, LIMITS.index_lines))
    kernel.filter.update(index.filter_words(keys))
    assert [kernel.find(key) for key in keys] == list(keys.values())
    odd = {key: number for key, number in keys.items() if number % 2}
    kernel.entries.update(index.differences(kernel.entries, odd, LIMITS.index_lines))
    assert [kernel.find(key) for key in keys] == [number if number % 2 else None for number in range(88)]
    kernel.entries.update(index.differences({at: e for at, e in kernel.entries.items() if e}, keys, LIMITS.index_lines))
    assert [kernel.find(key) for key in keys] == list(keys.values())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(tuple(simple(number, Mode.DSR, []) for number in range(17))), "more than 16 VIPs do not fit"),
        (Config((simple(0, Mode.DSR, [1] * 65),)), "more than 64 backends do not fit"),
        (Config(tuple(simple(number, Mode.DSR, [1] * 11) for number in range(5))), "no room for another table"),
    ],
)
def test_what_does_not_fit_is_refused(config: Config, message: str) -> None:
    with pytest.raises(L4lbError, match=message):
        Kernel().make_plan(config)


def test_a_vip_without_weight_has_no_table() -> None:
    image = Kernel().make_plan(Config((simple(0, Mode.NAT, [0, 0]),))).image
    assert image.tables[0].region == EMPTY


def test_a_vip_without_flows_has_none_to_keep() -> None:
    """While a VIP is being set up, every backend gets new flows at once."""
    kernel = Kernel()
    for operation in kernel.make_plan(Config((simple(0, Mode.DSR, [1]),))).operations:
        kernel.apply(operation)
    wanted = Config((simple(0, Mode.DSR, [1, 1]),))
    kept, fresh = (make_plan(wanted, kernel.image(), LIMITS, kernel.read, 0, untouched) for untouched in ((), (0,)))
    assert kept.image.tables[0].region.lines > fresh.image.tables[0].region.lines


def test_ranges_are_cut_where_the_narrowest_changes() -> None:
    """Of VIPs that take a port, the one with the fewest ports gets it."""
    address = IPv6Address("2001:db8::1")
    wide = [(1, MAX_PORT), (8000, 8999), (8080, 8090), (65_000, MAX_PORT)]
    services = [(Service(address, *ports, Protocol.UDP), number) for number, ports in enumerate(wide)]
    assert ranges.cut(services) == ((1, 0), (8000, 1), (8080, 2), (8091, 1), (9000, 0), (65_000, 3))
    assert ranges.cut(services[1:]) == ((8000, 1), (8080, 2), (8091, 1), (9000, None), (65_000, 3))


def test_no_room_for_ranges_or_pools_is_refused() -> None:
    """16 lines of 16 ranges; 16,384 connections."""
    crowd = [Vip(f"v{n}", Service(IPv4Address("192.0.2.1") + n // 8, 1 + n, 9_000, Protocol.TCP)) for n in range(15)]
    Kernel().make_plan(Config(tuple(crowd)))
    with pytest.raises(L4lbError, match="no room for another VIP of several ports"):
        make_plan(Config(tuple(crowd)), Image(), replace(LIMITS, range_lines=1), Kernel().read, 0)
    large = [replace(simple(number, Mode.FULLNAT, [1] * 5), pool=4096) for number in range(2)]
    with pytest.raises(L4lbError, match="no room for another 4,096 connections"):
        Kernel().make_plan(Config(tuple(large)))


def test_the_answers_of_a_server_stay_with_the_vip_that_had_it_first() -> None:
    """What was open before a second VIP came has no record, so the index has to lead to the first one's backend."""
    kernel = Kernel()
    one, two = (vip_of(number, Mode.NAT, [1], (80, 80), Scheduler.MAGLEV) for number in (4, 2))
    for vips in ((one,), (two, one)):
        for operation in kernel.make_plan(Config(vips)).operations:
            kernel.apply(operation)
        answering = kernel.find(index.server_key(one.backends[0].endpoint, Protocol.TCP))
        assert answering is not None
        assert kernel.vips[kernel.backends[answering].vip].service == one.service


def currents(kernel: Kernel) -> dict[str, list[int]]:
    """The slots of all VIPs, by their addresses and ports."""
    return {
        str(kernel.vips[number].service): list(kernel.read(region).table.current)
        for number, region in kernel.regions.items()
    }


@st.composite
def many(draw: st.DrawFn) -> tuple[Config, Config]:
    """Two VIPs of about so many backends that one more or less makes another size, and what is served of them."""
    configured, served = [], []
    for number in range(2):
        weights = draw(st.lists(st.integers(0, 2), min_size=9, max_size=13))
        left = draw(st.lists(st.integers(0, 12), max_size=4, unique=True))
        vip = simple(number, Mode.DSR, weights)
        configured.append(vip)
        served.append(replace(vip, backends=tuple(b for place, b in enumerate(vip.backends) if place not in left)))
    return Config(tuple(configured)), Config(tuple(served))


@settings(deadline=None, max_examples=20)
@given(st.lists(many(), min_size=1, max_size=3))
def test_tables_are_of_one_size_whoever_is_healthy(steps: list[tuple[Config, Config]]) -> None:
    """That of the backends that are configured with a weight; and what is said to move does, and nothing else."""
    kernel = Kernel()
    for configured, config in steps:
        before = currents(kernel)
        moved = kernel.follow(config, configured).moved
        after = currents(kernel)
        for wanted, served in zip(configured.vips, config.vips, strict=True):
            slots, old = after[str(served.service)], before.get(str(served.service), [])
            if any(backend.weight for backend in served.backends):
                assert len(slots) == maglev.table_size(sum(backend.weight > 0 for backend in wanted.backends))
            differences = sum(map(ne, old, slots)) if len(old) == len(slots) else max(len(old), len(slots))
            assert moved.get(served.name, 0) == differences


def test_one_backend_that_goes_down_moves_its_own_slots() -> None:
    """Of 11, where 10 alone would have a smaller table, so that nearly all would move."""
    whole = Config((simple(0, Mode.DSR, [1] * 11), simple(2, Mode.DSR, [1])))
    less = replace(whole, vips=(replace(whole.vips[0], backends=whole.vips[0].backends[1:]), whole.vips[1]))
    for first, second in ((whole, less), (less, whole)):
        kernel = Kernel()
        kernel.follow(first, whole)
        moved = kernel.follow(second, whole).moved
        slots = currents(kernel)["192.0.2.1:80/tcp"]
        assert moved.keys() == {"v0"}
        assert len(slots) // 11 <= moved["v0"] < 2 * len(slots) // 11
        assert kernel.follow(second, whole).moved == {}
    kernel = Kernel()
    kernel.follow(whole)
    assert kernel.follow(less).moved["v0"] == len(slots), "as if it had been removed"


def test_no_record_leads_to_a_backend_that_was_left_out_meanwhile() -> None:
    """Not even when it has come back, under whatever number: its flows were released, and have found others."""
    whole = Config((simple(0, Mode.DSR, [1, 1, 1]),))
    (vip,) = whole.vips
    drained = replace(whole, vips=(replace(vip, backends=(replace(vip.backends[0], weight=0), *vip.backends[1:])),))
    less = replace(whole, vips=(replace(vip, backends=vip.backends[1:]),))
    kernel = Kernel()
    kernel.follow(whole)
    first, *others = ((backend.endpoint, kernel.recorded(backend.endpoint)) for backend in vip.backends)
    kernel.follow(drained, whole)
    assert kernel.leads_to(first[1]) == first[0], "who drains keeps what he has"
    for config in (less, whole, less, whole):
        kernel.follow(config, whole)
        assert kernel.leads_to(first[1]) is None
        assert all(kernel.leads_to(record) == endpoint for endpoint, record in others), "and the others all the time"
    assert kernel.leads_to(kernel.recorded(first[0])) == first[0]
