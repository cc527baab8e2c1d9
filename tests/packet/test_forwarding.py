"""Every way through the program as a table: a packet in, the verdict, the whole packet out, and what was counted.

The packets expected are written by Scapy, which computes their checksums from scratch.
"""

import subprocess
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from l4lb.lab.testbed import LOOPBACK, Testbed, hop
from l4lb.model import Backend, Config, Endpoint, Mode, Protocol, Service, Vip
from l4lb.view import Traffic
from tests.packet import world as w
from tests.packet.harness import VERDICTS, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX, run

CONFIG = Config(
    vips=tuple(
        Vip(
            name=name,
            service=Service(address, port, port, protocol),
            mode=mode,
            backends=tuple(Backend(Endpoint(backend, backend_port)) for backend, backend_port in backends),
        )
        for name, address, port, protocol, mode, backends in (
            ("nat-tcp", w.NAT_TCP_VIP, 80, Protocol.TCP, Mode.NAT, [(w.NAT_BACKEND, 8080)]),
            ("nat-udp", w.NAT_UDP_VIP, 53, Protocol.UDP, Mode.NAT, [(w.NAT_BACKEND, 5353)]),
            ("dsr-tcp", w.DSR_TCP_VIP, 80, Protocol.TCP, Mode.DSR, [(w.DSR_BACKEND, 80)]),
            ("dsr-udp", w.DSR_UDP_VIP, 53, Protocol.UDP, Mode.DSR, [(w.DSR_BACKEND, 53)]),
            ("empty", w.EMPTY_VIP, 80, Protocol.TCP, Mode.NAT, []),
            ("lost", w.LOST_VIP, 80, Protocol.TCP, Mode.NAT, [(w.LOST_BACKEND, 80)]),
        )
    )
)
NEXT_HOPS = dict.fromkeys((w.NAT_BACKEND, w.DSR_BACKEND), hop(LOOPBACK, w.BACKEND_MAC))


@pytest.fixture(scope="module")
def lb(bed: Testbed) -> Testbed:
    bed.configure(CONFIG, NEXT_HOPS)
    return bed


def frame(packet: Packet, source: str = w.CLIENT_MAC, destination: str = w.GATEWAY_MAC) -> Packet:
    return Ether(src=source, dst=destination) / packet


def ip(source: str | IPv4Address, destination: str | IPv4Address, **fields: object) -> Packet:
    return IP(src=str(source), dst=str(destination), **fields)


def tcp(source: int, destination: int, flags: str = "PA") -> Packet:
    return TCP(sport=source, dport=destination, flags=flags, seq=7, ack=9)


def to_backend(packet: Packet) -> Packet:
    return frame(packet, w.GATEWAY_MAC, w.BACKEND_MAC)


def from_backend(packet: Packet) -> Packet:
    return frame(packet, w.BACKEND_MAC)


DATA = Raw(b"odd number of bytes")
NO_CHECKSUM = UDP(sport=4000, dport=53, chksum=0)


@dataclass(frozen=True)
class Forwarded:
    """A packet that goes on, what it looks like then, and the backend that is charged with it."""

    name: str
    packet: Packet
    expected: Packet
    account: str
    back: bool = False


