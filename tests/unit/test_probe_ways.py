"""By which way probes go that take traffic's, and what a worker is told of it."""

import asyncio
from dataclasses import replace
from ipaddress import ip_address, ip_network

import msgpack
import pytest

from l4lb.datapath.nexthops import NextHop, Unresolved
from l4lb.health.check import Check
from l4lb.model import IPAddress, Mode, Protocol, Service, Via, Vip
from l4lb.probe_ways import probe_way
from l4lb.probes.job import Job, Order
from l4lb.probes.run import run
from l4lb.probes.target import NoWay, Target, Way

MAC = bytes.fromhex("020000000911")
VIP, VIP6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")
BACKEND, BACKEND6 = ip_address("10.9.0.11"), ip_address("fd09::11")
LAN, LAN6, WAN, WAN6 = map(ip_address, ("10.9.0.1", "fd09::1", "198.51.100.1", "2001:db8:1::1"))
OWN = {WAN: 2, WAN6: 2, LAN: 3, LAN6: 3}
VIPS = {VIP, VIP6}


def hop(source: IPAddress | None) -> NextHop:
    return NextHop(3, "lan", MAC, source=source)


def vip(address: IPAddress, mode: Mode, *sources: str) -> Vip:
    service = Service(address, 80, 80, Protocol.TCP)
    networks = tuple(ip_network(source) for source in sources)
    return Vip("web", service, mode, sources=networks, gue_port=7000, via=Via.DATAPLANE)


def test_dsr_goes_from_where_the_gateway_reaches_the_backend() -> None:
    found = probe_way(vip(VIP, Mode.DSR), BACKEND, hop(LAN), OWN, VIPS)
    assert found == Way("lan", MAC, str(LAN), "dsr", "", 7000)


@pytest.mark.parametrize(
    ("address", "backend", "source", "inner", "outer"),
    [
        (VIP, BACKEND, LAN, LAN, LAN),
        (VIP6, BACKEND6, LAN6, LAN6, LAN6),
        (VIP6, BACKEND, LAN, LAN6, LAN),
        (VIP, BACKEND6, LAN6, LAN, LAN6),
    ],
)
def test_tunnels_go_from_an_address_of_either_family(
    address: IPAddress, backend: IPAddress, source: IPAddress, inner: IPAddress, outer: IPAddress
) -> None:
    found = probe_way(vip(address, Mode.GUE), backend, hop(source), OWN, VIPS)
    assert found == Way("lan", MAC, str(inner), "gue", str(outer), 7000)


def test_the_outer_source_that_was_chosen_is_that_of_the_backends_family() -> None:
    of = vip(VIP, Mode.IPIP, "172.16.0.0/24", "fd99::/96")
    assert probe_way(of, BACKEND, hop(LAN), OWN, VIPS) == Way("lan", MAC, str(LAN), "ipip", "172.16.0.0", 7000)
    assert probe_way(of, BACKEND6, hop(None), OWN, VIPS) == Way("lan", MAC, str(LAN), "ipip", "fd99::", 7000)


def test_nothing_is_sent_from_a_vip() -> None:
    """That somebody else has put on the gateway, as keepalived does."""
    of = vip(VIP, Mode.DSR)
    assert probe_way(of, BACKEND, hop(VIP), {VIP: 3, **OWN}, VIPS) == Way("lan", MAC, str(LAN), "dsr", "", 7000)
    only_another_interface = probe_way(of, BACKEND, hop(VIP), {VIP: 3, WAN: 2, LAN6: 3}, VIPS)
    assert only_another_interface == Way("lan", MAC, str(WAN), "dsr", "", 7000)
    nothing = probe_way(of, BACKEND, hop(VIP), {VIP: 3, LAN6: 3}, VIPS)
    assert nothing == NoWay("the gateway has no IPv4 address of its own to probe from")


def test_an_unresolved_next_hop_fails_the_check_without_a_packet() -> None:
    way = probe_way(vip(VIP, Mode.DSR), BACKEND, Unresolved("10.9.0.11 does not answer ARP on lan", True), OWN, VIPS)
    target = Target(str(BACKEND), 80, str(VIP), 80, "tcp", "web", way)
    result = asyncio.run(run(Check.parse("tcp"), target, 1.0))
    assert (result.ok, result.reason) == (False, "next hop unresolved: 10.9.0.11 does not answer ARP on lan")


@pytest.mark.parametrize("way", [None, NoWay("next hop unresolved"), Way("lan", MAC, str(LAN), "gue", "fd99::", 7000)])
def test_a_worker_is_told_the_way(way: Way | NoWay | None) -> None:
    target = Target(str(BACKEND), 80, str(VIP), 80, "tcp", "web", way)
    order = Order(1, Job("id", Check.parse("tcp"), target, 1.0, 0.5, 0.1))
    assert Order.unpacked(msgpack.unpackb(msgpack.packb(order.packed()))) == order
    other = replace(order, job=replace(order.job, target=replace(target, way=NoWay("another"))))
    assert other.packed() != order.packed()
