"""What l4lb asks of the kernel's network configuration and does to it, with both families and VLANs."""

import asyncio
import time
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from pyroute2 import AsyncIPRoute
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from l4lb.datapath import addresses as addresses_module
from l4lb.datapath.addresses import VipAddresses
from l4lb.datapath.links import choose, read_devices
from l4lb.datapath.nexthops import NextHop, NextHops
from l4lb.datapath.requirements import forwarding_off
from l4lb.errors import L4lbError
from l4lb.lab.capture import capture
from l4lb.lab.namespace import Namespace
from l4lb.model import IPAddress
from tests.lab.site import Site, namespaces, ours, until

OWN_MAC, HOST_MAC, NEW_MAC = "02:00:00:00:09:01", "02:00:00:00:09:02", "02:00:00:00:09:99"
HOST4, HOST6 = IPv4Address("10.9.0.2"), IPv6Address("2001:db8:9::2")
OWN4, OWN6 = IPv4Address("10.9.0.1"), IPv6Address("2001:db8:9::1")
HOST_LINK_LOCAL = IPv6Address("fe80::9:2")
VIP4, VIP6 = IPv4Address("10.9.0.100"), IPv6Address("2001:db8:9::100")
ELSEWHERE6 = IPv6Address("2001:db8:8::100")  # in the network of `other`


async def reconcile(*wanted: IPAddress, names: Collection[str] = ("lan", "other")) -> None:
    """As a daemon does that is started anew each time."""
    async with AsyncIPRoute() as ipr:
        vips = VipAddresses(choose(await read_devices(ipr), names))
    try:
        await vips.reconcile(wanted)
    finally:
        await vips.close()


def wait_for_ipv6(namespace: Namespace, interface: str) -> None:
    """Until there is the address that discovery is done from; a new link is taken for ready within a second."""
    deadline = time.monotonic() + 5
    while "fe80:" not in namespace.run("ip", "address", "show", "dev", interface, "scope", "link").stdout:
        assert time.monotonic() < deadline, f"{interface} does not get ready"
        time.sleep(0.02)


@pytest.fixture
def site() -> Iterator[Site]:
    """`lan` leads to the host, `other` to nobody."""
    with namespaces() as made:
        for namespace in (made.here, made.host):
            for scope in ("all", "default"):  # without duplicate detection, addresses are there at once
                namespace.sysctl(**{f"net__ipv6__conf__{scope}__accept_dad": 0})
        made.here.ip(
            f"link add name lan address {OWN_MAC} type veth peer name eth0 netns {made.host.name}",
            "link add name other type veth peer name far",
        )
        made.host.ip(f"link set eth0 address {HOST_MAC} up", f"address add {HOST4}/24 dev eth0")
        made.here.ip("link set lan up", "link set other up", "link set far up")
        wait_for_ipv6(made.here, "lan")
        wait_for_ipv6(made.host, "eth0")
        made.host.ip(f"address add {HOST6}/64 dev eth0", f"address add {HOST_LINK_LOCAL}/64 dev eth0")
        with made.entered():
            yield made


@pytest.fixture
def addressed(site: Site) -> Site:
    """With addresses of the gateway's own."""
    site.here.ip(f"address add {OWN4}/24 dev lan", f"address add {OWN6}/64 dev lan")
    site.here.ip("address add 10.8.0.1/24 dev other", "address add 2001:db8:8::1/64 dev other")
    return site


# Addresses


def test_a_vip_is_put_into_its_network_and_taken_away(addressed: Site) -> None:
    async def check() -> None:
        await reconcile(VIP4, VIP6, ELSEWHERE6)
        lan, other = (addressed.shown("address", "show", "dev", name) for name in ("lan", "other"))
        assert f"inet {VIP4}/32 scope host lan:l4lb" in lan
        assert f"inet6 {VIP6}/128 scope global nodad deprecated noprefixroute" in lan
        assert f"inet6 {ELSEWHERE6}/128" in other
        assert "tentative" not in lan + other
        await reconcile(VIP4)
        lan, other = (addressed.shown("address", "show", "dev", name) for name in ("lan", "other"))
        assert str(VIP4) in lan
        assert str(VIP6) not in lan
        assert str(ELSEWHERE6) not in other
        await reconcile()
        assert str(VIP4) not in addressed.shown("address")
        assert all(f"inet6 {own}/64" in addressed.shown("address") for own in (OWN6, "2001:db8:8::1"))

    asyncio.run(check())


