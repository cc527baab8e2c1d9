"""Plans, carried out one operation at a time on a model of the maps: no packet meets a number that leads nowhere."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4lb.balance.slots import NOBODY, Table
from l4lb.errors import L4lbError
from l4lb.model import Backend, Config, Endpoint, Mode, Protocol, Vip
from l4lb.plan import index, tables
from l4lb.plan import planner as plan
from l4lb.plan.limits import Limits
from l4lb.plan.planner import make_plan
from l4lb.plan.records import EMPTY, BackendRecord, Image, Region, TableRecord, VipRecord

LIMITS = Limits(
    max_vips=16, max_backends=65, max_interfaces=8, index_lines=8, slot_lines=1024, flow_lines=8, route_lines=8
)


@dataclass
class Kernel:
    """The maps and the program's look-ups in them, as far as a configuration decides them."""

    vips: dict[int, tuple[VipRecord, Region]] = field(default_factory=dict)
    backends: dict[int, BackendRecord] = field(default_factory=dict)
    slots: bytearray = field(default_factory=lambda: bytearray(LIMITS.slot_lines * 64))
    entries: dict[tuple[int, int], int] = field(default_factory=dict)
    idle: dict[int, int] = field(default_factory=dict)
    filter: dict[int, int] = field(default_factory=dict)

    def make_plan(self, config: Config, image: Image | None = None) -> plan.Plan:
        """A plan for these maps, made from an image of them or as after a restart."""
        return make_plan(config, self.image() if image is None else image, LIMITS, self.read, 1000)

    def apply(self, operation: plan.Operation) -> None:
        match operation:
            case plan.WriteBackend(number, record, _):
                assert number not in self.backends
                self.backends[number] = record
            case plan.WriteTable(region, slots):
                self.slots[region.first_line * 64 : region.first_line * 64 + len(slots)] = slots
            case plan.WriteVip(number, vip, region):
                assert number not in self.vips
                self.vips[number] = vip, region
            case plan.SwitchTable(number, region):
                self.vips[number] = self.vips[number][0], region
            case plan.WriteEntry(position, entry):
                self.entries[position] = entry
            case plan.SetIdle(number, ticks):
                self.idle[number] = ticks
            case plan.WriteFilter(number, word):
                self.filter[number] = word
            case plan.ClearVip(number):
                del self.vips[number]
                del self.idle[number]
            case plan.ClearBackend(number):
                del self.backends[number]
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

    def serving(self, vip: Vip) -> set[Endpoint] | None:
        """All backends that a flow to the VIP may meet; None if it is no VIP."""
        number = self.find((vip.endpoint, vip.protocol, index.Way.TO_VIP))
        if number is None or number not in self.vips or self.vips[number][0] != VipRecord(vip.endpoint, vip.protocol):
            return None
        region = self.vips[number][1]
        table = self.read(region)
        served = set()
        for slot in {*table.current, *table.previous} - {NOBODY}:
            record = self.backends[slot]  # KeyError: leads nowhere
            assert record.vip == number
            if slot in table.current:
                served.add(record.endpoint)
            if record.mode is Mode.NAT:
                answering = self.find((record.endpoint, record.protocol, index.Way.FROM_BACKEND))
                assert answering is not None
                assert self.backends[answering] == record
        return served

    def read(self, region: Region) -> Table:
        """As the daemon reads a table."""
        if not region.slots:
            return Table.settled(())
        current, unsettled = self.numbers(region.first_line + 1, region.slots)
        line, slots, _ = tables.decode_header(self.slots[region.first_line * 64 :][:64])
        return Table(current, unsettled, self.numbers(line, slots)[0] if slots else ())

    def numbers(self, first_line: int, slots: int) -> tuple[list[int], bytes]:
        return tables.decode_slots(bytes(self.slots[first_line * 64 : first_line * 64 + slots * 2]), LIMITS)

    def image(self) -> Image:
        """As a restarted daemon reads it."""
        found = {number: TableRecord(region) for number, (_, region) in self.vips.items()}
        vips = {number: vip for number, (vip, _) in self.vips.items()}
        return Image(vips, dict(self.backends), found, dict(self.idle), _used(self.entries), _used(self.filter))


def _used(values: dict[Any, int]) -> dict[Any, int]:
    return {at: value for at, value in values.items() if value}


def vips_of(number: int, mode: Mode, weights: list[int]) -> Vip:
    """Each VIP has backends of its own, as nat demands."""
    backends = tuple(
        Backend(Endpoint(IPv4Address("10.0.0.1") + place, 1000 + number if mode is Mode.NAT else 80), weight)
        for place, weight in enumerate(weights)
    )
    return Vip(f"v{number}", Endpoint(IPv4Address("192.0.2.1") + number, 80), Protocol.TCP, mode, backends=backends)


