"""The program that takes outer headers off on a backend: a packet in, the verdict, the whole packet out, the one count.

The packets expected are written by Scapy, which computes their checksums from scratch.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from l4lb.datapath import bpf
from l4lb.datapath.decap import DecapPins, Setup, load, read_reasons
from l4lb.lab.bpf_folder import bpf_folder
from tests.packet.harness import XDP_DROP, XDP_PASS

VIP, VIP6 = "192.0.2.10", "2001:db8::10"
OTHER, OTHER6 = "192.0.2.99", "2001:db8::99"  # no VIPs
CLIENT, CLIENT6 = "198.51.100.7", "2001:db8:c::7"
BALANCER, BALANCER6 = "10.2.0.1", "fd02::1"
HOST, HOST6 = "10.2.0.11", "fd02::11"
PORT = 7777  # not the usual one, which is for others then
USUAL_PORT = 6080

NOT_ECT, ECT1, ECT0, CE = range(4)
DSCP = 46 << 2  # of the inner header; the outer one's is another and does not matter

DATA = Raw(b"an odd number of bytes.")
TAGS = {"untagged": None, "802.1Q": Dot1Q(vlan=7, prio=5), "802.1ad": Dot1AD(vlan=9) / Dot1Q(vlan=7)}


@dataclass(frozen=True)
class Kind:
    """A kind of tunnel."""

    inner: int
    outer: int
    gue: bool

    @property
    def reason(self) -> str:
        return f"decap_ipv{self.inner}_in_{'gue_' if self.gue else ''}ipv{self.outer}"

    def inside(self, payload: Packet, ecn: int = NOT_ECT, destination: str = "") -> Packet:
        """A client's packet to the VIP."""
        if self.inner == 4:
            return IP(src=CLIENT, dst=destination or VIP, tos=DSCP | ecn, ttl=61, id=4711) / payload
        return IPv6(src=CLIENT6, dst=destination or VIP6, tc=DSCP | ecn, hlim=61, fl=99) / payload

    def around(self, inner: Packet, ecn: int = NOT_ECT, **udp: int) -> Packet:
        """What a balancer makes of a packet."""
        if self.outer == 4:
            header = IP(src=BALANCER, dst=HOST, tos=ecn, flags="DF")
        else:
            header = IPv6(src=BALANCER6, dst=HOST6, tc=ecn, fl=12345)
        return (
            header / UDP(**{"sport": 55555, "dport": PORT, **udp}) / Raw(bytes(inner)) if self.gue else header / inner
        )


KINDS = [Kind(inner, outer, gue) for gue in (False, True) for outer in (4, 6) for inner in (4, 6)]
PLAIN, PLAIN6, IN_IPV6 = Kind(4, 4, False), Kind(6, 4, False), Kind(4, 6, False)
GUE, GUE_IN_IPV6 = Kind(4, 4, True), Kind(4, 6, True)


def frame(packet: Packet, tags: Packet | None = None) -> Packet:
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    return ether / (tags.copy() / packet if tags else packet)


@dataclass(frozen=True)
class Outcome:
    verdict: int
    packet: bytes
    reasons: dict[str, int]


class Backend:
    """The program loaded for two VIPs."""

    def __init__(self, pins: DecapPins) -> None:
        self._reasons = pins.reasons
        program = load(pins, Setup(frozenset(map(ip_address, (VIP, VIP6))), PORT))
        self._program = bpf.open_pin(program)

    def close(self) -> None:
        os.close(self._program)

    def run(self, packet: Packet | bytes) -> Outcome:
        before = read_reasons(self._reasons)
        answer = bpf.run_on_packet(self._program, bytes(packet))
        after = read_reasons(self._reasons)
        return Outcome(
            answer.verdict,
            answer.packet,
            {name: count - before[name] for name, count in after.items() if count != before[name]},
        )


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with bpf_folder() as folder:
        pins = DecapPins(folder / "decap")
        with pins.prepared():
            made = Backend(pins)
            yield made
            made.close()


def stripped(kind: Kind, packet: Packet, expected: Packet, backend: Backend) -> None:
    assert backend.run(packet) == Outcome(XDP_PASS, bytes(expected), {kind.reason: 1})


def left_alone(reason: str, packet: Packet | bytes, backend: Backend) -> None:
    assert backend.run(packet) == Outcome(XDP_PASS, bytes(packet), {reason: 1})