def test_a_vip_is_put_into_the_narrowest_network(addressed: Site) -> None:
    addressed.here.ip("address add 2001:db8::1/32 dev other", "address add 10.0.0.1/8 dev other")
    asyncio.run(reconcile(VIP4, VIP6, names=["other", "lan"]))
    assert all(f"{vip}/" in addressed.shown("address", "show", "dev", "lan") for vip in (VIP4, VIP6))


def test_a_vip_outside_all_networks_is_on_the_first_interface(addressed: Site) -> None:
    asyncio.run(reconcile(IPv6Address("2001:db8:77::1"), names=["other", "lan"]))
    assert "2001:db8:77::1/128" in addressed.shown("address", "show", "dev", "other")


def test_others_addresses_are_left_alone(addressed: Site) -> None:
    """Those that the operator put there, VIPs or not, and those of keepalived."""
    addressed.here.ip(
        f"address add {VIP6}/128 dev lan nodad",
        "address add 2001:db8:9::200/128 dev lan nodad preferred_lft 0",
        f"address add {VIP4}/32 dev lan",
    )
    before = addressed.shown("address")
    asyncio.run(reconcile(VIP4, VIP6))
    asyncio.run(reconcile())
    assert addressed.shown("address") == before


def test_the_kernel_answers_for_a_vip(addressed: Site) -> None:
    asyncio.run(reconcile(VIP4, VIP6))
    for vip in (VIP4, VIP6):
        addressed.host.run("ping", "-c", "1", "-W", "2", str(vip))
        assert OWN_MAC in addressed.host.run("ip", "neighbour", "show", str(vip)).stdout


def test_the_kernel_does_not_send_from_a_vip(site: Site) -> None:
    """Also where the gateway's own address came later, as after a renewal."""
    asyncio.run(reconcile(VIP4, VIP6))
    site.here.ip("route add 192.0.2.0/24 dev lan")
    assert str(VIP4) not in site.shown("route", "get", "192.0.2.1")
    site.here.ip(f"address add {OWN4}/24 dev lan", f"address add {OWN6}/64 dev lan")
    site.here.ip("route add 198.51.100.0/24 dev lan", "route add 2001:db8:77::/64 dev lan")
    for there, own in (("198.51.100.1", OWN4), ("2001:db8:77::1", OWN6), (str(HOST4), OWN4), (str(HOST6), OWN6)):
        assert f"src {own} " in site.shown("route", "get", there)


def announcement(vip: IPAddress) -> bytes:
    if vip.version == 4:
        arp = ARP(op="who-has", hwsrc=OWN_MAC, psrc=str(vip), hwdst="00:00:00:00:00:00", pdst=str(vip))
        return bytes(Ether(src=OWN_MAC, dst="ff:ff:ff:ff:ff:ff") / arp).ljust(60, b"\0")
    advertisement = ICMPv6ND_NA(R=0, S=0, O=1, tgt=str(vip)) / ICMPv6NDOptDstLLAddr(lladdr=OWN_MAC)
    return bytes(Ether(src=OWN_MAC, dst="33:33:00:00:00:01") / IPv6(src=str(vip), dst="ff02::1") / advertisement)


@pytest.mark.parametrize("vip", [VIP4, VIP6], ids=["IPv4", "IPv6"])
def test_neighbours_are_told_three_times(addressed: Site, vip: IPAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses_module, "_ANNOUNCEMENT_SECONDS", 0.05)
    addressed.host.ip(f"neighbour replace {vip} lladdr {NEW_MAC} dev eth0 nud stale")

    async def check() -> None:
        vips = VipAddresses(await ours())
        with capture(addressed.host, "eth0") as frames:
            await vips.reconcile([vip])
            await asyncio.sleep(0.5)
            await vips.close()
        assert frames.count(announcement(vip)) == 3

    asyncio.run(check())
    assert OWN_MAC in addressed.host.run("ip", "neighbour", "show", str(vip)).stdout, "another's MAC is forgotten"


