"""Every mode, family and protocol with every header that matters: the whole packet that leaves, by Scapy."""

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IPOption_NOP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from l4lb.lab.testbed import Testbed
from l4lb.model import Config, Mode, Protocol
from l4lb.plan.operations import EmptyPool
from l4lb.view import Traffic
from tests.packet.harness import SEED, XDP_REDIRECT, XDP_TX, run
from tests.packet.modes import CASES, CLIENT_PORT, CLIENTS, CONFIG, NEXT_HOPS, VIP_PORT, Case, arriving, header

DATA = Raw(b"an odd number of bytes.")


@pytest.fixture(scope="module")
def configured(bed: Testbed) -> Iterator[Testbed]:
    """All VIPs of :mod:`tests.packet.modes`."""
    bed.configure(Config((), SEED), {})
    bed.configure(CONFIG, NEXT_HOPS)
    yield bed
    bed.configure(Config((), SEED), {})


@pytest.fixture
def lb(configured: Testbed) -> Testbed:
    """No connection is known."""
    for pool in set(configured.image.pools.values()):
        configured.maps.apply(EmptyPool(pool))
    return configured


def check(lb: Testbed, case: Case, sent: Packet, expected: Packet) -> None:
    outcome = run(lb, bytes(sent))
    assert outcome.reasons == {}
    assert Ether(outcome.packet).show2(dump=True) == Ether(bytes(expected)).show2(dump=True)
    assert outcome.packet == bytes(expected)
    assert outcome.verdict == XDP_TX
    assert outcome.traffic == {case.account: Traffic(1, len(sent), 0, 0)}


cases = pytest.mark.parametrize("case", CASES, ids=str)


def first_packet(lb: Testbed, case: Case) -> None:
    """Makes the connection known where that matters."""
    if case.mode is Mode.FULLNAT:
        run(lb, bytes(arriving(case.from_client() / case.transport(flags="S"))))


FLAGS = {Protocol.TCP: ["S", "A", "FA", "R", "PA"], Protocol.UDP: ["none"]}


@pytest.mark.parametrize(
    ("case", "flags"), [(case, flags) for case in CASES for flags in FLAGS[case.protocol]], ids=str
)
def test_plain(lb: Testbed, case: Case, flags: str) -> None:
    first_packet(lb, case)
    packet = case.from_client() / case.transport(flags=flags) / DATA
    check(lb, case, arriving(packet), case.forwarded(packet))


@cases
def test_traffic_class(lb: Testbed, case: Case) -> None:
    """DSCP and ECN are the inner header's (RFC 6040)."""
    first_packet(lb, case)
    packet = case.from_client(**{"tos" if case.version == 4 else "tc": 0xB9}) / case.transport() / DATA
    check(lb, case, arriving(packet), case.forwarded(packet))


@cases
def test_extra_headers(lb: Testbed, case: Case) -> None:
    """IPv4 options; IPv6 extension headers."""
    first_packet(lb, case)
    if case.version == 4:
        packet = case.from_client(options=[IPOption_NOP()] * 8) / case.transport() / DATA
    else:
        packet = case.from_client() / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / case.transport() / DATA
    check(lb, case, arriving(packet), case.forwarded(packet, udp_checksum=case.version == 4))


@cases
@pytest.mark.parametrize("tags", [Dot1Q(vlan=5), Dot1AD(vlan=7) / Dot1Q(vlan=5)], ids=["802.1Q", "802.1ad"])
def test_vlan_tags(lb: Testbed, case: Case, tags: Packet) -> None:
    """The way out is untagged."""
    first_packet(lb, case)
    packet = case.from_client() / case.transport() / DATA
    check(lb, case, arriving(packet, tags.copy()), case.forwarded(packet))


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.protocol is Protocol.UDP and case.version == 4], ids=str
)
def test_udp_without_a_checksum(lb: Testbed, case: Case) -> None:
    packet = case.from_client() / case.transport(chksum=0) / DATA
    check(lb, case, arriving(packet), case.forwarded(packet, udp_checksum=False))


@pytest.mark.parametrize("case", [case for case in CASES if case.mode.translates], ids=str)
def test_back(lb: Testbed, case: Case) -> None:
    """An answer leaves as the VIP's."""
    first_packet(lb, case)
    client = CLIENTS[case.version]
    to, port = (client, CLIENT_PORT)
    if case.mode is Mode.FULLNAT:
        to, port = case.pool_source().address, case.pool_source().port
        if case.protocol is Protocol.UDP:
            run(lb, bytes(arriving(case.from_client() / case.transport())))
    sent = Ether(src="02:00:00:00:00:04", dst="02:00:00:00:00:01") / (
        case.from_backend(to) / case.transport(case.backend.port, port, flags="SA") / DATA
    )
    ttl = {"ttl" if case.version == 4 else "hlim": 63}
    expected = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / (
        header(case.vip, client, **ttl) / case.transport(VIP_PORT, CLIENT_PORT, flags="SA") / DATA
    )
    lb.maps.forget_routes()
    outcome = run(lb, bytes(sent))
    assert outcome.reasons == {}
    assert Ether(outcome.packet).show2(dump=True) == Ether(bytes(expected)).show2(dump=True)
    assert outcome.packet == bytes(expected)
    assert outcome.verdict == XDP_REDIRECT
    assert outcome.traffic == {case.account: Traffic(0, 0, 1, len(sent))}