@pytest.mark.parametrize("payload", [TCP(sport=4000, dport=80, flags="S") / DATA, UDP(sport=4000, dport=53) / DATA])
@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_outer_headers_come_off(kind: Kind, tags: Packet | None, payload: Packet, backend: Backend) -> None:
    inner = kind.inside(payload)
    stripped(kind, frame(kind.around(inner), tags), frame(inner, tags), backend)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.gue], ids=str)
@pytest.mark.parametrize("checksum", [0, None], ids=["none", "right"])
def test_outer_udp_checksum_is_not_needed(kind: Kind, checksum: int | None, backend: Backend) -> None:
    inner = kind.inside(TCP(dport=80) / DATA)
    udp = {} if checksum is None else {"chksum": checksum}
    stripped(kind, frame(kind.around(inner, **udp)), frame(inner), backend)


INNER = {
    "first fragment": IP(src=CLIENT, dst=VIP, flags="MF") / UDP(dport=53) / Raw(bytes(16)),
    "later fragment": IP(src=CLIENT, dst=VIP, frag=3, proto=17) / DATA,
    "options": IP(src=CLIENT, dst=VIP, options=[IPOption_NOP()] * 8) / TCP(dport=80),
    "header alone": IP(src=CLIENT, dst=VIP, proto=6),
    "another protocol": IP(src=CLIENT, dst=VIP, proto=99) / DATA,
    "extension headers": IPv6(src=CLIENT6, dst=VIP6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment() / UDP() / DATA,
    "IPv6 header alone": IPv6(src=CLIENT6, dst=VIP6, nh=59),
}


@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
@pytest.mark.parametrize("gue", [False, True])
@pytest.mark.parametrize("outer", [4, 6])
def test_whatever_is_inside(inner: Packet, outer: int, gue: bool, backend: Backend) -> None:
    kind = Kind(inner.version if isinstance(inner, IP) else 6, outer, gue)
    stripped(kind, frame(kind.around(inner)), frame(inner), backend)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_padding_stays_behind(kind: Kind, backend: Backend) -> None:
    """As Ethernet adds to short frames: the inner length says where the packet ends."""
    inner = kind.inside(UDP(dport=53))
    stripped(kind, bytes(frame(kind.around(inner))) + bytes(9), bytes(frame(inner)) + bytes(9), backend)


# RFC 6040, figure 4: by the inner packet's ECN field, what it becomes under each outer one; None is a drop.
ECN = {
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT0: NOT_ECT, ECT1: NOT_ECT, CE: None},
    ECT0: {NOT_ECT: ECT0, ECT0: ECT0, ECT1: ECT1, CE: CE},
    ECT1: {NOT_ECT: ECT1, ECT0: ECT1, ECT1: ECT1, CE: CE},
    CE: {NOT_ECT: CE, ECT0: CE, ECT1: CE, CE: CE},
}


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_ecn(kind: Kind, tags: Packet | None, backend: Backend) -> None:
    for inner, row in ECN.items():
        for outer, becomes in row.items():
            payload = TCP(sport=4000, dport=80, seq=outer) / DATA
            packet = frame(kind.around(kind.inside(payload, inner), outer), tags)
            if becomes is None:
                assert backend.run(packet) == Outcome(XDP_DROP, bytes(packet), {"drop_ecn": 1})
            else:
                stripped(kind, packet, frame(kind.inside(payload, becomes), tags), backend)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_ecn_and_every_checksum(kind: Kind, backend: Backend) -> None:
    """The header checksum is patched, and has carries of every kind."""
    for number in range(0, 65_536, 523):
        before, after = (kind.inside(UDP(dport=53), ecn) for ecn in (ECT0, CE))
        if kind.inner == 4:
            before.id = after.id = number
        stripped(kind, frame(kind.around(before, CE)), frame(after), backend)


TCP_DATA = TCP(sport=4000, dport=80) / DATA
INSIDE = PLAIN.inside(TCP_DATA)


def cut(packet: Packet, count: int) -> bytes:
    return bytes(frame(packet))[:-count]


def inside_of(kind: Kind, **fields: int) -> Packet:
    """A packet whose inner header has a wrong field."""
    inner = kind.inside(TCP_DATA)
    for name, value in fields.items():
        setattr(inner, name, value)
    return frame(kind.around(inner))