def test_a_vip_that_is_gone_is_not_announced(addressed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another gateway may have it by then."""
    monkeypatch.setattr(addresses_module, "_ANNOUNCEMENT_SECONDS", 0.3)

    async def check() -> None:
        vips = VipAddresses(await ours())
        await vips.reconcile([VIP4, VIP6])
        await asyncio.sleep(0.1)
        await vips.reconcile([VIP4])
        with capture(addressed.host, "eth0") as frames:
            await asyncio.sleep(0.8)
        await vips.close()
        assert (frames.count(announcement(VIP4)), frames.count(announcement(VIP6))) == (2, 0)

    asyncio.run(check())


def test_where_ipv6_is_off_it_is_said(addressed: Site) -> None:
    addressed.here.sysctl(net__ipv6__conf__lan__disable_ipv6=1)
    with pytest.raises(L4lbError) as caught:
        asyncio.run(reconcile(VIP6, names=["lan"]))
    hint = "turn it on with `sysctl -w net.ipv6.conf.lan.disable_ipv6=0`"
    assert str(caught.value) == f"cannot put {VIP6} on lan, where IPv6 is off: {hint}"


# Next hops


def test_answers_of_ipv6(addressed: Site) -> None:
    by_address, by_link_local = IPv6Address("2001:db8:a::7"), IPv6Address("2001:db8:b::7")
    absent, nowhere, forbidden = (IPv6Address(text) for text in ("2001:db8:9::77", "2001:db8:c::1", "2001:db8:d::1"))
    addressed.here.ip(
        "route add 2001:db8:a::/64 via 2001:db8:9::2",
        f"route add 2001:db8:b::/64 via {HOST_LINK_LOCAL} dev lan mtu 1400 src {OWN6}",
        "route add unreachable 2001:db8:d::/64",
    )

    async def check() -> None:
        async with addressed.following(HOST6, by_address, by_link_local, absent, nowhere, forbidden, OWN6) as hops:
            ifindex = (await ours())[0].ifindex
            mac = bytes.fromhex(HOST_MAC.replace(":", ""))
            assert hops.current(HOST6) == NextHop(ifindex, "lan", mac, None, 0, OWN6)
            assert hops.current(by_address) == NextHop(ifindex, "lan", mac, HOST6, 0, OWN6)
            assert hops.current(by_link_local) == NextHop(ifindex, "lan", mac, HOST_LINK_LOCAL, 1400, OWN6)
            assert str(hops.current(absent)) == f"unresolved: {absent} does not answer neighbour discovery on lan"
            assert str(hops.current(nowhere)) == "unresolved: no route (Network is unreachable)"
            assert str(hops.current(forbidden)) == "unresolved: no route (No route to host)"
            assert str(hops.current(OWN6)) == "unresolved: the route to it is local to this host or forbidden"

    asyncio.run(check())


def test_neighbours_known_before_are_known(addressed: Site) -> None:
    """Those that the operator wrote down answer nothing, and no event tells of them."""
    silent = [IPv4Address("10.9.0.55"), IPv6Address("2001:db8:9::55")]
    addressed.here.ip(*(f"neighbour add {address} lladdr {NEW_MAC} dev lan nud permanent" for address in silent))

    async def check() -> None:
        async with addressed.following(*silent) as hops:
            assert [str(hops.current(address)) for address in silent] == [f"{NEW_MAC} on lan"] * 2

    asyncio.run(check())


def test_a_route_of_ipv4_by_an_ipv6_router(addressed: Site) -> None:
    """RFC 5549: the MAC address is found by neighbour discovery."""
    there, farther = IPv4Address("192.0.2.7"), IPv4Address("192.0.2.8")
    addressed.here.ip(f"route add {there}/32 via inet6 {HOST_LINK_LOCAL} dev lan mtu 1300")
    addressed.here.ip(f"route add {farther}/32 via inet6 fe80::77 dev lan")

    async def check() -> None:
        async with addressed.following(there, farther) as hops:
            ifindex = (await ours())[0].ifindex
            mac = bytes.fromhex(HOST_MAC.replace(":", ""))
            assert hops.current(there) == NextHop(ifindex, "lan", mac, HOST_LINK_LOCAL, 1300, OWN4)
            assert str(hops.current(farther)) == "unresolved: fe80::77 does not answer neighbour discovery on lan"

    asyncio.run(check())


def test_a_vip_is_no_source(site: Site) -> None:
    """Where there is nothing else, IPv6 would take it; once there is, that is taken."""

    async def check() -> None:
        await reconcile(VIP4, VIP6)
        site.here.ip(f"route add {HOST6}/128 dev lan", f"route add {HOST4}/32 dev lan")
        assert f"src {VIP6}" in site.shown("route", "get", str(HOST6)), "the kernel does fall back on it"

        def sources(hops: NextHops) -> list[IPAddress | None]:
            return [answer.source for answer in map(hops.current, (HOST4, HOST6)) if isinstance(answer, NextHop)]

        async with site.following(HOST4, HOST6) as hops:
            await until(lambda: sources(hops) == [None, None])
            site.here.ip(f"address add {OWN4}/24 dev lan", f"address add {OWN6}/64 dev lan")
            await until(lambda: sources(hops) == [OWN4, OWN6])
            site.here.ip(f"address delete {OWN6}/64 dev lan", f"route replace {HOST6}/128 dev lan")
            await until(lambda: sources(hops) == [OWN4, None])

    asyncio.run(check())


def test_a_vip_put_there_meanwhile_is_no_source(site: Site) -> None:
    """As l4lb itself does, right after it has asked for next hops."""
    site.here.ip(f"route add {HOST6}/128 dev lan")

    async def check() -> None:
        async with site.following(HOST6) as hops:
            await reconcile(VIP6)
            await asyncio.sleep(0.3)
            answer = hops.current(HOST6)
            assert isinstance(answer, NextHop)
            assert answer.source is None

    asyncio.run(check())


def test_changes_of_ipv6_are_followed(addressed: Site) -> None:
    """Another MAC address, another router, none."""
    there = IPv6Address("2001:db8:a::7")
    addressed.here.ip(f"route add {there}/128 via {HOST6}")

    def answer_mac(hops: NextHops, address: IPAddress) -> str | None:
        answer = hops.current(address)
        return answer.mac.hex(":") if isinstance(answer, NextHop) else None

    async def check() -> None:
        async with addressed.following(HOST6, there) as hops:
            addressed.host.sysctl(net__ipv6__conf__eth0__ndisc_notify=1)
            addressed.host.ip(f"link set eth0 address {NEW_MAC}")
            await until(lambda: answer_mac(hops, HOST6) == answer_mac(hops, there) == NEW_MAC)
            addressed.here.ip(f"route replace {there}/128 via {HOST_LINK_LOCAL} dev lan")
            await until(lambda: f"router {HOST_LINK_LOCAL}" in str(hops.current(there)))
            addressed.here.ip(f"route delete {there}/128")
            await until(lambda: "no route" in str(hops.current(there)))

    asyncio.run(check())


# Requirements


@pytest.mark.parametrize("version", [4, 6])
def test_forwarding_is_asked_of_each_interface(addressed: Site, version: int) -> None:
    settings = f"net__ipv{version}__conf__{{}}__forwarding"
    names = ["lan", "other"]
    assert forwarding_off(names, version) == names
    addressed.here.sysctl(**{settings.format("all"): 1})
    assert forwarding_off(names, version) == []
    addressed.here.sysctl(**{settings.format("other"): 0})
    assert forwarding_off(names, version) == ["other"]
    assert forwarding_off(["lan", "absent"], version) == ["absent"]


def test_ipv6_forwards_only_with_the_common_setting(addressed: Site) -> None:
    """Whatever an interface's says, ip6_forward() goes by this one."""
    addressed.here.sysctl(net__ipv6__conf__lan__forwarding=1)
    assert Path("/proc/sys/net/ipv6/conf/lan/forwarding").read_text() == "1\n"
    assert forwarding_off(["lan"], 6) == ["lan"]
