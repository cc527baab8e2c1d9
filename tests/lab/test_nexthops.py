"""Next hops as the kernel's routes and neighbours say, through every kind of change."""

import asyncio
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address

import pytest
from pyroute2 import AsyncIPRoute

from l4lb.datapath import nexthops
from l4lb.datapath.nexthops import Answer, NextHop, Unresolved
from l4lb.datapath.ways import usable
from l4lb.model import Mode
from tests.lab.site import Site, namespaces, until

HOST, HOST_MAC, NEW_MAC = IPv4Address("10.9.0.2"), "02:00:00:00:09:02", "02:00:00:00:09:99"
ABSENT = IPv4Address("10.9.0.77")
BEHIND = IPv4Address("192.0.2.7")  # HOST is its router
ELSEWHERE = IPv4Address("10.8.0.2")  # by another interface
NOWHERE = IPv4Address("203.0.113.1")


@pytest.fixture
def site() -> Iterator[Site]:
    """`lan` leads to the host, `other` to nobody."""
    with namespaces() as made:
        made.here.ip(
            f"link add name lan type veth peer name eth0 netns {made.host.name}",
            "link add name other type veth peer name far",
            "link set lan up",
            "link set other up",
            "link set far up",
            "address add 10.9.0.1/24 dev lan",
            "address add 10.8.0.1/24 dev other",
        )
        made.host.ip(f"link set eth0 address {HOST_MAC} up", f"address add {HOST}/24 dev eth0")
        made.here.ip(f"route add {BEHIND}/32 via {HOST}")
        with made.entered():
            yield made


def mac(answer: Answer) -> str | None:
    return answer.mac.hex(":") if isinstance(answer, NextHop) else None


def test_answers(site: Site) -> None:
    """Asked of the kernel, which asks the network; there when watch() returns."""

    async def check() -> None:
        async with site.following(HOST, BEHIND, ABSENT, ELSEWHERE, NOWHERE) as hops:
            assert str(hops.current(HOST)) == f"{HOST_MAC} on lan"
            assert str(hops.current(BEHIND)) == f"{HOST_MAC} on lan (router {HOST})"
            assert str(hops.current(ABSENT)) == f"unresolved: {ABSENT} does not answer ARP on lan"
            assert "does not run on" in str(hops.current(ELSEWHERE))
            assert str(hops.current(NOWHERE)) == "unresolved: no route (Network is unreachable)"
            behind = usable(hops.current(BEHIND), Mode.DSR, None)
            assert "unresolved" in str(behind), "dsr reaches no further than the segment"
            assert usable(hops.current(HOST), Mode.DSR, None) == hops.current(HOST)
            assert site.answers[HOST][-1] == hops.current(HOST)

    asyncio.run(check())


def test_a_new_mac_address_is_followed(site: Site) -> None:
    """As when a virtual machine moves: the host announces itself."""

    async def check() -> None:
        async with site.following(HOST, BEHIND) as hops:
            before = site.routing_changes
            site.host.sysctl(net__ipv4__conf__eth0__arp_notify=1)
            site.host.ip(f"link set eth0 address {NEW_MAC}")
            await until(lambda: mac(hops.current(HOST)) == mac(hops.current(BEHIND)) == NEW_MAC)
            assert site.routing_changes > before

    asyncio.run(check())


def test_a_host_that_appears_is_found(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not answer is asked again and again."""
    monkeypatch.setattr(nexthops, "_ASK_AGAIN_SECONDS", 0.1)

    async def check() -> None:
        async with site.following(ABSENT) as hops:
            await asyncio.sleep(0.3)
            site.host.ip(f"address add {ABSENT}/24 dev eth0")
            await until(lambda: mac(hops.current(ABSENT)) == HOST_MAC)

    asyncio.run(check())


def test_a_deleted_neighbour_is_asked_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nexthops, "_ASK_AGAIN_SECONDS", 0.1)

    async def check() -> None:
        async with site.following(HOST) as hops:
            site.here.ip(f"neighbour delete {HOST} dev lan")
            await until(lambda: len(site.answers[HOST]) > 1)
            await until(lambda: mac(hops.current(HOST)) == HOST_MAC)
            assert any(isinstance(answer, Unresolved) and answer.waiting for answer in site.answers[HOST])

    asyncio.run(check())


def test_a_new_route_is_followed(site: Site) -> None:
    async def check() -> None:
        async with site.following(NOWHERE) as hops:
            site.here.ip(f"route add {NOWHERE}/32 via {HOST}")
            await until(lambda: mac(hops.current(NOWHERE)) == HOST_MAC)
            site.here.ip(f"route replace blackhole {NOWHERE}/32")
            await until(lambda: isinstance(hops.current(NOWHERE), Unresolved))

    asyncio.run(check())


def test_a_changed_interface_is_told(site: Site) -> None:
    async def check() -> None:
        async with site.following(HOST):
            site.here.ip("link set lan address 02:00:00:00:09:01 mtu 1400")
            await until(lambda: bool(site.links) and site.links[-1].mtu == 1400)
            assert site.links[-1].mac.hex(":") == "02:00:00:00:09:01"

    asyncio.run(check())


def test_addresses_no_longer_watched_are_forgotten(site: Site) -> None:
    async def check() -> None:
        async with site.following(HOST, BEHIND) as hops:
            await hops.watch([BEHIND])
            assert isinstance(hops.current(HOST), Unresolved)
            assert isinstance(hops.current(BEHIND), NextHop)

    asyncio.run(check())


def test_lost_events_are_made_up_for(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """More events than the socket's buffer holds, among them the one that matters."""
    real = AsyncIPRoute.__init__

    def small(self: AsyncIPRoute, **arguments: object) -> None:
        real(self, **{**arguments, "rcvbuf": 4096})

    monkeypatch.setattr(AsyncIPRoute, "__init__", small)

    async def check() -> None:
        async with site.following(HOST) as hops:
            # In one go, without a chance for the events to be read in between.
            site.here.ip(
                *(
                    f"neighbour replace 10.9.0.{n} lladdr 02:00:00:00:00:{n:02x} dev lan nud permanent"
                    for n in range(3, 250)
                ),
                f"neighbour replace {HOST} lladdr {NEW_MAC} dev lan nud permanent",
            )
            await until(lambda: mac(hops.current(HOST)) == NEW_MAC)
            assert "lost the kernel's network events (No buffer space available)" in caplog.text

    asyncio.run(check())


def test_own_addresses_are_those_that_others_know_the_host_by(site: Site) -> None:
    """Neither VIPs that l4lb put there, nor what is of this host or link alone; and told of when they change."""

    async def check() -> None:
        lan, other = socket.if_nametoindex("lan"), socket.if_nametoindex("other")
        async with site.following(HOST) as hops:
            own = {IPv4Address("10.9.0.1"): lan, IPv4Address("10.8.0.1"): other}
            assert hops.own_addresses == own
            before = site.routing_changes
            site.here.ip(
                "address add 192.0.2.10/32 dev lan label lan:l4lb",
                "address add 192.0.2.20/32 dev lan",
                "address add fd09::1/64 dev lan nodad",
                "address add fd09::2/64 dev lan nodad preferred_lft 0",
                "address delete 10.8.0.1/24 dev other",
            )
            wanted = {ip_address(address): lan for address in ("10.9.0.1", "192.0.2.20", "fd09::1")}
            await until(lambda: hops.own_addresses == wanted)
            await until(lambda: site.routing_changes > before)
        async with site.following(HOST) as hops:
            assert hops.own_addresses == wanted, "who begins later reads the same"

    asyncio.run(check())