FORWARDED = [
    Forwarded(
        f"nat in, tcp {flags}",
        frame(ip(w.CLIENT, w.NAT_TCP_VIP) / tcp(4000, 80, flags) / DATA),
        to_backend(ip(w.CLIENT, w.NAT_BACKEND, ttl=63) / tcp(4000, 8080, flags) / DATA),
        "192.0.2.10:80 10.2.0.11:8080",
    )
    for flags in ("S", "A", "FA", "R", "PA")
]
FORWARDED += [
    Forwarded(
        "nat in, tcp with IP options",
        frame(ip(w.CLIENT, w.NAT_TCP_VIP, options=[IPOption_NOP()] * 4) / tcp(4000, 80) / DATA),
        to_backend(ip(w.CLIENT, w.NAT_BACKEND, ttl=63, options=[IPOption_NOP()] * 4) / tcp(4000, 8080) / DATA),
        "192.0.2.10:80 10.2.0.11:8080",
    ),
    Forwarded(
        "nat in, last TTL that a router forwards",
        frame(ip(w.CLIENT, w.NAT_TCP_VIP, ttl=2) / tcp(4000, 80)),
        to_backend(ip(w.CLIENT, w.NAT_BACKEND, ttl=1) / tcp(4000, 8080)),
        "192.0.2.10:80 10.2.0.11:8080",
    ),
    Forwarded(
        "nat in, udp",
        frame(ip(w.CLIENT, w.NAT_UDP_VIP) / UDP(sport=4000, dport=53) / DATA),
        to_backend(ip(w.CLIENT, w.NAT_BACKEND, ttl=63) / UDP(sport=4000, dport=5353) / DATA),
        "192.0.2.11:53 10.2.0.11:5353",
    ),
    Forwarded(
        "nat in, udp without checksum",
        frame(ip(w.CLIENT, w.NAT_UDP_VIP) / NO_CHECKSUM / DATA),
        to_backend(ip(w.CLIENT, w.NAT_BACKEND, ttl=63) / UDP(sport=4000, dport=5353, chksum=0) / DATA),
        "192.0.2.11:53 10.2.0.11:5353",
    ),
    Forwarded(
        "nat in, udp without data",
        frame(ip(w.CLIENT, w.NAT_UDP_VIP) / UDP(sport=4000, dport=53)),
        to_backend(ip(w.CLIENT, w.NAT_BACKEND, ttl=63) / UDP(sport=4000, dport=5353)),
        "192.0.2.11:53 10.2.0.11:5353",
    ),
    Forwarded(
        "nat in, padded to the shortest frame",
        frame(ip(w.CLIENT, w.NAT_UDP_VIP) / UDP(sport=4000, dport=53)) / Raw(b"\0" * 18),
        to_backend(ip(w.CLIENT, w.NAT_BACKEND, ttl=63) / UDP(sport=4000, dport=5353)) / Raw(b"\0" * 18),
        "192.0.2.11:53 10.2.0.11:5353",
    ),
    Forwarded(
        "nat in, 1500 bytes",
        frame(ip(w.CLIENT, w.NAT_TCP_VIP) / tcp(4000, 80) / Raw(b"x" * 1460)),
        to_backend(ip(w.CLIENT, w.NAT_BACKEND, ttl=63) / tcp(4000, 8080) / Raw(b"x" * 1460)),
        "192.0.2.10:80 10.2.0.11:8080",
    ),
    Forwarded(
        "dsr in, tcp",
        frame(ip(w.CLIENT, w.DSR_TCP_VIP) / tcp(4000, 80) / DATA),
        to_backend(ip(w.CLIENT, w.DSR_TCP_VIP) / tcp(4000, 80) / DATA),
        "192.0.2.12:80 10.2.0.12:80",
    ),
    Forwarded(
        "dsr in, udp, TTL 1: no router is passed",
        frame(ip(w.CLIENT, w.DSR_UDP_VIP, ttl=1) / UDP(sport=4000, dport=53) / DATA),
        to_backend(ip(w.CLIENT, w.DSR_UDP_VIP, ttl=1) / UDP(sport=4000, dport=53) / DATA),
        "192.0.2.13:53 10.2.0.12:53",
    ),
]


@pytest.mark.parametrize("case", FORWARDED, ids=lambda case: case.name)
def test_to_a_backend(lb: Testbed, case: Forwarded) -> None:
    outcome = run(lb, bytes(case.packet))
    assert Ether(outcome.packet).show2(dump=True) == Ether(bytes(case.expected)).show2(dump=True)
    assert outcome.packet == bytes(case.expected)
    assert outcome.verdict == XDP_TX
    assert outcome.reasons == {}
    assert outcome.traffic == {case.account: Traffic(1, len(case.packet), 0, 0)}


BACK = [
    Forwarded(
        "nat back, tcp, to a client on the segment",
        from_backend(ip(w.NAT_BACKEND, w.CLIENT) / tcp(8080, 4000, "SA") / DATA),
        frame(ip(w.NAT_TCP_VIP, w.CLIENT, ttl=63) / tcp(80, 4000, "SA") / DATA, w.GATEWAY_MAC, w.CLIENT_MAC),
        "192.0.2.10:80 10.2.0.11:8080",
    ),
    Forwarded(
        "nat back, udp, to a client behind a router",
        from_backend(ip(w.NAT_BACKEND, w.FAR_CLIENT) / UDP(sport=5353, dport=4000) / DATA),
        frame(ip(w.NAT_UDP_VIP, w.FAR_CLIENT, ttl=63) / UDP(sport=53, dport=4000) / DATA, w.GATEWAY_MAC, w.ROUTER_MAC),
        "192.0.2.11:53 10.2.0.11:5353",
    ),
    Forwarded(
        "nat back, udp without checksum",
        from_backend(ip(w.NAT_BACKEND, w.CLIENT) / UDP(sport=5353, dport=4000, chksum=0) / DATA),
        frame(
            ip(w.NAT_UDP_VIP, w.CLIENT, ttl=63) / UDP(sport=53, dport=4000, chksum=0) / DATA,
            w.GATEWAY_MAC,
            w.CLIENT_MAC,
        ),
        "192.0.2.11:53 10.2.0.11:5353",
    ),
]


