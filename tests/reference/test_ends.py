"""The reference's reasons and answers: where a packet ends that is not forwarded."""

import re
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from l4lb.datapath import abi
from tests.reference import Reference
from tests.reference import setting as s

TCP_80 = TCP(sport=4000, dport=80, flags="PA")
VIP = s.ip(s.CLIENT, "192.0.2.10")
BIG = Raw(b"x" * 1461)
QUOTE = Raw(bytes(s.ip("192.0.2.10", s.CLIENT) / TCP(sport=80, dport=4000)))


def back(client: str, **fields: Any) -> Packet:
    return s.ip("10.2.0.10", client, **fields) / TCP(sport=8080, dport=4000)


def cut(packet: Packet, size: int) -> Packet:
    return Raw(bytes(s.incoming(packet))[:size])


# Whatever ends here leaves as it came.
ENDS = [
    ("pass_not_ip", s.incoming(ARP())),
    ("pass_not_ip", s.incoming(Dot1Q() / Dot1Q() / Dot1Q() / VIP / TCP_80)),
    ("pass_not_tcp_udp", s.incoming(VIP / ICMP(type="echo-reply"))),
    ("pass_not_tcp_udp", s.incoming(s.ip(s.CLIENT, "192.0.2.99") / ICMP())),
    ("pass_not_tcp_udp", s.incoming(s.ip("224.0.0.1", "192.0.2.10") / ICMP())),
    ("pass_not_tcp_udp", s.incoming(s.ip(s.CLIENT, "10.2.0.1") / ICMP(type=3) / QUOTE)),
    ("pass_not_tcp_udp", s.incoming(VIP / ICMP(type=3) / Raw(bytes(QUOTE)[:27]))),
    ("pass_not_tcp_udp", s.incoming(s.ip(s.CLIENT, "192.0.2.10", proto=47) / Raw(b"x" * 20))),
    ("pass_not_vip", s.incoming(VIP / TCP(dport=81))),
    ("pass_not_vip", s.incoming(s.ip("10.2.0.19", s.CLIENT) / TCP(sport=7999))),
    ("pass_not_vip", s.incoming(s.ip(s.CLIENT6, "2001:db8::10") / IPv6ExtHdrRouting(segleft=1) / TCP_80)),
    ("pass_other_host", Ether(dst="02:00:00:00:00:ff") / VIP / TCP_80),
    ("pass_fragment", s.incoming(s.ip(s.CLIENT, "192.0.2.99", frag=10) / TCP_80)),
    ("pass_fragment", s.incoming(s.ip(s.CLIENT, "192.0.2.10", frag=10, proto=1) / Raw(b"rest of a ping"))),
    ("pass_malformed", Raw(bytes(13))),
    ("pass_malformed", cut(VIP / TCP_80, 33)),
    ("pass_malformed", cut(VIP / TCP_80, 37)),
    ("pass_malformed", cut(s.ip(s.CLIENT6, "2001:db8::10") / TCP_80, 53)),
    ("pass_malformed", s.incoming(IP(ihl=4, dst="192.0.2.10") / TCP_80)),
    ("pass_ttl_expired", s.incoming(s.ip(s.CLIENT, "192.0.2.10", 1) / TCP_80)),
    ("pass_ttl_expired", s.incoming(back(s.CLIENT, ttl=1))),
    ("pass_local", s.incoming(back(s.GATEWAY))),
    ("pass_too_big", s.incoming(back(s.SLOW_CLIENT, flags="DF") / Raw(b"x" * 1361))),
    ("drop_malformed", s.incoming(s.ip(s.CLIENT, "192.0.2.10", len=39) / TCP_80)),
    ("drop_malformed", s.incoming(s.ip(s.CLIENT, "192.0.2.10", len=41) / TCP_80)),
    ("drop_malformed", s.incoming(s.ip(s.CLIENT, "192.0.2.10", len=55) / ICMP(type=3) / QUOTE)),
    ("drop_fragment", s.incoming(s.ip(s.CLIENT, "192.0.2.10", frag=10) / TCP_80)),
    ("drop_fragment", s.incoming(s.ip(s.CLIENT6, "2001:db8::10") / IPv6ExtHdrFragment(offset=9, nh=6) / TCP_80)),
    ("drop_no_backend", s.incoming(s.ip(s.CLIENT, "192.0.2.25") / TCP_80)),
    ("drop_no_next_hop", s.incoming(s.ip(s.CLIENT, "192.0.2.26") / TCP_80)),
    ("drop_no_egress", s.incoming(s.ip(s.CLIENT, "192.0.2.29") / TCP_80)),
    ("drop_no_route", s.incoming(back(s.LOST_CLIENT))),
    ("drop_too_big", s.incoming(back(s.SLOW_CLIENT) / Raw(b"x" * 1361))),
    ("drop_too_big", s.incoming(s.ip("0.1.2.3", "192.0.2.10") / TCP_80 / BIG)),
    ("drop_too_big", s.incoming(VIP / ICMP(type=3) / QUOTE / Raw(b"x" * 1433))),
    ("drop_no_connection", s.incoming(s.ip("10.2.0.22", s.CLIENT) / TCP(sport=80, dport=4000))),
]


