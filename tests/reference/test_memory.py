"""What the reference keeps: connections in their places, and fragments."""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from l4lb.balance.flowhash import flow_tag
from l4lb.model import Mode
from tests.reference import Reference
from tests.reference import setting as s

LONG = Raw(bytes(range(256)) * 5)


class Clock:
    """Ticks that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000

    def __call__(self) -> int:
        return self.now


def syn(client: int, vip: str = "192.0.2.11", port: int = 80, flags: str = "S") -> Packet:
    return s.incoming(s.ip(s.CLIENT, vip) / TCP(sport=client, dport=port, flags=flags))


def pool_port(vip: str, client: str, port: int, service_port: int, number: int | None = None) -> int:
    """The port that fullnat sends from for the first of the 256 places that a flow hashes to."""
    if number is None:
        number = next(at for at, configured in enumerate(s.VIPS) if configured.name == vip)
    tag = flow_tag(s.hash_of(client, port, service_port), number, s.CONSTANTS)
    return 16_384 + (tag >> 32) % 256


def test_fullnat_there_and_back() -> None:
    reference = Reference(s.world())
    port = pool_port("fullnat", s.CLIENT, 4000, 80)
    there = s.to_backend(s.ip(s.GATEWAY, "10.2.0.11", 63) / TCP(sport=port, dport=8080, flags="S"))
    assert s.run(reference, syn(4000)).frame == bytes(there)
    answer = s.incoming(s.ip("10.2.0.11", s.GATEWAY) / TCP(sport=8080, dport=port, flags="SA"), s.BACKEND_MAC)
    back = s.to_client(s.ip("192.0.2.11", s.CLIENT, 63) / TCP(sport=80, dport=4000, flags="SA"))
    assert s.run(reference, answer).frame == bytes(back)


def test_an_error_about_a_fullnat_connection_goes_to_the_backend_as_the_gateways() -> None:
    reference = Reference(s.world())
    s.run(reference, syn(4000))
    quote = s.ip("192.0.2.11", s.CLIENT) / TCP(sport=80, dport=4000)
    inner = s.ip("10.2.0.11", s.GATEWAY) / TCP(sport=8080, dport=pool_port("fullnat", s.CLIENT, 4000, 80))
    outcome = s.run(reference, s.incoming(s.ip("10.9.9.9", "192.0.2.11") / ICMP(type=3) / Raw(bytes(quote))))
    expected = s.to_backend(s.ip(s.GATEWAY, "10.2.0.11", 63) / ICMP(type=3) / Raw(bytes(inner)))
    assert s.shown(outcome.frame) == s.shown(bytes(expected))
    assert outcome.frame == bytes(expected)


def test_fullnat_answers_to_another_address_are_not_ours() -> None:
    """Also if it is as far away as makes the number of a place overflow in 32 bits."""
    reference = Reference(s.world())
    s.run(reference, syn(4000))
    for address in ("10.2.0.2", "10.6.0.1", "74.2.0.1"):
        packet = s.ip("10.2.0.11", address) / TCP(sport=8080, dport=pool_port("fullnat", s.CLIENT, 4000, 80))
        assert s.run(reference, s.incoming(packet)).reason == "pass_not_vip"


def test_an_answer_by_fullnat_that_is_too_long_is_told_to_the_backend() -> None:
    """The kernel would take it for its own and reset the connection."""
    reference = Reference(s.world())
    s.run(reference, s.incoming(s.ip(s.SLOW_CLIENT, "192.0.2.11") / TCP(sport=4000, dport=80, flags="S")))
    port = pool_port("fullnat", s.SLOW_CLIENT, 4000, 80)
    packet = s.ip("10.2.0.11", s.GATEWAY, flags="DF") / TCP(sport=8080, dport=port) / Raw(b"x" * 1361)
    outcome = s.run(reference, s.incoming(packet, s.BACKEND_MAC))
    told = s.ip(s.GATEWAY, "10.2.0.11", id=0) / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(bytes(packet)[:128])
    assert outcome.frame == bytes(s.to_backend(told))


def test_a_place_is_taken_again_when_its_connection_is_over() -> None:
    clock = Clock()
    reference = Reference(s.world(now=clock))
    s.run(reference, syn(4000))
    assert s.run(reference, syn(4000, flags="A")).reason is None
    clock.now += 280  # silent for as long as is allowed: 300 s are 280 ticks
    assert s.run(reference, syn(4000, flags="A")).reason is None
    clock.now += 281
    assert s.run(reference, syn(4000, flags="A")).reason == "answer_reset"


def test_a_port_that_is_used_again_begins_anew() -> None:
    """After a reset nothing is remembered for longer than a few ticks; but this one lives."""
    clock = Clock()
    reference = Reference(s.world(now=clock))
    for flags in ("S", "A", "R", "S", "A"):
        s.run(reference, syn(4000, flags=flags))
    clock.now += 20
    assert s.run(reference, syn(4000, flags="A")).reason is None


def test_no_place_is_left() -> None:
    """All places that a flow hashes to are of connections that live; one that only began gives way."""
    vip = s.vip("fullnat", "192.0.2.11:*", Mode.FULLNAT, "10.2.0.11", pool=256)
    ports = range(1, 4097)  # 16 for each place
    outcomes = {}
    for flags in ("SA", "S"):
        reference = Reference(s.world((vip,)))
        for port in ports:
            for flag in flags:
                s.run(reference, syn(4000, port=port, flags=flag))
        outcomes[flags] = s.run(reference, syn(4000, port=5000))
    assert outcomes["SA"].reason == "drop_no_port"
    sent_from = Ether(outcomes["S"].frame)[TCP].sport
    assert sent_from == pool_port("fullnat", s.CLIENT, 4000, 5000, number=0)


def test_a_shared_servers_answers_are_the_vips_that_was_asked() -> None:
    reference = Reference(s.world())
    s.run(reference, syn(4000, "192.0.2.24"))
    answers = [
        s.run(reference, s.incoming(s.ip("10.2.0.23", s.CLIENT) / TCP(sport=80, dport=port))) for port in (4000, 5000)
    ]
    assert [answer.vip for answer in answers] == ["shared-b", "shared-a"]
    assert s.run(reference, syn(4000, "192.0.2.23")).reason == "drop_no_port"


def test_a_shared_servers_old_connection_hides_no_new_one() -> None:
    clock = Clock()
    reference = Reference(s.world(now=clock))
    s.run(reference, syn(4000, "192.0.2.23"))
    clock.now += 100
    s.run(reference, syn(4000, "192.0.2.24"))
    answer = s.run(reference, s.incoming(s.ip("10.2.0.23", s.CLIENT) / TCP(sport=80, dport=4000)))
    assert answer.vip == "shared-b"


def test_several_ports_of_a_vip_on_one_of_a_backend() -> None:
    reference = Reference(s.world())
    s.run(reference, syn(4000, "192.0.2.22", 8005))
    answer = s.run(reference, s.incoming(s.ip("10.2.0.22", s.CLIENT) / TCP(sport=80, dport=4000)))
    assert Ether(answer.frame)[TCP].sport == 8005


def pieces(packet: Packet) -> list[Packet]:
    if IP in packet:
        return list(fragment(packet, 800))
    with_header = IPv6(src=packet.src, dst=packet.dst) / IPv6ExtHdrFragment(id=7) / packet.payload
    return list(fragment6(with_header, 800))


def whole(frames: list[bytes]) -> bytes:
    """The payload of a datagram, from its fragments."""
    parts = [Ether(frame).payload for frame in frames]
    if IP in parts[0]:
        return b"".join(bytes(part.payload) for part in parts)
    return b"".join(bytes(part[IPv6ExtHdrFragment].payload) for part in parts)


@pytest.mark.parametrize("lines", [0, 64])
@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (
            s.ip(s.CLIENT, "192.0.2.10") / UDP(sport=4000, dport=53) / LONG,
            s.ip(s.CLIENT, "10.2.0.10") / UDP(sport=4000, dport=5353) / LONG,
        ),
        (
            s.ip(s.CLIENT6, "2001:db8::10") / UDP(sport=4000, dport=53) / LONG,
            s.ip(s.CLIENT6, "fd02::10") / UDP(sport=4000, dport=5353) / LONG,
        ),
        (
            s.ip(s.CLIENT6, "2001:db8::11") / UDP(sport=4000, dport=53) / LONG,
            s.ip(s.GATEWAY6, "fd02::11") / UDP(sport=pool_port("fullnat6-udp", s.CLIENT6, 4000, 53), dport=53) / LONG,
        ),
    ],
    ids=["nat", "nat, v6", "fullnat, v6"],
)
def test_later_fragments_follow_the_first(sent: Packet, expected: Packet, lines: int) -> None:
    reference = Reference(s.world(fragment_lines=lines, constants=s.CONSTANTS))
    outcomes = [s.run(reference, s.incoming(piece)) for piece in pieces(sent)]
    assert [outcome.reason for outcome in outcomes] == [None, None]
    assert whole([outcome.frame for outcome in outcomes]) == bytes(expected.payload)
    for outcome in outcomes:
        header = Ether(outcome.frame).payload
        assert (header.src, header.dst) == (expected.src, expected.dst)


def test_fragments_of_a_fullnat_answer_go_to_their_client() -> None:
    reference = Reference(s.world())
    s.run(reference, s.incoming(s.ip(s.CLIENT6, "2001:db8::11") / UDP(sport=4000, dport=53)))
    port = pool_port("fullnat6-udp", s.CLIENT6, 4000, 53)
    answer = s.ip("fd02::11", s.GATEWAY6) / UDP(sport=53, dport=port) / LONG
    frames = [s.run(reference, s.incoming(piece, s.BACKEND_MAC)).frame for piece in pieces(answer)]
    expected = s.ip("2001:db8::11", s.CLIENT6) / UDP(sport=53, dport=4000) / LONG
    assert whole(frames) == bytes(expected.payload)


def test_a_fragment_that_overtook_its_first_goes_where_the_last_datagram_went() -> None:
    clock = Clock()
    reference = Reference(s.world(now=clock))
    first, later = pieces(s.ip(s.CLIENT, "192.0.2.10", id=5) / UDP(sport=4000, dport=53) / LONG)
    assert s.run(reference, s.incoming(later)).reason == "drop_fragment"
    s.run(reference, s.incoming(first))
    later.id = 6
    assert s.run(reference, s.incoming(later)).backend is not None
    clock.now += 31
    assert s.run(reference, s.incoming(later)).reason == "drop_fragment"