@pytest.mark.parametrize("remembered", [False, True], ids=["asked", "remembered"])
@pytest.mark.parametrize("case", BACK, ids=lambda case: case.name)
def test_back_to_the_client(lb: Testbed, case: Forwarded, remembered: bool) -> None:
    lb.maps.forget_routes()
    if remembered:
        run(lb, bytes(case.packet))
    outcome = run(lb, bytes(case.packet))
    assert Ether(outcome.packet).show2(dump=True) == Ether(bytes(case.expected)).show2(dump=True)
    assert outcome.packet == bytes(case.expected)
    assert outcome.verdict == XDP_REDIRECT
    assert outcome.reasons == {}
    assert outcome.traffic == {case.account: Traffic(0, 0, 1, len(case.packet))}


def malformed(packet: Packet, **fields: object) -> Packet:
    """A packet whose length fields say something else than its length."""
    for field, value in fields.items():
        packet[IP].setfieldval(field, value)
    return packet


TO_VIP = ip(w.CLIENT, w.NAT_TCP_VIP)
# name, packet, reason. Whatever passes or is dropped here stays as it was.
NOT_FORWARDED = [
    ("arp", frame(ARP(pdst=str(w.NAT_TCP_VIP))), "pass_not_ip"),
    ("three VLAN tags", frame(Dot1Q(vlan=5) / Dot1Q() / Dot1Q() / TO_VIP / tcp(4000, 80)), "pass_not_ip"),
    ("ipv6", frame(IPv6(dst="2001:db8::1") / TCP(dport=80)), "pass_not_vip"),
    ("ping of another address", frame(ip(w.CLIENT, "192.0.2.99") / ICMP()), "pass_not_tcp_udp"),
    ("answer to a ping", frame(TO_VIP / ICMP(type="echo-reply")), "pass_not_tcp_udp"),
    ("another port of the VIP", frame(TO_VIP / tcp(4000, 81)), "pass_not_vip"),
    ("another protocol on the VIP's port", frame(TO_VIP / UDP(sport=4000, dport=80)), "pass_not_vip"),
    ("another address", frame(ip(w.CLIENT, "192.0.2.99") / tcp(4000, 80)), "pass_not_vip"),
    ("to a backend itself", frame(ip(w.CLIENT, w.NAT_BACKEND) / tcp(4000, 8080)), "pass_not_vip"),
    ("from a dsr backend", from_backend(ip(w.DSR_BACKEND, w.CLIENT) / tcp(80, 4000)), "pass_not_vip"),
    ("from a backend's other port", from_backend(ip(w.NAT_BACKEND, w.CLIENT) / tcp(22, 4000)), "pass_not_vip"),
    ("first fragment, not ours", frame(ip(w.CLIENT, "192.0.2.99", flags="MF") / tcp(4000, 80)), "pass_not_vip"),
    ("ihl 4", frame(malformed(TO_VIP / tcp(4000, 80), ihl=4)), "pass_malformed"),
    ("ihl beyond the end", frame(malformed(TO_VIP / tcp(4000, 80), ihl=15)), "pass_malformed"),
    ("version 5", frame(malformed(TO_VIP / tcp(4000, 80), version=5)), "pass_malformed"),
    ("only an Ethernet header", Ether(dst=w.GATEWAY_MAC, type=0x800), "pass_malformed"),
    ("cut off in the IP header", Raw(bytes(frame(TO_VIP / tcp(4000, 80)))[:33]), "pass_malformed"),
    ("cut off in the ports", Raw(bytes(frame(TO_VIP / tcp(4000, 80)))[:37]), "pass_malformed"),
    ("for another machine", frame(TO_VIP / tcp(4000, 80), destination=w.OTHER_MAC), "pass_other_host"),
    ("broadcast", frame(TO_VIP / tcp(4000, 80), destination="ff:ff:ff:ff:ff:ff"), "pass_other_host"),
    ("later fragment, not ours", frame(ip(w.CLIENT, "192.0.2.99", frag=10) / tcp(4000, 80)), "pass_fragment"),
    ("TTL 1", frame(ip(w.CLIENT, w.NAT_TCP_VIP, ttl=1) / tcp(4000, 80)), "pass_ttl_expired"),
    ("TTL 0", frame(ip(w.CLIENT, w.NAT_TCP_VIP, ttl=0) / tcp(4000, 80)), "pass_ttl_expired"),
    ("TTL 1, back", from_backend(ip(w.NAT_BACKEND, w.CLIENT, ttl=1) / tcp(8080, 4000)), "pass_ttl_expired"),
    ("backend to the gateway", from_backend(ip(w.NAT_BACKEND, "10.1.0.1") / tcp(8080, 4000)), "pass_local"),
    ("later fragment of no first", frame(ip(w.CLIENT, w.NAT_TCP_VIP, frag=10) / tcp(4000, 80)), "drop_fragment"),
    ("total length beyond the end", frame(malformed(TO_VIP / tcp(4000, 80), len=200)), "drop_malformed"),
    ("total length within the TCP header", frame(malformed(TO_VIP / tcp(4000, 80), len=39)), "drop_malformed"),
    ("cut off in the TCP header", Raw(bytes(frame(TO_VIP / tcp(4000, 80)))[:53]), "drop_malformed"),
    ("no backend", frame(ip(w.CLIENT, w.EMPTY_VIP) / tcp(4000, 80)), "drop_no_backend"),
    ("next hop unknown", frame(ip(w.CLIENT, w.LOST_VIP) / tcp(4000, 80)), "drop_no_next_hop"),
    ("black hole", from_backend(ip(w.NAT_BACKEND, w.UNREACHABLE_CLIENT) / tcp(8080, 4000)), "drop_no_route"),
    ("1501 bytes back", from_backend(ip(w.NAT_BACKEND, w.CLIENT) / tcp(8080, 4000) / Raw(b"x" * 1461)), "drop_too_big"),
]


