"""The reference against Scapy, which computes all checksums from scratch: what is forwarded, and how it looks then."""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    PadN,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.reference import Reference
from tests.reference import setting as s

DATA = Raw(b"odd number of bytes")
NOPS = [IPOption_NOP()] * 4


def tcp(source: int, destination: int, flags: str = "PA", **more: object) -> Packet:
    return TCP(sport=source, dport=destination, flags=flags, seq=7, ack=9, **more)


def udp(source: int, destination: int, **more: object) -> Packet:
    return UDP(sport=source, dport=destination, **more)


def outer(version: int, backend: str, client: str, port: int, service_port: int, **fields: object) -> Packet:
    """The outer header that a flow gets, from the network 198.18.0.0/24 or fd09::/96."""
    flow = s.hash_of(client, port, service_port)
    if version == 4:
        last = (flow & 0xFFFFFFFF).to_bytes(4, "little")[3]
        return IP(src=f"198.18.0.{last}", dst=backend, flags="DF", id=0, **fields)
    last_bytes = (flow & 0xFFFFFFFF).to_bytes(4, "little").hex()
    return IPv6(src=f"fd09::{last_bytes[:4]}:{last_bytes[4:]}", dst=backend, fl=flow >> 44, hlim=64, **fields)


def gue_port(client: str, port: int, service_port: int) -> int:
    return 0xC000 | s.hash_of(client, port, service_port) >> 48 & 0x3FFF


def unchanged(packet: Packet) -> Packet:
    return packet


def hop_by_hop(packet: Packet) -> Packet:
    return packet / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"ab")]) / IPv6ExtHdrDestOpt()