LEFT_ALONE: list[tuple[str, str, Packet | bytes]] = [
    ("pass_not_tunnel", "ARP", frame(ARP())),
    ("pass_not_tunnel", "plain packet to the VIP", frame(INSIDE)),
    ("pass_not_tunnel", "plain IPv6 packet to the VIP", frame(PLAIN6.inside(TCP_DATA))),
    ("pass_not_tunnel", "UDP to another port", frame(GUE.around(INSIDE, dport=USUAL_PORT))),
    ("pass_not_tunnel", "UDP over IPv6 to another port", frame(GUE_IN_IPV6.around(INSIDE, dport=USUAL_PORT))),
    ("pass_not_tunnel", "GUE variant 0", frame(IP(dst=HOST) / UDP(dport=PORT) / Raw(b"\x00\x04\x00\x00") / INSIDE)),
    ("pass_not_tunnel", "GUE variant 2", frame(IP(dst=HOST) / UDP(dport=PORT) / Raw(b"\x80") / INSIDE)),
    ("pass_not_tunnel", "GUE variant 1, no IP version", frame(IP(dst=HOST) / UDP(dport=PORT) / Raw(b"\x55") / INSIDE)),
    ("pass_not_tunnel", "three tags", frame(PLAIN.around(INSIDE), Dot1Q() / Dot1Q() / Dot1Q())),
    ("pass_not_tunnel", "half a tag", bytes(frame(PLAIN.around(INSIDE), Dot1Q()))[:16]),
    ("pass_not_tunnel", "no outer header", bytes(frame(PLAIN.around(INSIDE)))[:14]),
    ("pass_not_tunnel", "half an outer header", bytes(frame(PLAIN.around(INSIDE)))[:33]),
    ("pass_not_tunnel", "half an outer IPv6 header", bytes(frame(IN_IPV6.around(INSIDE)))[:53]),
    ("pass_not_tunnel", "IPv6 as IPv4", Ether(type=0x0800) / Raw(bytes(IN_IPV6.around(INSIDE)))),
    ("pass_not_tunnel", "IPv4 as IPv6", Ether(type=0x86DD) / Raw(bytes(PLAIN.around(INSIDE)))),
    ("pass_not_tunnel", "outer version", frame(IP(dst=HOST, version=5) / INSIDE)),
    ("pass_not_tunnel", "outer IPv6 version", frame(IPv6(dst=HOST6, version=7) / INSIDE)),
    ("pass_not_tunnel", "fragment of TCP", frame(IP(dst=HOST, flags="MF") / TCP_DATA)),
    ("pass_not_tunnel", "fragment of TCP, IPv6", frame(IPv6(dst=HOST6) / IPv6ExtHdrFragment(m=1) / TCP_DATA)),
    ("pass_not_tunnel", "options before TCP", frame(IP(dst=HOST, options=[IPOption_NOP()] * 4) / TCP_DATA)),
    ("pass_not_tunnel", "destination options before TCP", frame(IPv6(dst=HOST6) / IPv6ExtHdrDestOpt() / TCP_DATA)),
    ("pass_not_tunnel", "destination options cut off", frame(IPv6(dst=HOST6, nh=60))),
    ("pass_options", "outer options", frame(IP(dst=HOST, options=[IPOption_NOP()] * 4) / INSIDE)),
    ("pass_options", "outer destination options", frame(IPv6(dst=HOST6) / IPv6ExtHdrDestOpt() / INSIDE)),
    ("pass_fragment", "first fragment", frame(IP(dst=HOST, flags="MF") / INSIDE)),
    ("pass_fragment", "later fragment", frame(IP(dst=HOST, frag=5, proto=4) / DATA)),
    ("pass_fragment", "fragment of GUE", frame(IP(dst=HOST, flags="MF") / UDP(dport=PORT) / Raw(bytes(INSIDE)))),
    ("pass_fragment", "first fragment, IPv6", frame(IPv6(dst=HOST6) / IPv6ExtHdrFragment(m=1) / INSIDE)),
    ("pass_fragment", "later fragment, IPv6", frame(IPv6(dst=HOST6) / IPv6ExtHdrFragment(offset=9, nh=41) / DATA)),
    ("pass_not_vip", "IPv6 in disguise", frame(PLAIN6.around(PLAIN6.inside(TCP_DATA, 0, f"::ffff:{VIP}")))),
    ("pass_malformed", "outer checksum", frame(IP(dst=HOST, chksum=1) / INSIDE)),
    ("pass_malformed", "outer length below a header", frame(IP(dst=HOST, len=19) / INSIDE)),
    ("pass_malformed", "outer length beyond the frame", cut(PLAIN.around(INSIDE), 1)),
    ("pass_malformed", "outer IPv6 length beyond the frame", cut(IN_IPV6.around(INSIDE), 1)),
    ("pass_malformed", "outer length leaves out the end", frame(IP(dst=HOST, len=20 + len(INSIDE) - 1) / INSIDE)),
    ("pass_malformed", "outer IPv6 length 0", frame(IPv6(dst=HOST6, plen=0) / INSIDE)),
    ("pass_malformed", "UDP length of a header", frame(GUE.around(INSIDE, len=8))),
    ("pass_malformed", "UDP length 0", frame(GUE.around(INSIDE, len=0))),
    ("pass_malformed", "UDP length beyond IP's", bytes(frame(GUE.around(INSIDE, len=len(INSIDE) + 9))) + bytes(6)),
    ("pass_malformed", "UDP length leaves out the end", frame(GUE.around(INSIDE, len=len(INSIDE) + 7))),
    ("pass_malformed", "GUE without content", frame(IP(dst=HOST) / UDP(dport=PORT))),
    ("pass_malformed", "IPv6 where IPv4 is said to be", frame(IP(dst=HOST, proto=4) / PLAIN6.inside(TCP_DATA))),
    ("pass_malformed", "IPv4 where IPv6 is said to be", frame(IP(dst=HOST, proto=41) / INSIDE)),
    ("pass_malformed", "inner version", inside_of(PLAIN, version=5)),
    ("pass_malformed", "inner IPv6 version", inside_of(PLAIN6, version=7)),
    ("pass_malformed", "inner header length", inside_of(PLAIN, ihl=4)),
    ("pass_malformed", "inner length below its header", inside_of(PLAIN, len=19)),
    ("pass_malformed", "inner length below its options", inside_of(GUE, ihl=6, len=20)),
    ("pass_malformed", "inner length beyond the outer one", inside_of(PLAIN, len=len(INSIDE) + 1)),
    ("pass_malformed", "inner IPv6 length beyond the outer one", inside_of(PLAIN6, plen=len(TCP_DATA) + 1)),
    ("pass_malformed", "half an inner header", frame(IP(dst=HOST, proto=4) / Raw(bytes(INSIDE)[:19]))),
    ("pass_malformed", "half an inner IPv6 header", frame(IP(dst=HOST, proto=41) / Raw(b"\x60" + bytes(38)))),
    ("pass_malformed", "nothing inside", frame(IP(dst=HOST, proto=4))),
]
LEFT_ALONE += [
    (
        "pass_not_vip",
        f"not a VIP {kind}",
        frame(kind.around(kind.inside(TCP_DATA, CE, OTHER if kind.inner == 4 else OTHER6), CE)),
    )
    for kind in KINDS
]


