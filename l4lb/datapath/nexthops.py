"""Where packets to a backend go next, as the kernel's routes and neighbours say, followed through its events.

Forwarded packets do not pass the kernel's stack, so its neighbour entries would age and vanish: they are kept fresh,
and missing ones are asked for, by telling the kernel that they are used (RTM_NEWNEIGH with NTF_USE).
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import rtnl
from pyroute2.netlink.exceptions import NetlinkError

from l4lb.datapath.addresses import address_of, is_ours
from l4lb.datapath.links import Device, Link, device_of, links_on, mac_of, mac_text, read_devices
from l4lb.model import IPAddress

log = logging.getLogger(__name__)

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_NTF_USE = 1
# uapi/linux/neighbour.h: PERMANENT, NOARP, REACHABLE, PROBE, STALE, DELAY: those whose address can be used
_NUD_VALID = 0x80 | 0x40 | 0x02 | 0x10 | 0x04 | 0x08
_GLOBAL = 0  # RT_SCOPE_UNIVERSE
_NOT_TO_SEND_FROM = 0x08 | 0x20 | 0x40  # IFA_F_DADFAILED, DEPRECATED, TENTATIVE

_GROUPS = (
    rtnl.RTMGRP_NEIGH
    | rtnl.RTMGRP_LINK
    | rtnl.RTMGRP_IPV4_ROUTE
    | rtnl.RTMGRP_IPV4_IFADDR
    | rtnl.RTMGRP_IPV6_ROUTE
    | rtnl.RTMGRP_IPV6_IFADDR
)

FIRST_ANSWER_SECONDS = 0.25  # a neighbour's answer on one segment takes less than a millisecond
_ASK_AGAIN_SECONDS = 1.0
_KEEP_FRESH_SECONDS = 20.0  # entries are swept out 60 s after their last use (gc_stale_time)
_SETTLE_SECONDS = 0.05  # changes of routes and links come in bursts


@dataclass(frozen=True, slots=True)
class NextHop:
    """Resolved: by which interface and to which MAC address.

    Attributes:
        router: if the backend is not on the segment.
        mtu: of the route, in bytes; 0: that of the interface.
        source: the gateway's own address that the kernel would send from, if it has one there; never a VIP.
    """

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
    waiting: bool = False  # for a neighbour's answer

    def __str__(self) -> str:
        return f"unresolved: {self.reason}"


Answer = NextHop | Unresolved


@dataclass(frozen=True, slots=True)
class _Route:
    ifindex: int
    via: IPAddress
    routed: bool  # whether `via` is a router
    mtu: int  # 0: the interface's
    source: IPAddress | None


class NextHops:
    """Follows the next hops of a set of addresses.

    Args:
        links: those that packets may leave by, VLANs among them.
        on_next_hop: told each address's answer whenever it changes.
        on_link: told when one of the interfaces changes, or a VLAN on one appears.
        on_link_gone: told when one of the interfaces vanishes, by its index.
        on_routing_changed: told when remembered routes may be wrong.
    """

    def __init__(
        self,
        links: Iterable[Link],
        on_next_hop: Callable[[IPAddress, Answer], None],
        on_link: Callable[[Link], None],
        on_link_gone: Callable[[int], None],
        on_routing_changed: Callable[[], None],
    ) -> None:
        self._named = frozenset(link.ifindex for link in links if not link.tags)
        self._links = {link.ifindex: link for link in links}
        self._devices: dict[int, Device] = {}
        self._on_next_hop = on_next_hop
        self._on_link = on_link
        self._on_link_gone = on_link_gone
        self._on_routing_changed = on_routing_changed
        self._neighbours: dict[tuple[int, IPAddress], bytes] = {}
        self._vips: set[IPAddress] = set()  # on the interfaces, put there by l4lb
        self._own: dict[IPAddress, int] = {}
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

    @property
    def own_addresses(self) -> Mapping[IPAddress, int]:
        """The gateway's addresses that it can send from, but none put there by l4lb, and their interfaces' indexes."""
        return self._own

    # The kernel's side

    async def _follow(self, ready: asyncio.Event) -> None:
        """Reads events; when some were lost, begins anew."""
        while True:
            try:
                async with AsyncIPRoute() as events:
                    await events.bind(groups=_GROUPS)
                    await self._read_neighbours()
                    await self._read_addresses()
                    self._devices = await read_devices(self._ipr)
                    self._compare_links()
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
        for family in _FAMILIES.values():
            async for message in await self._ipr.neigh("dump", family=family):
                key, mac = _neighbour(message)
                if key and mac:
                    found[key] = mac
        self._neighbours = found

    async def _read_addresses(self) -> None:
        messages = [
            message async for message in await self._ipr.addr("dump") if message["family"] in _FAMILIES.values()
        ]
        self._vips = {address_of(message) for message in messages if is_ours(message)}
        self._own = {address_of(message): message["index"] for message in messages if _can_send_from(message)}

    def _handle(self, message: Mapping[str, Any]) -> None:
        event = message["event"]
        if event in ("RTM_NEWNEIGH", "RTM_DELNEIGH"):
            key, mac = _neighbour(message)
            if key:
                self._set_neighbour(key, None if event == "RTM_DELNEIGH" else mac)
        else:
            # Messages of other families are about a bridge that an interface enters or leaves.
            if event in ("RTM_NEWLINK", "RTM_DELLINK") and message["family"] == socket.AF_UNSPEC:
                self._set_device(message)
            elif event in ("RTM_NEWADDR", "RTM_DELADDR") and message["family"] in _FAMILIES.values():
                self._set_address(message)
            self._stale.set()

    def _set_address(self, message: Mapping[str, Any]) -> None:
        address, there = address_of(message), message["event"] == "RTM_NEWADDR"
        if is_ours(message):
            (self._vips.add if there else self._vips.discard)(address)
        elif there and _can_send_from(message):
            self._own[address] = message["index"]
        elif self._own.get(address) == message["index"]:
            del self._own[address]

    def _set_device(self, message: Mapping[str, Any]) -> None:
        if message["event"] == "RTM_DELLINK":
            self._devices.pop(message["index"], None)
        elif "IFLA_MTU" in dict(message["attrs"]):  # wireless drivers send some that say hardly more than the name
            self._devices[message["index"]] = device_of(message)
        self._compare_links()

    def _compare_links(self) -> None:
        """Tells what is new of the interfaces and the VLANs on them."""
        before, self._links = self._links, links_on(self._devices, self._named)
        for ifindex in before.keys() - self._links.keys():
            self._on_link_gone(ifindex)
        for ifindex, link in self._links.items():
            if before.get(ifindex) != link:
                self._on_link(link)

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
        # A next hop of the other family is in RTA_VIA (IPv4 by way of an IPv6 router, RFC 5549).
        gateway = attributes.get("RTA_GATEWAY") or dict(attributes.get("RTA_VIA") or {}).get("addr")
        metrics = dict(attributes["RTA_METRICS"]["attrs"]) if "RTA_METRICS" in attributes else {}
        source = ip_address(attributes["RTA_PREFSRC"]) if "RTA_PREFSRC" in attributes else None
        return _Route(
            ifindex=attributes["RTA_OIF"],
            via=ip_address(gateway) if gateway else address,
            routed=gateway is not None,
            mtu=metrics.get("RTAX_MTU", 0),
            # IPv6 falls back on a VIP where it finds nothing better; answers to it would be taken for clients' packets.
            source=None if source in self._vips else source,
        )

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
        link = self._links.get(route.ifindex)
        if link is None:
            return Unresolved("its route leaves by an interface that l4lb does not run on; name it by --interface")
        mac = self._neighbours.get((route.ifindex, route.via))
        if mac is None:
            asked = "ARP" if route.via.version == 4 else "neighbour discovery"
            return Unresolved(f"{route.via} does not answer {asked} on {link.name}", waiting=True)
        router = route.via if route.routed else None
        return NextHop(route.ifindex, link.name, mac, router, route.mtu, route.source)


def _can_send_from(message: Mapping[str, Any]) -> bool:
    """Whether an address is one by which other hosts may know the gateway."""
    flags = dict(message["attrs"]).get("IFA_FLAGS", message["flags"])
    return message["scope"] == _GLOBAL and not flags & _NOT_TO_SEND_FROM and not is_ours(message)


def _neighbour(message: Mapping[str, Any]) -> tuple[tuple[int, IPAddress] | None, bytes | None]:
    """Whom a message is about, if it is of IP, and the MAC address, if it is known."""
    attributes = dict(message["attrs"])
    if message["family"] not in _FAMILIES.values() or "NDA_DST" not in attributes:
        return None, None
    mac = mac_of(attributes.get("NDA_LLADDR")) if message["state"] & _NUD_VALID else None
    return (message["ifindex"], ip_address(attributes["NDA_DST"])), mac