V4, V6 = (s.CLIENT, "192.0.2.10", "10.2.0.10"), (s.CLIENT6, "2001:db8::10", "fd02::10")
IN = [
    (
        f"nat, {family}, tcp{suffix}",
        wrap(s.ip(client, vip)) / tcp(4000, 80) / DATA,
        s.to_backend(wrap(s.ip(client, backend, 63)) / tcp(4000, 8080) / DATA),
    )
    for family, suffix, wrap, (client, vip, backend) in (
        ("v4", "", unchanged, V4),
        ("v6", "", unchanged, V6),
        ("v6", ", extension headers", hop_by_hop, V6),
    )
]
IN += [
    (
        f"nat, udp, {family}{suffix}",
        s.ip(client, vip) / udp(4000, 53, **fields) / DATA,
        s.to_backend(s.ip(client, backend, 63) / udp(4000, 5353, **fields) / DATA),
    )
    for family, (client, vip, backend) in (("v4", V4), ("v6", V6))
    for suffix, fields in (("", {}), (", no checksum", {"chksum": 0}))
]
IN += [
    (
        "nat, IP options, tag of its own",
        Dot1Q(vlan=9) / IP(src=s.CLIENT, dst="192.0.2.10", options=NOPS) / tcp(4000, 80),
        s.to_backend(IP(src=s.CLIENT, dst="10.2.0.10", ttl=63, options=NOPS) / tcp(4000, 8080)),
    ),
    (
        "nat, to a VLAN",
        s.ip(s.CLIENT, "192.0.2.27") / tcp(4000, 80),
        s.to_backend(Dot1Q(vlan=5) / s.ip(s.CLIENT, "10.2.0.27", 63) / tcp(4000, 80)),
    ),
    (
        "ipip, to a VLAN in a VLAN",
        Dot1AD(vlan=8) / Dot1Q(vlan=9) / s.ip(s.CLIENT, "192.0.2.28") / tcp(4000, 80),
        s.to_backend(
            Dot1AD(vlan=5)
            / Dot1Q(vlan=6)
            / outer(4, "10.2.0.28", s.CLIENT, 4000, 80)
            / s.ip(s.CLIENT, "192.0.2.28", 63)
            / tcp(4000, 80)
        ),
    ),
    (
        "dsr, TTL 1, too large a segment size",
        s.ip(s.CLIENT, "192.0.2.12", 1) / tcp(4000, 80, "S", options=[("NOP", None), ("MSS", 1460)]),
        s.to_backend(s.ip(s.CLIENT, "192.0.2.12", 1) / tcp(4000, 80, "S", options=[("NOP", None), ("MSS", 1200)])),
    ),
    (
        "dsr, a segment size that fits",
        s.ip(s.CLIENT, "192.0.2.12") / tcp(4000, 80, "S", options=[("MSS", 1000)]),
        s.to_backend(s.ip(s.CLIENT, "192.0.2.12") / tcp(4000, 80, "S", options=[("MSS", 1000)])),
    ),
    (
        "range, from the narrower one",
        s.ip(s.CLIENT, "192.0.2.19") / tcp(4000, 8549),
        s.to_backend(s.ip(s.CLIENT, "10.2.0.20", 63) / tcp(4000, 8549)),
    ),
    (
        "range, outside of the narrower one",
        s.ip(s.CLIENT, "192.0.2.19") / tcp(4000, 8600),
        s.to_backend(s.ip(s.CLIENT, "10.2.0.19", 63) / tcp(4000, 8600)),
    ),
    (
        "range, the single port in it",
        s.ip(s.CLIENT, "192.0.2.19") / tcp(4000, 8550),
        s.to_backend(s.ip(s.CLIENT, "10.2.0.21", 63) / tcp(4000, 80)),
    ),
    (
        "ipip, v4 in v4, class kept",
        s.ip(s.CLIENT, "192.0.2.13", tos=0xBA) / tcp(4000, 80) / DATA,
        s.to_backend(
            outer(4, "10.2.0.13", s.CLIENT, 4000, 80, tos=0xBA)
            / s.ip(s.CLIENT, "192.0.2.13", 63, tos=0xBA)
            / tcp(4000, 80)
            / DATA
        ),
    ),
    (
        "ipip, v4 in v6",
        s.ip(s.CLIENT, "192.0.2.14", tos=0xBA) / tcp(4000, 80) / DATA,
        s.to_backend(
            outer(6, "fd02::14", s.CLIENT, 4000, 80, tc=0xBA)
            / s.ip(s.CLIENT, "192.0.2.14", 63, tos=0xBA)
            / tcp(4000, 80)
            / DATA
        ),
    ),
    (
        "ipip, v6 in v4",
        s.ip(s.CLIENT6, "2001:db8::15", tc=0xBA, fl=5) / tcp(4000, 80) / DATA,
        s.to_backend(
            outer(4, "10.2.0.15", s.CLIENT6, 4000, 80, tos=0xBA)
            / s.ip(s.CLIENT6, "2001:db8::15", 63, tc=0xBA, fl=5)
            / tcp(4000, 80)
            / DATA
        ),
    ),
    (
        "gue, v4 in v4",
        s.ip(s.CLIENT, "192.0.2.16") / tcp(4000, 80) / DATA,
        s.to_backend(
            outer(4, "10.2.0.16", s.CLIENT, 4000, 80)
            / udp(gue_port(s.CLIENT, 4000, 80), 7000, chksum=0)
            / Raw(bytes(s.ip(s.CLIENT, "192.0.2.16", 63) / tcp(4000, 80) / DATA))
        ),
    ),
    (
        "gue, v4 in v6",
        s.ip(s.CLIENT, "192.0.2.17") / udp(4000, 53) / DATA,
        s.to_backend(
            outer(6, "fd02::17", s.CLIENT, 4000, 53)
            / udp(gue_port(s.CLIENT, 4000, 53), 6080)
            / Raw(bytes(s.ip(s.CLIENT, "192.0.2.17", 63) / udp(4000, 53) / DATA))
        ),
    ),
    (
        "gue, v6 in v6",
        s.ip(s.CLIENT6, "2001:db8::18", tc=3) / tcp(4000, 80) / DATA,
        s.to_backend(
            outer(6, "fd02::18", s.CLIENT6, 4000, 80, tc=3)
            / udp(gue_port(s.CLIENT6, 4000, 80), 6080)
            / Raw(bytes(s.ip(s.CLIENT6, "2001:db8::18", 63, tc=3) / tcp(4000, 80) / DATA))
        ),
    ),
    (
        "gue in v6, nothing that adds up: no checksum",
        s.ip(s.CLIENT, "192.0.2.17") / udp(4000, 53, chksum=0) / DATA,
        s.to_backend(
            outer(6, "fd02::17", s.CLIENT, 4000, 53)
            / udp(gue_port(s.CLIENT, 4000, 53), 6080, chksum=0)
            / Raw(bytes(s.ip(s.CLIENT, "192.0.2.17", 63) / udp(4000, 53, chksum=0) / DATA))
        ),
    ),
]


@pytest.mark.parametrize(("packet", "expected"), [row[1:] for row in IN], ids=[row[0] for row in IN])
def test_to_a_backend(packet: Packet, expected: Packet) -> None:
    outcome = s.run(Reference(s.world()), s.incoming(packet))
    assert s.shown(outcome.frame) == s.shown(bytes(expected))
    assert outcome.frame == bytes(expected)
    assert (outcome.verdict, outcome.reason, outcome.way, outcome.egress) == ("tx", None, "to_vip", s.LAN)