@pytest.mark.parametrize(
    ("packet", "reason"), [row[1:] for row in NOT_FORWARDED], ids=[row[0] for row in NOT_FORWARDED]
)
def test_not_forwarded(lb: Testbed, packet: Packet, reason: str) -> None:
    lb.maps.forget_routes()
    outcome = run(lb, bytes(packet))
    assert outcome.reasons == {reason: 1}
    assert outcome.traffic == {}
    assert outcome.verdict == VERDICTS[reason.partition("_")[0]]
    assert outcome.packet == bytes(packet)


def test_an_answer_to_an_unknown_neighbour_makes_the_kernel_ask(lb: Testbed) -> None:
    """It goes to the kernel as a bare header, so that no client sees it under the backend's address."""
    outcome = run(lb, bytes(from_backend(ip(w.NAT_BACKEND, w.UNKNOWN_CLIENT) / tcp(8080, 4000) / DATA)))
    assert (outcome.verdict, outcome.reasons) == (XDP_PASS, {"pass_resolve_neighbour": 1})
    header = bytes(ip(w.NAT_BACKEND, w.UNKNOWN_CLIENT, proto=253, len=20))
    assert outcome.packet[14:34] == header


def test_forwarding_off(lb: Testbed) -> None:
    switch = Path("/proc/sys/net/ipv4/conf/lo/forwarding")
    switch.write_text("0")
    try:
        lb.maps.forget_routes()
        outcome = run(lb, bytes(from_backend(ip(w.NAT_BACKEND, w.CLIENT) / tcp(8080, 4000))))
    finally:
        switch.write_text("1")
    assert (outcome.verdict, outcome.reasons) == (XDP_DROP, {"drop_forwarding_off": 1})


def test_an_egress_that_is_not_ours(lb: Testbed) -> None:
    lb.maps.forget_routes()
    packet = bytes(from_backend(ip(w.NAT_BACKEND, w.CLIENT) / tcp(8080, 4000)))
    lb.maps.clear_port(lb.wan)
    outcome = run(lb, packet)
    lb.set_port("wan", lb.wan)
    assert (outcome.verdict, outcome.reasons) == (XDP_DROP, {"drop_no_egress": 1})


def test_a_remembered_route_expires_by_itself(lb: Testbed) -> None:
    """Without a control plane to say that routes changed, the program finds out."""
    packet = bytes(from_backend(ip(w.NAT_BACKEND, w.CLIENT) / tcp(8080, 4000)))
    lb.maps.forget_routes()
    assert Ether(run(lb, packet).packet).dst == w.CLIENT_MAC
    subprocess.run(["ip", "neighbour", "change", w.CLIENT, "lladdr", w.OTHER_MAC, "dev", "wan"], check=True)
    try:
        assert Ether(run(lb, packet).packet).dst == w.CLIENT_MAC
        time.sleep(1.1)
        assert Ether(run(lb, packet).packet).dst == w.OTHER_MAC
    finally:
        subprocess.run(["ip", "neighbour", "change", w.CLIENT, "lladdr", w.CLIENT_MAC, "dev", "wan"], check=True)
