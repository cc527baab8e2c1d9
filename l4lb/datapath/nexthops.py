"""Where packets to a backend go next, as the kernel's routes and neighbours say, followed through its events.

Forwarded packets do not pass the kernel's stack, so its neighbour entries would age and vanish: they are kept fresh,
and missing ones are asked for, by telling the kernel that they are used (RTM_NEWNEIGH with NTF_USE).
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import rtnl
from pyroute2.netlink.exceptions import NetlinkError

from l4lb.datapath.links import Link, link_of, mac_bytes, mac_text
from l4lb.model import IPAddress, Mode

log = logging.getLogger(__name__)

_AF_INET = 2
_NTF_USE = 1
# uapi/linux/neighbour.h: PERMANENT, NOARP, REACHABLE, PROBE, STALE, DELAY: those whose address can be used
_NUD_VALID = 0x80 | 0x40 | 0x02 | 0x10 | 0x04 | 0x08

_GROUPS = rtnl.RTMGRP_NEIGH | rtnl.RTMGRP_LINK | rtnl.RTMGRP_IPV4_ROUTE | rtnl.RTMGRP_IPV4_IFADDR

FIRST_ANSWER_SECONDS = 0.25  # an ARP answer on one segment takes less than a millisecond
_ASK_AGAIN_SECONDS = 1.0
_KEEP_FRESH_SECONDS = 20.0  # entries are swept out 60 s after their last use (gc_stale_time)
_SETTLE_SECONDS = 0.05  # changes of routes and links come in bursts


@dataclass(frozen=True, slots=True)
class NextHop:
    """Resolved: by which interface and to which MAC address; `router` if the backend is not on the segment."""

    ifindex: int
    interface: str
    mac: bytes
    router: IPAddress | None = None
    mtu: int = 0
    source: IPAddress | None = None

    def __str__(self) -> str:
        via = f" (router {self.router})" if self.router else ""
        return f"{mac_text(self.mac)} on {self.interface}{via}"


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Not resolved, and why."""

    reason: str
    waiting: bool = False  # for an ARP answer

    def __str__(self) -> str:
        return f"unresolved: {self.reason}"


Answer = NextHop | Unresolved


def usable(answer: Answer, mode: Mode) -> Answer:
    """What a mode can make of it: dsr addresses the backend's own MAC, so no router may be in between."""
    if mode is Mode.DSR and isinstance(answer, NextHop) and answer.router:
        return Unresolved(f"behind router {answer.router}, but dsr needs a backend on the same segment")
    return answer


@dataclass(frozen=True, slots=True)
class _Route:
    ifindex: int
    via: IPAddress
    routed: bool  # whether `via` is a router
    mtu: int
    source: IPAddress | None


