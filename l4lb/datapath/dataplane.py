"""The forwarding half as the daemon handles it: programs, maps and attachments behind a few verbs."""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from l4lb.balance.explain import Why
from l4lb.balance.slots import settle
from l4lb.datapath import attach, bpf, programs
from l4lb.datapath.explain import Packet, explain_packet
from l4lb.datapath.features import xdp_transmit
from l4lb.datapath.layout import SWEEP, Features, balancer_source, together
from l4lb.datapath.links import Link
from l4lb.datapath.loader import errand_of
from l4lb.datapath.maps import Maps
from l4lb.datapath.nexthops import Answer, NextHop, Unresolved
from l4lb.datapath.pins import Pins
from l4lb.datapath.ways import usable, way
from l4lb.health.handshakes import Handshakes
from l4lb.model import Config, Endpoint, IPAddress, IPNetwork, Mode
from l4lb.plan.limits import Limits
from l4lb.plan.operations import ClearBackend, WriteBackend, WriteTable
from l4lb.plan.planner import Plan, make_plan, ticks
from l4lb.plan.records import BackendRecord, Image, Region, TableRecord, VipRecord
from l4lb.view import Interface, Traffic

Account = tuple[VipRecord, Endpoint]  # whom a counter is about: a VIP and one of its backends


_TICK_SECONDS = 2**30 / 1e9
_SHORTEST_FRAME = 14
_SWEEPS = 32_768  # lines: the whole table in eight times