@pytest.mark.parametrize(
    ("reason", "packet"), [(row[0], row[2]) for row in LEFT_ALONE], ids=[row[1] for row in LEFT_ALONE]
)
def test_left_alone(reason: str, packet: Packet | bytes, backend: Backend) -> None:
    """The kernel gets it as it came, and it is counted once."""
    left_alone(reason, packet, backend)


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_cut_off_anywhere(kind: Kind, tags: Packet | None, backend: Backend) -> None:
    whole = bytes(frame(kind.around(kind.inside(TCP_DATA)), tags))
    for length in range(14, len(whole)):
        outcome = backend.run(whole[:length])
        assert (outcome.verdict, outcome.packet) == (XDP_PASS, whole[:length])
        assert outcome.reasons in ({"pass_not_tunnel": 1}, {"pass_malformed": 1})


def test_damage(backend: Backend) -> None:
    """Whatever a packet says: it is counted once, and either left as it was or shorter by an outer header."""
    randomness = random.Random(6040)
    seen = set()
    for _ in range(5_000):
        kind = randomness.choice(KINDS)
        packet = bytearray(
            bytes(frame(kind.around(kind.inside(TCP_DATA, ECT0), CE), randomness.choice([*TAGS.values()])))
        )
        for _ in range(randomness.randint(1, 3)):
            packet[randomness.randrange(12, len(packet))] = randomness.randrange(256)
        outcome = backend.run(bytes(packet))
        ((reason, count),) = outcome.reasons.items()
        seen.add(reason)
        assert count == 1
        if reason.startswith("decap_"):
            taken = len(packet) - len(outcome.packet)
            assert taken == (20 if reason.endswith("v4") else 40) + (8 if "gue" in reason else 0)
            assert outcome.packet[:12] == packet[:12]
            assert outcome.packet[-len(TCP_DATA) :] == packet[-len(TCP_DATA) :]
        else:
            assert outcome.packet == packet
        assert outcome.verdict == (XDP_DROP if reason == "drop_ecn" else XDP_PASS)
    assert len(seen) > 10, seen