BACK = [
    (
        "nat, v4",
        s.ip("10.2.0.10", s.CLIENT) / tcp(8080, 4000) / DATA,
        s.ip("192.0.2.10", s.CLIENT, 63) / tcp(80, 4000) / DATA,
    ),
    (
        "nat, v6, udp",
        s.ip("fd02::10", s.CLIENT6) / udp(5353, 4000) / DATA,
        s.ip("2001:db8::10", s.CLIENT6, 63) / udp(53, 4000) / DATA,
    ),
    (
        "range, the port that the client chose",
        s.ip("10.2.0.19", s.CLIENT) / tcp(8100, 4000),
        s.ip("192.0.2.19", s.CLIENT, 63) / tcp(8100, 4000),
    ),
]


@pytest.mark.parametrize(("packet", "expected"), [row[1:] for row in BACK], ids=[row[0] for row in BACK])
def test_back_to_the_client(packet: Packet, expected: Packet) -> None:
    outcome = s.run(Reference(s.world()), s.incoming(packet, s.BACKEND_MAC))
    assert outcome.frame == bytes(s.to_client(expected))
    assert (outcome.verdict, outcome.way, outcome.egress) == ("redirect", "from_backend", s.WAN)


def quoted(packet: Packet, size: int) -> Packet:
    return Raw(bytes(packet)[:size])


UNREACHABLE = ICMP(type=3, code=1)
ERRORS = [
    (
        f"to a backend, from {sender}, {size} bytes quoted",
        s.ip(sender, "192.0.2.10") / UNREACHABLE / quoted(s.ip("192.0.2.10", s.CLIENT) / tcp(80, 4000) / DATA, size),
        s.ip(sender, "10.2.0.10", 63)
        / UNREACHABLE
        / quoted(s.ip("10.2.0.10", s.CLIENT, chksum=None) / tcp(8080, 4000) / DATA, size),
    )
    for sender in (s.CLIENT, "10.9.9.9")
    for size in (28, 36, 40, 59)
]
ERRORS += [
    (
        "to a backend, v6",
        s.ip("fd0a::1", "2001:db8::10")
        / ICMPv6TimeExceeded()
        / quoted(s.ip("2001:db8::10", s.CLIENT6) / udp(53, 4000) / DATA, 67),
        s.ip("fd0a::1", "fd02::10", 63)
        / ICMPv6TimeExceeded()
        / quoted(s.ip("fd02::10", s.CLIENT6) / udp(5353, 4000) / DATA, 67),
    ),
]
ERRORS_BACK = [
    (
        "from a backend: as the VIP's",
        s.ip("10.2.0.10", s.CLIENT) / UNREACHABLE / quoted(s.ip(s.CLIENT, "10.2.0.10") / tcp(4000, 8080), 40),
        s.ip("192.0.2.10", s.CLIENT, 63) / UNREACHABLE / quoted(s.ip(s.CLIENT, "192.0.2.10") / tcp(4000, 80), 40),
    ),
    (
        "from a router before it: as the router's, v6",
        s.ip("fd0a::1", s.CLIENT6)
        / ICMPv6DestUnreach()
        / quoted(s.ip(s.CLIENT6, "fd02::10") / udp(4000, 5353) / DATA, 67),
        s.ip("fd0a::1", s.CLIENT6, 63)
        / ICMPv6DestUnreach()
        / quoted(s.ip(s.CLIENT6, "2001:db8::10") / udp(4000, 53) / DATA, 67),
    ),
]


@pytest.mark.parametrize(("packet", "expected"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS])
def test_an_error_to_a_backend(packet: Packet, expected: Packet) -> None:
    outcome = s.run(Reference(s.world()), s.incoming(packet))
    assert s.shown(outcome.frame) == s.shown(bytes(s.to_backend(expected)))
    assert outcome.frame == bytes(s.to_backend(expected))


@pytest.mark.parametrize(("packet", "expected"), [row[1:] for row in ERRORS_BACK], ids=[row[0] for row in ERRORS_BACK])
def test_an_error_to_a_client(packet: Packet, expected: Packet) -> None:
    outcome = s.run(Reference(s.world()), s.incoming(packet, s.BACKEND_MAC))
    assert s.shown(outcome.frame) == s.shown(bytes(s.to_client(expected)))
    assert outcome.frame == bytes(s.to_client(expected))


@pytest.mark.parametrize("where", ["tcp", "ip"])
def test_a_wrong_checksum_stays_wrong_by_the_same_amount(where: str) -> None:
    """Or a router would vouch for what the sender never sent."""
    layer = TCP if where == "tcp" else IP
    reference = Reference(s.world())
    good = s.incoming(s.ip(s.CLIENT, "192.0.2.10") / tcp(4000, 80) / DATA)
    bad = Ether(bytes(good))
    bad[layer].chksum = (bad[layer].chksum + 5) % 0xFFFF
    frames = [Ether(s.run(reference, packet).frame) for packet in (good, bad)]
    assert (frames[1][layer].chksum - frames[0][layer].chksum) % 0xFFFF == 5