class Dataplane:
    """Opened once by the daemon, which is its only user.

    Args:
        pins: the folder of program and maps.
        interfaces: names by index.
        xdp_mode: "native" or "generic".
        limits: of the maps.
        echo: whether pings to VIPs are answered by the program.

    Attributes:
        image: what the maps hold.
        moved: set whenever packets may leave by other ways than before.
    """

    def __init__(
        self, pins: Path, interfaces: Mapping[int, str], xdp_mode: str, limits: Limits, *, echo: bool = True
    ) -> None:
        self.image = Image()
        self.limits = limits
        self.moved = asyncio.Event()
        self._pins = Pins(pins, limits)
        self._interfaces = dict(interfaces)
        self._xdp_mode = xdp_mode
        self._echo = echo
        self._program: Path | None = None
        self._features: Features = frozenset()
        self._seed = 0
        self._next_hops: dict[IPAddress, Answer] = {}
        self._links: dict[int, Link] = {}
        self._links_changed = False
        self._sources: Mapping[int, IPNetwork | None] = {}  # by backend number
        self._maps: Maps | None = None
        self._swept = 0  # the line of the flow table to go on from
        self._periods: dict[Region, float] = {}  # when each unsettled table's period of quiet ends

    @property
    def maps(self) -> Maps:
        """The maps, once :meth:`open` is done."""
        assert self._maps is not None
        return self._maps

    async def open(self, features: Features, seed: int, links: Iterable[Link]) -> None:
        """Loads the program with these features, finds out what the maps hold, and makes the interfaces known to them.

        Nothing is attached yet: :meth:`attach` comes when the maps are right.
        """
        self._pins.prepare()
        await self._load(features, seed)
        self._maps = Maps(self._pins.maps, self.limits)
        self._maps.set_echo(self._echo)
        self.image = self._maps.read_image()
        for link in links:
            self.set_link(link)
        for ifindex in self._maps.ports():
            if ifindex not in self._links:
                self._maps.clear_port(ifindex)
        self._links_changed = False

    async def _load(self, features: Features, seed: int) -> None:
        source = balancer_source(features, seed, self._pins.maps, self.limits)
        program = self._pins.program(source.fingerprint)
        await programs.ensure(source, program)
        self._program, self._features, self._seed = program, features, seed

    async def require(self, features: Features, seed: int) -> None:
        """Replaces the program by one that has these features too and this seed, if it has not.

        With another seed flows are at other backends, from one packet to the next. What is not needed any more stays in
        the program until the daemon is started again.
        """
        wanted = together(self._features | features)
        if wanted != self._features or seed != self._seed:
            await self._load(wanted, seed)
            self.attach()

    @property
    def vlans(self) -> bool:
        """Whether there are VLANs on the interfaces."""
        return any(link.tags for link in self._links.values())

    def attach(self) -> None:
        """Puts the program on the interfaces, or replaces what an earlier daemon put there."""
        assert self._program is not None
        attach.attach(self._program, self._pins, self._interfaces, self._xdp_mode)
        self._pins.forget_all_but(self._program)

    def plan(self, config: Config, configured: Config | None = None) -> Plan:
        """What makes the maps right for a configuration; `configured`: what it would be if all were healthy."""
        touched = {record.vip for number, record in self.image.backends.items() if self.maps.traffic(number).packets}
        untouched = self.image.vips.keys() - touched
        now = ticks(time.monotonic_ns())
        return make_plan(config, self.image, self.limits, self.maps.read_contents, now, untouched, configured)

    def explain(self, vip: VipRecord, packet: Packet, seed: int) -> tuple[BackendRecord | None, Why]:
        """The backend that a packet would go to now, and why."""
        return explain_packet(self.maps, self.image, vip, packet, seed)

    def settling(self) -> list[VipRecord]:
        """The VIPs with slots that are unsettled."""
        return [self.image.vips[number] for number, table in self.image.tables.items() if table.region.previous]

    def settle(self, now: float) -> None:
        """Settles slots that have been quiet for their VIP's idle timeout; `now` in seconds.

        Periods of quiet begin anew with each change of a table.
        """
        unsettled = {table.region: number for number, table in self.image.tables.items() if table.region.previous}
        self._periods = {region: end for region, end in self._periods.items() if region in unsettled}
        for region, number in unsettled.items():
            if region not in self._periods:
                self.maps.begin_period(region)
            elif now < self._periods[region]:
                continue
            else:
                before = self.maps.read_table(region)
                after = settle(before, self.maps.used_slots(region))
                if after != before:
                    left = self.maps.settle(region, after)
                    table = TableRecord(left, self.image.tables[number].source)
                    self.image = replace(self.image, tables={**self.image.tables, number: table})
                if not after.previous:
                    continue
                self.maps.begin_period(region)
            # A tick longer than a flow may be silent, so that no record outlives the slot's being unsettled.
            self._periods[region] = now + (self.image.vip_settings[number].idle_ticks + 1) * _TICK_SECONDS

    def sweep(self) -> None:
        """Forgets a share of the flows that have been silent for too long, where schedulers count them."""
        if "TRACKING" not in self._features or self._program is None:
            return
        with bpf.opened(errand_of(self._program, SWEEP)) as program:
            frame = self._swept.to_bytes(4, "little").ljust(_SHORTEST_FRAME, b"\0")
            after = bpf.run_on_packet(program, frame, _SWEEPS).packet
        self._swept = int.from_bytes(after[:4], "little")

    async def interfaces(self) -> tuple[Interface, ...]:
        """The interfaces it runs on, as they are now."""
        # Generic XDP redirects through the stack, which any driver can take from.
        can = await asyncio.to_thread(xdp_transmit, self._interfaces) if self._xdp_mode == "native" else {}
        return tuple(Interface(name, self._xdp_mode, can.get(ifindex)) for ifindex, name in self._interfaces.items())

    def apply(self, plan: Plan) -> dict[Account, Traffic]:
        """Does a plan; answers what the backends that are gone have carried."""
        gone: dict[Account, Traffic] = {}
        try:
            for operation in plan.operations:
                if isinstance(operation, ClearBackend):
                    record = self.image.backends[operation.number]
                    gone[self._account(record)] = self.maps.traffic(operation.number)
                self.maps.apply(operation)
                if isinstance(operation, WriteBackend):
                    self._write_way(operation.number, operation.record, plan.sources[operation.number])
                elif isinstance(operation, WriteTable):
                    # It may be where one was until the change before this.
                    self._periods.pop(operation.region, None)
        except BaseException:
            self.image = self.maps.read_image()
            raise
        changed = plan.sources.items() - self._sources.items()
        for number in {number for number, _ in changed} & self.image.backends.keys():
            self._write_way(number, plan.image.backends[number], plan.sources[number])
        self.image, self._sources = plan.image, plan.sources
        return gone

    def set_next_hop(self, address: IPAddress, next_hop: Answer) -> None:
        """Leads all backends at `address` to this next hop, or nowhere."""
        self._next_hops[address] = next_hop
        self._write_ways({address})
        self.moved.set()

    def _write_ways(self, addresses: Collection[IPAddress]) -> None:
        for number, record in self.image.backends.items():
            if record.endpoint.address in addresses:
                self._write_way(number, record, self._sources.get(number))

    def _write_way(self, number: int, record: BackendRecord, source: IPNetwork | None) -> None:
        address = record.endpoint.address
        answer = self.next_hop(address, record.mode, source)
        link = self._links.get(answer.ifindex) if isinstance(answer, NextHop) else None
        found = way(answer, address, record.mode, source, link.mtu) if link is not None else None
        self.maps.set_way(number, found)

    def next_hop(self, address: IPAddress, mode: Mode, source: IPNetwork | None) -> Answer:
        """Where a backend's packets go, as far as is known."""
        return usable(self._next_hops.get(address, Unresolved("not looked up yet")), mode, source)

    def set_link(self, link: Link) -> None:
        """Takes over an interface's MAC address, MTU and VLAN tags."""
        self.maps.set_port(link)
        self._links[link.ifindex] = link
        self._links_changed = True
        behind = (address for address, answer in self._next_hops.items() if _leaves_by(answer, link.ifindex))
        self._write_ways(set(behind))

    def forget_link(self, ifindex: int) -> None:
        """Takes back what :meth:`set_link` said of a VLAN that is gone."""
        if self._links.pop(ifindex, None) is not None:
            self.maps.clear_port(ifindex)
            self._links_changed = True

    def links_changed(self) -> bool:
        """Whether anything was told of interfaces since this was asked last."""
        changed, self._links_changed = self._links_changed, False
        return changed

    def forget_routes(self) -> None:
        """Makes the program ask the kernel for every route again."""
        self.maps.forget_routes()
        self.moved.set()

    def traffic(self) -> dict[Account, Traffic]:
        """What each backend has carried."""
        return {self._account(record): self.maps.traffic(number) for number, record in self.image.backends.items()}

    def handshakes(self) -> dict[Account, Handshakes]:
        """What connections tell of the backends whose VIPs are watched."""
        return {
            self._account(self.image.backends[number]): self.maps.handshakes(settings.watch)
            for number, settings in self.image.backend_settings.items()
            if settings.watch
        }

    def open_connections(self) -> dict[Account, int]:
        """How many connections are open at each backend whose VIP's scheduler records them."""
        return {
            self._account(record): self.maps.open_connections(number)
            for number, record in self.image.backends.items()
            if not self.image.vip_settings[record.vip].scheduler.hashes
        }

    def _account(self, record: BackendRecord) -> Account:
        return self.image.vips[record.vip], record.endpoint

    def close(self) -> None:
        """Lets go of everything; the program goes on forwarding."""
        if self._maps is not None:
            self._maps.close()
        self._pins.release()


def _leaves_by(answer: Answer, ifindex: int) -> bool:
    return isinstance(answer, NextHop) and answer.ifindex == ifindex
