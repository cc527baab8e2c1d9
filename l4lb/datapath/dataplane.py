"""The forwarding half as the daemon handles it: programs, maps and attachments behind a few verbs."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from l4lb.balance.explain import Why
from l4lb.balance.slots import settle
from l4lb.datapath import attach, programs
from l4lb.datapath.explain import explain_packet
from l4lb.datapath.features import xdp_transmit
from l4lb.datapath.layout import balancer_source
from l4lb.datapath.links import Link
from l4lb.datapath.maps import Maps
from l4lb.datapath.nexthops import Answer, NextHop, Unresolved, usable
from l4lb.datapath.pins import Pins
from l4lb.model import Config, Endpoint, IPAddress, Mode
from l4lb.plan import tables
from l4lb.plan.limits import Limits
from l4lb.plan.planner import ClearBackend, Plan, WriteBackend, make_plan, ticks
from l4lb.plan.records import BackendRecord, Image, Region, TableRecord, VipRecord
from l4lb.view import Interface, Traffic

Account = tuple[VipRecord, Endpoint]  # whom a counter is about: a VIP and one of its backends


_TICK_SECONDS = 2**30 / 1e9


class Dataplane:
    """Opened once by the daemon, which is its only user.

    Attributes:
        image: what the maps hold.
    """

    def __init__(self, pins: Path, interfaces: Mapping[int, str], xdp_mode: str, limits: Limits) -> None:
        self.image = Image()
        self.limits = limits
        self._pins = Pins(pins, limits)
        self._interfaces = dict(interfaces)
        self._xdp_mode = xdp_mode
        self._program: Path | None = None
        self._modes: frozenset[Mode] = frozenset()
        self._next_hops: dict[IPAddress, Answer] = {}
        self._maps: Maps | None = None
        self._periods: dict[Region, float] = {}  # when each unsettled table's period of quiet ends

    @property
    def maps(self) -> Maps:
        """The maps, once :meth:`open` is done."""
        assert self._maps is not None
        return self._maps

    async def open(self, modes: Iterable[Mode], seed: int, links: Iterable[Link]) -> None:
        """Loads the program for these modes, finds out what the maps hold, and makes the interfaces known to them.

        Nothing is attached yet: :meth:`attach` comes when the maps are right.
        """
        self._pins.prepare()
        await self._load(frozenset(modes), seed)
        self._maps = Maps(self._pins.maps, self.limits)
        self.image = self._maps.read_image()
        for ifindex in self._maps.ports():
            if ifindex not in self._interfaces:
                self._maps.clear_port(ifindex)
        for link in links:
            self.set_link(link)

    async def _load(self, modes: frozenset[Mode], seed: int) -> None:
        source = balancer_source(modes, seed, self._pins.maps, self.limits)
        program = self._pins.program(source.fingerprint)
        await programs.ensure(source, program)
        self._program, self._modes = program, modes

    async def require(self, modes: Iterable[Mode], seed: int) -> None:
        """Replaces the program by one that knows these modes too, if it does not.

        Modes that are not needed any more stay in the program until the daemon is started again.
        """
        wanted = self._modes | frozenset(modes)
        if wanted != self._modes:
            await self._load(wanted, seed)
            self.attach()

    def attach(self) -> None:
        """Puts the program on the interfaces, or replaces what an earlier daemon put there."""
        assert self._program is not None
        attach.attach(self._program, self._pins, self._interfaces, self._xdp_mode)
        self._pins.forget_all_but(self._program)

    def plan(self, config: Config) -> Plan:
        """What makes the maps right for a configuration."""
        touched = {record.vip for number, record in self.image.backends.items() if self.maps.traffic(number).packets}
        untouched = self.image.vips.keys() - touched
        now = ticks(time.monotonic_ns())
        return make_plan(config, self.image, self.limits, self.maps.read_table, now, untouched)

    def explain(self, vip: VipRecord, client: Endpoint, begins: bool, seed: int) -> tuple[BackendRecord | None, Why]:
        """The backend that a packet would go to now, and why."""
        return explain_packet(self.maps, self.image, vip, client, begins, seed)

    def settling(self) -> list[VipRecord]:
        """The VIPs with slots that are unsettled."""
        return [self.image.vips[number] for number, table in self.image.tables.items() if self._unsettled(table)]

    def _unsettled(self, table: TableRecord) -> bool:
        region = table.region
        return region.lines > tables.region_of(region.first_line, region.slots, 0, self.limits).lines

    def settle(self, now: float) -> None:
        """Settles slots that have been quiet for their VIP's idle timeout; `now` in seconds.

        Periods of quiet begin anew with each change of a table.
        """
        unsettled = {table.region: number for number, table in self.image.tables.items() if self._unsettled(table)}
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
            self._periods[region] = now + self.image.idle[number] * _TICK_SECONDS

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
                    self._write_next_hop(operation.number, operation.record)
        except BaseException:
            self.image = self.maps.read_image()
            raise
        self.image = plan.image
        return gone

    def set_next_hop(self, address: IPAddress, next_hop: Answer) -> None:
        """Leads all backends at `address` to this next hop, or nowhere."""
        self._next_hops[address] = next_hop
        for number, record in self.image.backends.items():
            if record.endpoint.address == address:
                self._write_next_hop(number, record)

    def _write_next_hop(self, number: int, record: BackendRecord) -> None:
        answer = self.next_hop(record.endpoint.address, record.mode)
        if isinstance(answer, NextHop):
            self.maps.set_next_hop(number, answer.ifindex, answer.mac)
        else:
            self.maps.set_next_hop(number, 0, bytes(6))

    def next_hop(self, address: IPAddress, mode: Mode) -> Answer:
        """Where a backend's packets go, as far as is known."""
        return usable(self._next_hops.get(address, Unresolved("not looked up yet")), mode)

    def set_link(self, link: Link) -> None:
        """Takes over an interface's MAC address and MTU."""
        self.maps.set_port(link.ifindex, link.mac, link.mtu)

    def forget_routes(self) -> None:
        """Makes the program ask the kernel for every route again."""
        self.maps.forget_routes()

    def traffic(self) -> dict[Account, Traffic]:
        """What each backend has carried."""
        return {self._account(record): self.maps.traffic(number) for number, record in self.image.backends.items()}

    def _account(self, record: BackendRecord) -> Account:
        return self.image.vips[record.vip], record.endpoint

    def close(self) -> None:
        """Lets go of everything; the program goes on forwarding."""
        if self._maps is not None:
            self._maps.close()
        self._pins.release()
