"""A moment of `scripts/fuzz`: packets of every kind, damaged and whole, through the program and the reference of it."""

import itertools
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.packet import Packet, Raw

from l4lb.datapath.layout import FEATURES
from l4lb.lab.testbed import Testbed
from tests.fuzz import frames
from tests.fuzz.frames import Flow, Header
from tests.fuzz.session import bed_of, fuzz
from tests.fuzz.worlds import WORLDS

PACKETS = 3_000  # to each world
SEED = 7
EVERYTHING = [number for number, world in enumerate(WORLDS) if world.features == frozenset(FEATURES)]
OTHERS = {
    features: list(numbers)
    for features, numbers in itertools.groupby(
        (number for number in range(len(WORLDS)) if number not in EVERYTHING),
        key=lambda number: WORLDS[number].features,
    )
}


@pytest.mark.parametrize("number", EVERYTHING, ids=lambda number: WORLDS[number].name.replace(" ", "-"))
def test_everything_compiled_in(bed: Testbed, number: int) -> None:
    result = fuzz(bed, number, PACKETS, SEED)
    assert not result.reports, "\n".join(result.reports)
    assert result.packets == PACKETS
    assert result.coverage["tx"] > PACKETS / 10


@pytest.mark.parametrize("numbers", OTHERS.values(), ids=lambda numbers: WORLDS[numbers[0]].name.replace(" ", "-"))
def test_features_left_out(numbers: list[int]) -> None:
    world = WORLDS[numbers[0]]
    with bed_of(world.features, world.limits) as made:
        for number in numbers:
            result = fuzz(made, number, PACKETS, SEED)
            assert not result.reports, "\n".join(result.reports)
            assert result.packets == PACKETS


def flow(version: int, protocol: int) -> Flow:
    source, destination = ("10.1.0.2", "192.0.2.1") if version == 4 else ("fd01::2", "2001:db8::1")
    return Flow(ip_address(source).packed, ip_address(destination).packed, 4000, 80, protocol)


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_sent_is_whole_before_it_is_damaged(version: int) -> None:
    """The fuzzer's own packets are Scapy's, byte for byte: else it would only try what is thrown away at once."""
    payload = b"odd"
    segment, datagram = flow(version, 6), flow(version, 17)
    source, destination = (str(ip_address(address)) for address in (segment.source, segment.destination))
    tcp = TCP(sport=4000, dport=80, seq=1, ack=9, flags="S", options=[("MSS", 1460)]) / payload
    udp = UDP(sport=4000, dport=80) / payload
    syn = frames.tcp(segment, frames.SYN, b"\2\4\5\xb4", payload)
    later = frames.ip(*_ends(datagram), 17, b"x" * 16, Header(fragment=(24, True, 7)))
    wanted: list[tuple[bytes, Packet]]
    if version == 4:
        header = IP(src=source, dst=destination, id=7, flags="DF")
        made = Header(number=7, dont_fragment=True)
        ping = frames.icmp(*_ends(segment), 8, 0, b"\0\1\0\2", payload)
        fragment = IP(src=source, dst=destination, id=7, flags="MF", frag=3, proto=17)
        wanted = [
            (frames.ip(*_ends(segment), 6, syn, made), header / tcp),
            (frames.ip(*_ends(datagram), 17, frames.udp(datagram, payload), made), header / udp),
            (frames.ip(*_ends(segment), 1, ping, made), header / ICMP(type=8, id=1, seq=2) / payload),
            (later, fragment / Raw(b"x" * 16)),
        ]
    else:
        bare = IPv6(src=source, dst=destination)
        made = Header(extensions=((0, b"\0\0\1\4\0\0\0\0"), (60, b"\0\0\1\4\0\0\0\0")))
        ping = frames.icmp(*_ends(segment), 128, 0, b"\0\1\0\2", payload)
        wanted = [
            (frames.ip(*_ends(segment), 6, syn, made), bare / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / tcp),
            (frames.ip(*_ends(datagram), 17, frames.udp(datagram, payload), Header()), bare / udp),
            (frames.ip(*_ends(segment), 58, ping, Header()), bare / ICMPv6EchoRequest(id=1, seq=2, data=payload)),
            (later, bare / IPv6ExtHdrFragment(nh=17, offset=3, m=1, id=7) / Raw(b"x" * 16)),
        ]
    for found, expected in wanted:
        assert found == bytes(expected)


def _ends(flow: Flow) -> tuple[bytes, bytes]:
    return flow.source, flow.destination
