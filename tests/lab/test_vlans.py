"""VLANs on the gateway's interfaces. Collected only where the kernel can make them: see conftest.py."""

import asyncio
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from l4lb.datapath.links import TAG_8021AD
from l4lb.datapath.nexthops import NextHop
from tests.lab.site import Site, ours, until
from tests.lab.test_edges import HOST_MAC, addressed, reconcile, site

__all__ = ["addressed", "site"]  # fixtures are used by their names


@pytest.fixture
def vlans(addressed: Site) -> Site:
    """With one of 802.1Q, and in the host too."""
    for namespace, below, number in ((addressed.here, "lan", 1), (addressed.host, "eth0", 2)):
        namespace.ip(f"link add link {below} name {below}.5 type vlan id 5")
        namespace.ip(
            f"link set {below}.5 up",
            f"address add 10.5.0.{number}/24 dev {below}.5",
            f"address add 2001:db8:5::{number}/64 dev {below}.5",
        )
    return addressed


def test_vlans_are_found_and_lead_to_their_hosts(vlans: Site) -> None:
    hosts = [ip_address("10.5.0.2"), ip_address("2001:db8:5::2")]

    async def check() -> None:
        found = {link.name: link for link in await ours()}
        assert (found["lan.5"].parent, found["lan.5"].tags) == (found["lan"].ifindex, (5,))
        async with vlans.following(*hosts) as hops:
            assert [str(hops.current(host)) for host in hosts] == [f"{HOST_MAC} on lan.5"] * 2
            answers = [hops.current(host) for host in hosts]
            assert {answer.ifindex for answer in answers if isinstance(answer, NextHop)} == {found["lan.5"].ifindex}

    asyncio.run(check())


def test_a_vlan_that_comes_and_goes_is_told(vlans: Site) -> None:
    there = ip_address("2001:db8:7::2")
    for namespace, below in ((vlans.host, "eth0"), (vlans.here, "lan")):
        namespace.ip(f"link add link {below} name s7 type vlan id 7 protocol 802.1ad", "link set s7 up")
    vlans.host.ip("link add link s7 name s7.8 type vlan id 8", "link set s7.8 up", f"address add {there}/64 dev s7.8")

    async def check() -> None:
        async with vlans.following(there) as hops:
            vlans.here.ip("link add link s7 name s7.8 type vlan id 8", "link set s7.8 up")
            vlans.here.ip("address add 2001:db8:7::1/64 dev s7.8")
            await until(lambda: str(hops.current(there)) == f"{HOST_MAC} on s7.8")
            told = vlans.links[-1]
            assert (told.name, told.tags) == ("s7.8", (TAG_8021AD | 7, 8))
            outer = next(link for link in await ours() if link.name == "s7")
            vlans.here.ip("link delete s7")
            await until(lambda: set(vlans.gone) == {told.ifindex, outer.ifindex})
            await until(lambda: "no route" in str(hops.current(there)))

    asyncio.run(check())


def test_a_vip_of_a_vlans_network_is_put_there(vlans: Site) -> None:
    """Discovery is answered only on the interface that has the address, and announced only there."""
    vip4, vip6 = IPv4Address("10.5.0.100"), IPv6Address("2001:db8:5::100")
    asyncio.run(reconcile(vip4, vip6, names=["lan"]))
    shown = vlans.shown("address", "show", "dev", "lan.5")
    assert f"inet {vip4}/32 scope host lan.5:l4lb" in shown
    assert f"inet6 {vip6}/128" in shown
    for vip in (vip4, vip6):
        vlans.host.run("ping", "-c", "1", "-W", "2", str(vip))
    asyncio.run(reconcile(names=["lan"]))
    assert "100/" not in vlans.shown("address", "show", "dev", "lan.5")