configs = st.dictionaries(
    st.integers(0, 5), st.tuples(st.sampled_from(Mode), st.lists(st.integers(0, 3), max_size=5)), max_size=6
).map(
    lambda chosen: Config(tuple(vips_of(number, mode, weights) for number, (mode, weights) in sorted(chosen.items())))
)


def expected(vip: Vip) -> set[Endpoint]:
    return {backend.endpoint for backend in vip.backends if backend.weight}


@settings(deadline=None, max_examples=60)
@given(st.lists(configs, min_size=2, max_size=5), st.data())
def test_traffic_meets_the_old_state_or_the_new(steps: list[Config], data: st.DataObject) -> None:
    """After each operation every VIP is served by the old set of backends or by the new one, never by half of one."""
    kernel, image, before = Kernel(), Image(), Config()
    for config in steps:
        made = kernel.make_plan(config, image)
        old, new = ({vip.endpoint: vip for vip in version.vips} for version in (before, config))
        allowed = {
            endpoint: [expected(version[endpoint]) if endpoint in version else None for version in (old, new)]
            for endpoint in {*old, *new}
        }
        for operation in made.operations:
            kernel.apply(operation)
            for endpoint, served in allowed.items():
                assert kernel.serving(new.get(endpoint) or old[endpoint]) in served
        for vip in config.vips:
            assert kernel.serving(vip) == expected(vip)
        assert set(kernel.vips) == set(made.image.vips)
        assert kernel.backends == made.image.backends
        image, before = made.image, config
        if data.draw(st.booleans(), label="restart"):
            image = kernel.image()
            assert kernel.make_plan(config, image).operations == ()


@settings(deadline=None, max_examples=60)
@given(configs, configs, st.data())
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
    assert [kernel.serving(vip) for vip in second.vips] == [expected(vip) for vip in second.vips]
    assert len(kernel.vips) == len(second.vips)
    assert len(kernel.backends) == sum(len(vip.backends) for vip in second.vips)
    assert kernel.make_plan(second).operations == ()


def test_the_index_survives_crowding() -> None:
    """Keys that overflow into the next lines are still found when others in front of them go."""
    keys = {
        (Endpoint(IPv4Address("10.0.0.0") + number, 80), Protocol.TCP, index.Way.TO_VIP): number for number in range(44)
    }
    kernel = Kernel()
    kernel.entries.update(index.differences({}, keys, LIMITS.index_lines))
    kernel.filter.update(index.filter_words(keys))
    assert [kernel.find(key) for key in keys] == list(keys.values())
    odd = {key: number for key, number in keys.items() if number % 2}
    kernel.entries.update(index.differences(kernel.entries, odd, LIMITS.index_lines))
    assert [kernel.find(key) for key in keys] == [number if number % 2 else None for number in range(44)]
    kernel.entries.update(index.differences({at: e for at, e in kernel.entries.items() if e}, keys, LIMITS.index_lines))
    assert [kernel.find(key) for key in keys] == list(keys.values())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(tuple(vips_of(number, Mode.DSR, []) for number in range(17))), "more than 16 VIPs do not fit"),
        (Config((vips_of(0, Mode.DSR, [1] * 65),)), "more than 64 backends do not fit"),
        (Config(tuple(vips_of(number, Mode.DSR, [1] * 11) for number in range(5))), "no room for another table"),
    ],
)
def test_what_does_not_fit_is_refused(config: Config, message: str) -> None:
    with pytest.raises(L4lbError, match=message):
        Kernel().make_plan(config)


def test_a_vip_without_weight_has_no_table() -> None:
    image = Kernel().make_plan(Config((vips_of(0, Mode.NAT, [0, 0]),))).image
    assert image.tables[0].region == EMPTY


def test_a_vip_without_flows_has_none_to_keep() -> None:
    """While a VIP is being set up, every backend gets new flows at once."""
    kernel = Kernel()
    for operation in kernel.make_plan(Config((vips_of(0, Mode.DSR, [1]),))).operations:
        kernel.apply(operation)
    wanted = Config((vips_of(0, Mode.DSR, [1, 1]),))
    kept, fresh = (make_plan(wanted, kernel.image(), LIMITS, kernel.read, 0, untouched) for untouched in ((), (0,)))
    assert kept.image.tables[0].region.lines > fresh.image.tables[0].region.lines