class NextHops:
    """Follows the next hops of a set of addresses.

    Args:
        interfaces: those that packets may leave by; index to name.
        on_next_hop: told each address's answer whenever it changes.
        on_link: told when one of the interfaces changes.
        on_routing_changed: told when remembered routes may be wrong.
    """

    def __init__(
        self,
        interfaces: Mapping[int, str],
        on_next_hop: Callable[[IPAddress, Answer], None],
        on_link: Callable[[Link], None],
        on_link_gone: Callable[[int], None],
        on_routing_changed: Callable[[], None],
    ) -> None:
        self._interfaces = interfaces
        self._on_next_hop = on_next_hop
        self._on_link = on_link
        self._on_link_gone = on_link_gone
        self._on_routing_changed = on_routing_changed
        self._neighbours: dict[tuple[int, IPAddress], bytes] = {}
        self._routes: dict[IPAddress, _Route | Unresolved] = {}
        self._answers: dict[IPAddress, Answer] = {}
        self._answered = asyncio.Event()
        self._stale = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._ipr = AsyncIPRoute()

    async def start(self) -> None:
        """Reads the neighbours and begins to follow events."""
        ready = asyncio.Event()
        self._tasks = [
            asyncio.create_task(work) for work in (self._follow(ready), self._refresh_when_stale(), self._keep_fresh())
        ]
        await ready.wait()

    async def close(self) -> None:
        """Stops following."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._ipr.close()

    def current(self, address: IPAddress) -> Answer:
        """What is known of an address now."""
        return self._answers.get(address, Unresolved("not looked up yet"))

    async def watch(self, addresses: Collection[IPAddress]) -> None:
        """Follows these addresses and no others; new ones have been asked for, and mostly answered, when it returns."""
        for gone in set(self._routes) - set(addresses):
            del self._routes[gone]
            self._answers.pop(gone, None)
        new = [address for address in addresses if address not in self._routes]
        for address in new:
            self._routes[address] = await self._route(address)
        for address in new:
            self._answer(address)
            await self._ask(address)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_ANSWER_SECONDS):
                while any(
                    isinstance(answer := self.current(address), Unresolved) and answer.waiting for address in new
                ):
                    self._answered.clear()
                    await self._answered.wait()

    # The kernel's side

    async def _follow(self, ready: asyncio.Event) -> None:
        """Reads events; when some were lost, begins anew."""
        while True:
            try:
                async with AsyncIPRoute() as events:
                    await events.bind(groups=_GROUPS)
                    await self._read_neighbours()
                    self._stale.set()
                    ready.set()
                    while True:
                        async for message in events.get():  # ends with each batch
                            self._handle(message)
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                log.warning("lost the kernel's network events (%s); reading everything again", reason)
            except Exception:
                log.exception("cannot make sense of the kernel's network events; reading everything again")
            await asyncio.sleep(_SETTLE_SECONDS)

    async def _read_neighbours(self) -> None:
        found = {}
        async for message in await self._ipr.neigh("dump", family=_AF_INET):
            key, mac = _neighbour(message)
            if key and mac:
                found[key] = mac
        self._neighbours = found

    def _handle(self, message: Mapping[str, Any]) -> None:
        event = message["event"]
        if event in ("RTM_NEWNEIGH", "RTM_DELNEIGH"):
            key, mac = _neighbour(message)
            if key:
                self._set_neighbour(key, None if event == "RTM_DELNEIGH" else mac)
        else:
            if event == "RTM_NEWLINK" and message["index"] in self._interfaces:
                self._on_link(link_of(message))
            self._stale.set()

    def _set_neighbour(self, key: tuple[int, IPAddress], mac: bytes | None) -> None:
        if self._neighbours.get(key) == mac:
            return
        if key in self._neighbours:
            self._on_routing_changed()
        if mac is None:
            del self._neighbours[key]
        else:
            self._neighbours[key] = mac
        for address, route in self._routes.items():
            if isinstance(route, _Route) and (route.ifindex, route.via) == key:
                self._answer(address)

    async def _refresh_when_stale(self) -> None:
        """After a change of routes or links, asks for every route again."""
        while True:
            await self._stale.wait()
            await asyncio.sleep(_SETTLE_SECONDS)
            self._stale.clear()
            self._on_routing_changed()
            for address in list(self._routes):
                route = await self._route(address)
                if address in self._routes and self._routes[address] != route:
                    self._routes[address] = route
                    self._answer(address)
                    await self._ask(address)
                elif address in self._routes:
                    self._answer(address)

    async def _keep_fresh(self) -> None:
        elapsed = 0.0
        while True:
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
            elapsed = (elapsed + _ASK_AGAIN_SECONDS) % _KEEP_FRESH_SECONDS
            for address in list(self._routes):
                answer = self.current(address)
                if not elapsed or (isinstance(answer, Unresolved) and answer.waiting):
                    await self._ask(address)

    async def _route(self, address: IPAddress) -> _Route | Unresolved:
        try:
            (message, *_) = await self._ipr.route("get", dst=str(address))
        except NetlinkError as error:
            return Unresolved(f"no route ({error.args[1] if len(error.args) > 1 else error})")
        attributes = dict(message["attrs"])
        if message["type"] != 1:  # RTN_UNICAST
            return Unresolved("the route to it is local to this host or forbidden")
        gateway = attributes.get("RTA_GATEWAY")
        ifindex = attributes["RTA_OIF"]
        source = attributes.get("RTA_PREFSRC")
        return _Route(ifindex, IPv4Address(gateway) if gateway else address, gateway is not None, 0, IPv4Address(source) if source else None)

    async def _ask(self, address: IPAddress) -> None:
        """Makes the kernel resolve or confirm an address's next hop."""
        route = self._routes.get(address)
        if isinstance(route, _Route):
            with contextlib.suppress(NetlinkError):  # the interface may be going; its events tell
                await self._ipr.neigh("replace", dst=str(route.via), ifindex=route.ifindex, flags=_NTF_USE, state=0)

    # The callers' side

    def _answer(self, address: IPAddress) -> None:
        answer = self._find_answer(address)
        if self._answers.get(address) != answer:
            self._answers[address] = answer
            self._on_next_hop(address, answer)
        self._answered.set()

    def _find_answer(self, address: IPAddress) -> Answer:
        route = self._routes[address]
        if isinstance(route, Unresolved):
            return route
        interface = self._interfaces.get(route.ifindex)
        if interface is None:
            return Unresolved("its route leaves by an interface that l4lb does not run on; name it by --interface")
        mac = self._neighbours.get((route.ifindex, route.via))
        if mac is None:
            return Unresolved(f"{route.via} does not answer ARP on {interface}", waiting=True)
        return NextHop(route.ifindex, interface, mac, route.via if route.routed else None, route.mtu, route.source)


def _neighbour(message: Mapping[str, Any]) -> tuple[tuple[int, IPAddress] | None, bytes | None]:
    """Whom a message is about, if it is IPv4, and the MAC address, if it is known."""
    attributes = dict(message["attrs"])
    if message["family"] != _AF_INET or "NDA_DST" not in attributes:
        return None, None
    mac = attributes.get("NDA_LLADDR") if message["state"] & _NUD_VALID else None
    return (message["ifindex"], IPv4Address(attributes["NDA_DST"])), mac_bytes(mac) if mac else None