@pytest.mark.parametrize(("reason", "packet"), ENDS, ids=[f"{row[0]}-{at}" for at, row in enumerate(ENDS)])
def test_ends(reason: str, packet: Packet) -> None:
    outcome = s.run(Reference(s.world()), packet)
    assert outcome.reason == reason
    assert outcome.frame == bytes(packet)
    assert outcome.verdict == reason.partition("_")[0]


def test_every_reason_is_one_of_the_programs() -> None:
    names = {name.lower() for name in abi.load().enums["reason"]}
    sources = [path.read_text() for path in Path(__file__).parent.glob("[!t]*.py")]
    used = {name for source in sources for name in re.findall(r'"((?:pass|drop|answer)_[a-z_]+)"', source)}
    assert len(used) > 20
    assert used <= names


def test_what_is_not_compiled_in_is_not_ours() -> None:
    reference = Reference(s.world(features=frozenset({"NAT"})))
    assert s.run(reference, s.incoming(s.ip(s.CLIENT6, "2001:db8::10") / TCP_80)).reason == "pass_not_vip"
    assert s.run(reference, s.incoming(Dot1Q() / VIP / TCP_80)).reason == "pass_not_ip"
    assert s.run(Reference(s.world(echo=False)), s.incoming(VIP / ICMP())).reason == "pass_not_tcp_udp"


def test_the_kernel_is_made_to_ask_for_a_neighbour() -> None:
    outcome = s.run(Reference(s.world()), s.incoming(back(s.UNKNOWN_CLIENT)))
    assert (outcome.verdict, outcome.reason) == ("pass", "pass_resolve_neighbour")
    assert outcome.frame[14:34] == bytes(s.ip("10.2.0.10", s.UNKNOWN_CLIENT, proto=253, len=20))


def test_forwarding_is_off() -> None:
    outcome = s.run(Reference(s.world(forwarding=False)), s.incoming(back(s.CLIENT)))
    assert outcome.reason == "drop_forwarding_off"


PINGS = [
    (
        s.ip(s.CLIENT, "192.0.2.10", 1, tos=4) / ICMP(id=3, seq=4) / Raw(b"abc"),
        s.ip("192.0.2.10", s.CLIENT, 64, tos=4) / ICMP(type=0, id=3, seq=4) / Raw(b"abc"),
    ),
    (
        s.ip(s.CLIENT6, "2001:db8::10", 1) / ICMPv6EchoRequest(id=3, seq=4, data=b"abc"),
        s.ip("2001:db8::10", s.CLIENT6, 64) / ICMPv6EchoReply(id=3, seq=4, data=b"abc"),
    ),
]


@pytest.mark.parametrize("tags", [0, 1])
@pytest.mark.parametrize(("ping", "answer"), PINGS, ids=["v4", "v6"])
def test_a_ping_is_answered(ping: Packet, answer: Packet, tags: int) -> None:
    ping, answer = (Dot1Q(vlan=9) / packet if tags else packet for packet in (ping, answer))
    outcome = s.run(Reference(s.world()), s.incoming(ping))
    assert (outcome.verdict, outcome.reason, outcome.egress) == ("tx", "answer_echo", s.LAN)
    assert outcome.frame == bytes(s.to_client(answer))


def test_the_client_is_told_how_long_a_packet_may_be() -> None:
    packet = s.ip(s.CLIENT, "192.0.2.13", flags="DF") / TCP_80 / Raw(b"x" * 1441)
    outcome = s.run(Reference(s.world()), s.incoming(packet))
    told = s.ip("192.0.2.13", s.CLIENT, 64, id=0) / ICMP(type=3, code=4, nexthopmtu=1480)
    assert (outcome.verdict, outcome.reason) == ("tx", "answer_too_big")
    assert outcome.frame == bytes(s.to_client(told / Raw(bytes(packet)[:128])))


def test_the_client_is_told_by_icmpv6() -> None:
    packet = s.ip(s.CLIENT6, "2001:db8::18") / TCP_80 / Raw(b"x" * 1393)
    outcome = s.run(Reference(s.world()), s.incoming(packet))
    told = IPv6(src="2001:db8::18", dst=s.CLIENT6, hlim=64) / ICMPv6PacketTooBig(mtu=1452) / Raw(bytes(packet)[:128])
    assert outcome.frame == bytes(s.to_client(told))


def test_answers_are_limited() -> None:
    packet = s.incoming(s.ip(s.CLIENT, "192.0.2.10") / TCP_80 / BIG)
    assert s.run(Reference(s.world(may_answer=lambda: False)), packet).reason == "drop_too_big"


def test_udp_that_leaves_something_out_gets_no_outer_checksum() -> None:
    """Its checksum says nothing of what is behind its end, so the outer one cannot be told from it."""
    packet = s.ip(s.CLIENT, "192.0.2.17") / UDP(sport=4000, dport=53, len=10) / Raw(b"more than two bytes")
    frame = s.run(Reference(s.world()), s.incoming(packet)).frame
    assert frame[14 + 40 + 6 : 14 + 40 + 8] == bytes(2)
