"""The forwarding half as the daemon handles it: programs, maps and attachments behind a few verbs."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

from l4lb.datapath import attach, programs
from l4lb.datapath.features import xdp_transmit
from l4lb.datapath.layout import balancer_source
from l4lb.datapath.links import Link
from l4lb.datapath.maps import Maps
from l4lb.datapath.nexthops import Answer, NextHop, Unresolved, usable
from l4lb.datapath.pins import Pins
from l4lb.model import Endpoint, IPAddress, Mode
from l4lb.plan.limits import Limits
from l4lb.plan.planner import ClearBackend, Plan, WriteBackend
from l4lb.plan.records import BackendRecord, Image, VipRecord
from l4lb.view import Interface, Traffic

Account = tuple[VipRecord, Endpoint]  # whom a counter is about: a VIP and one of its backends


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
