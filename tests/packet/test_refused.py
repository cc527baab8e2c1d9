"""Clients of a VIP that no backend serves are told so, where that is wanted; expected bytes by Scapy."""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from l4lb.datapath.layout import FEATURES
from l4lb.health.rules import NoneLeft, VipRules
from l4lb.lab.testbed import CLIENT, CLIENT6, CLIENT_MAC, GATEWAY_MAC, Testbed, testbed
from l4lb.model import Backend, Config, Endpoint, Mode, Protocol, Service, Vip
from tests.packet.harness import LIMITS, SEED, XDP_DROP, XDP_TX, run

TCP_VIP, UDP_VIP = Protocol.TCP, Protocol.UDP
VIPS = {4: "192.0.2.7", 6: "2001:db8::7"}
CLIENTS = {4: CLIENT, 6: CLIENT6}


def vip(version: int, protocol: Protocol, none_left: NoneLeft = NoneLeft.REJECT) -> Vip:
    service = Service(ip_address(VIPS[version]), 80, 80, protocol)
    away = Backend(Endpoint(ip_address("10.2.0.9"), 80), weight=0)
    return Vip(
        f"{protocol.label}{version}",
        service,
        Mode.IPIP,
        backends=(away,) if protocol is UDP_VIP else (),
        spread=VipRules(none_left=none_left),
    )


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with testbed(frozenset(FEATURES), SEED, LIMITS) as made:
        vips = [vip(version, protocol) for version in (4, 6) for protocol in Protocol]
        made.configure(Config(tuple(sorted(vips, key=lambda one: one.name)), SEED), {})
        yield made


def ip(version: int, *, back: bool = False, **fields: Any) -> Packet:
    source, destination = CLIENTS[version], VIPS[version]
    if back:
        source, destination = destination, source
    return (IP if version == 4 else IPv6)(src=source, dst=destination, **fields)


def arriving(*layers: Packet) -> bytes:
    frame: Packet = Ether(src=CLIENT_MAC, dst=GATEWAY_MAC)
    for layer in layers:
        frame = frame / layer
    return bytes(frame)


def leaving(*layers: Packet) -> bytes:
    frame: Packet = Ether(src=GATEWAY_MAC, dst=CLIENT_MAC)
    for layer in layers:
        frame = frame / layer
    return bytes(frame)


def answer_ip(version: int) -> Packet:
    return ip(4, back=True, id=0, ttl=64) if version == 4 else ip(6, back=True, hlim=64)


SEGMENTS = [
    ("SYN", {"flags": "S", "seq": 2**32 - 1}, b"", {"flags": "RA", "seq": 0, "ack": 0}),
    ("SYN with data", {"flags": "S", "seq": 5}, b"early", {"flags": "RA", "seq": 0, "ack": 11}),
    ("ACK", {"flags": "A", "seq": 5, "ack": 77}, b"", {"flags": "R", "seq": 77, "ack": 0}),
    ("data", {"flags": "PA", "seq": 5, "ack": 78}, b"x" * 200, {"flags": "R", "seq": 78, "ack": 0}),
    ("FIN alone", {"flags": "F", "seq": 5}, b"", {"flags": "RA", "seq": 0, "ack": 6}),
    ("options", {"flags": "S", "seq": 5, "options": [("MSS", 1460)]}, b"", {"flags": "RA", "seq": 0, "ack": 6}),
]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("fields", "data", "expected"), [row[1:] for row in SEGMENTS], ids=[row[0] for row in SEGMENTS]
)
@pytest.mark.parametrize("tags", [0, 1, 2])
def test_a_segment_is_reset(
    bed: Testbed, version: int, fields: dict[str, Any], data: bytes, expected: dict[str, Any], tags: int
) -> None:
    vlan = [Dot1Q(vlan=number) for number in range(5, 5 + tags)]
    outcome = run(bed, arriving(*vlan, ip(version), TCP(sport=4000, dport=80, **fields), Raw(data)))
    back = TCP(sport=80, dport=4000, window=0, **expected)
    assert outcome.packet == leaving(*(tag.copy() for tag in vlan), answer_ip(version), back)
    assert (outcome.verdict, outcome.reasons, outcome.traffic) == (XDP_TX, {"answer_refused": 1}, {})


@pytest.mark.parametrize("version", [4, 6])
def test_a_datagram_is_unreachable(bed: Testbed, version: int) -> None:
    datagram = ip(version) / UDP(sport=4000, dport=80) / Raw(b"is anybody there?")
    outcome = run(bed, arriving(datagram))
    quoted = Raw(bytes(datagram)[: (20 if version == 4 else 40) + 8])
    error = ICMP(type=3, code=3) if version == 4 else ICMPv6DestUnreach(code=4)
    assert outcome.packet == leaving(answer_ip(version), error, quoted)
    assert (outcome.verdict, outcome.reasons) == (XDP_TX, {"answer_refused": 1})


def test_options_and_extension_headers_do_not_come_back(bed: Testbed) -> None:
    outcome = run(bed, arriving(ip(4, options=b"\x01" * 4), TCP(sport=4000, dport=80, seq=1)))
    back = TCP(sport=80, dport=4000, window=0, flags="RA", ack=2)
    assert outcome.packet == leaving(answer_ip(4), back)
    outcome = run(bed, arriving(ip(6), IPv6ExtHdrDestOpt(), TCP(sport=4000, dport=80, seq=1)))
    assert outcome.packet == leaving(answer_ip(6), back.copy())


@pytest.mark.parametrize(
    "layers",
    [
        (ip(4), TCP(sport=4000, dport=80, flags="R")),
        (ip(4), TCP(sport=4000, dport=80, flags="RA")),
        (IP(src="224.0.0.1", dst=VIPS[4]), TCP(sport=4000, dport=80)),
        (IPv6(src="ff02::1", dst=VIPS[6]), UDP(sport=4000, dport=80)),
        (ip(4, flags="MF"), UDP(sport=4000, dport=80), Raw(bytes(64))),
        (ip(4), ICMP(type=3, code=3), IP(src=VIPS[4], dst=CLIENT), TCP(sport=80, dport=4000)),
    ],
    ids=["reset", "reset with ACK", "from many", "from many, IPv6", "first fragment", "ICMP error"],
)
def test_what_no_host_answers_is_dropped(bed: Testbed, layers: tuple[Packet, ...]) -> None:
    outcome = run(bed, arriving(*layers))
    assert (outcome.verdict, outcome.reasons) == (XDP_DROP, {"drop_no_backend": 1})


def test_it_can_be_changed_under_traffic(bed: Testbed) -> None:
    syn = arriving(ip(4), TCP(sport=4000, dport=80))
    before = [vip(4, TCP_VIP), vip(4, UDP_VIP), vip(6, TCP_VIP), vip(6, UDP_VIP)]
    changed = [vip(4, TCP_VIP, NoneLeft.DROP), *before[1:]]
    for vips, reason in ((changed, "drop_no_backend"), (before, "answer_refused")):
        bed.configure(Config(tuple(sorted(vips, key=lambda one: one.name)), SEED), {})
        assert run(bed, syn).reasons == {reason: 1}
