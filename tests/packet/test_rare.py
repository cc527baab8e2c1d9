"""What takes the way of rare packets, in every mode and family: fragments, ICMP errors, pings, what is too long."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6ExtHdrFragment,
    fragment6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from l4lb.datapath import bpf
from l4lb.lab.testbed import CLIENT_MAC, GATEWAY_MAC, Testbed
from l4lb.model import Endpoint, IPAddress, Mode, Protocol
from l4lb.plan.operations import EmptyPool
from tests.packet.harness import LIMITS, XDP_DROP, XDP_REDIRECT, XDP_TX, run
from tests.packet.modes import (
    BACKEND_MAC,
    CASES,
    CLIENT_PORT,
    CLIENTS,
    VIP_PORT,
    Case,
    arriving,
    header,
    out,
    renewed,
)
from tests.packet.test_modes import configured, first_packet

__all__ = ["configured"]  # a fixture is used by its name

ROUTERS: dict[int, IPAddress] = {4: IPv4Address("198.51.100.1"), 6: IPv6Address("2001:db8:ffff::1")}


@pytest.fixture
def lb(configured: Testbed) -> Testbed:
    """No connection and no fragment is known."""
    with bpf.opened(configured.pins / "maps" / "fragments") as fd:
        for line in range(LIMITS.fragment_lines):
            bpf.map_update(fd, line, bytes(64))
    for pool in set(configured.image.pools.values()):
        configured.maps.apply(EmptyPool(pool))
    return configured


cases = pytest.mark.parametrize("case", CASES, ids=str)
translated = pytest.mark.parametrize("case", [case for case in CASES if case.mode.translates], ids=str)


def same(found: bytes, expected: Packet) -> None:
    assert Ether(found).show2(dump=True) == Ether(bytes(expected)).show2(dump=True)
    assert found == bytes(expected)


# Fragments


def datagram(case: Case) -> list[Packet]:
    """A long one in three fragments, from their IP headers on."""
    body = case.transport() / Raw(bytes(range(256)) * 5)
    if case.version == 4:
        return list(fragment(case.from_client(id=77) / body, 520))
    return list(fragment6(case.from_client() / IPv6ExtHdrFragment(id=0x12345678) / body, 600))


def first_sum(case: Case) -> int:
    """The transport checksum of the whole datagram, as the backend has to get it."""
    body = case.transport(CLIENT_PORT, case.backend.port) / Raw(bytes(range(256)) * 5)
    source: IPAddress | Endpoint = CLIENTS[case.version]
    if case.mode is Mode.FULLNAT:
        body[type(body)].sport = case.pool_source().port
        source = case.pool_source().address
    whole = header(source, case.backend.address) / body
    layer = type(whole)(bytes(whole)).getlayer(TCP) or type(whole)(bytes(whole)).getlayer(UDP)
    return int(layer.chksum)


def expected_fragment(case: Case, packet: Packet, first: bool) -> Packet:
    """The frame that has to leave for a fragment."""
    if not case.mode.translates:
        return case.forwarded(packet, CLIENT_PORT if first else 0, udp_checksum=False, renew=False)
    frame = out(type(packet)(bytes(packet)))
    ip = frame.payload
    ip.dst = str(case.backend.address)
    if case.mode is Mode.FULLNAT:
        ip.src = str(case.pool_source().address)
    if case.version == 4:
        ip.ttl -= 1
        del ip.chksum
    else:
        ip.hlim -= 1
    if first:
        raw = bytearray(bytes(frame))
        at = 34 if case.version == 4 else 62
        raw[at + 2 : at + 4] = case.backend.port.to_bytes(2, "big")
        if case.mode is Mode.FULLNAT:
            raw[at : at + 2] = case.pool_source().port.to_bytes(2, "big")
        offset = 16 if case.protocol is Protocol.TCP else 6
        raw[at + offset : at + offset + 2] = first_sum(case).to_bytes(2, "big")
        return Ether(bytes(raw))
    return frame


@cases
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)], ids=["in order", "later ones swapped"])
def test_fragments(lb: Testbed, case: Case, order: tuple[int, ...]) -> None:
    """The first one decides, the later ones follow it."""
    first_packet(lb, case)
    fragments = datagram(case)
    assert len(fragments) == 3
    for number in order:
        outcome = run(lb, bytes(arriving(fragments[number])))
        assert outcome.reasons == {}
        same(outcome.packet, expected_fragment(case, fragments[number], first=number == 0))
        assert outcome.verdict == XDP_TX
        assert list(outcome.traffic) == [case.account]


@cases
def test_a_fragment_that_overtakes_its_first(lb: Testbed, case: Case) -> None:
    """Of an unknown sender it is dropped and counted; after another datagram it goes where that went."""
    first_packet(lb, case)
    one, other = datagram(case), datagram(case)
    for packet in other:
        if case.version == 4:
            packet.id = 78
            del packet.chksum
        else:
            packet[IPv6ExtHdrFragment].id = 9
    outcome = run(lb, bytes(arriving(one[1])))
    assert (outcome.verdict, outcome.reasons, outcome.traffic) == (XDP_DROP, {"drop_fragment": 1}, {})
    assert run(lb, bytes(arriving(one[0]))).reasons == {}
    outcome = run(lb, bytes(arriving(other[1])))
    assert outcome.reasons == {}
    assert list(outcome.traffic) == [case.account]


@translated
def test_fragments_back(lb: Testbed, case: Case) -> None:
    """A backend's long answer."""
    first_packet(lb, case)
    if case.mode is Mode.FULLNAT:
        run(lb, bytes(arriving(case.from_client() / case.transport())))
    to = case.pool_source() if case.mode is Mode.FULLNAT else Endpoint(CLIENTS[case.version], CLIENT_PORT)
    body = case.transport(case.backend.port, to.port) / Raw(bytes(1200))
    whole = case.from_backend(to.address) / body
    pieces = (
        fragment(whole, 520)
        if case.version == 4
        else fragment6(case.from_backend(to.address) / IPv6ExtHdrFragment(id=5) / body, 600)
    )
    expected_whole = header(case.vip, CLIENTS[case.version]) / case.transport(VIP_PORT, CLIENT_PORT) / Raw(bytes(1200))
    expected_pieces = (
        fragment(expected_whole, 520)
        if case.version == 4
        else fragment6(
            header(case.vip, CLIENTS[case.version])
            / IPv6ExtHdrFragment(id=5)
            / case.transport(VIP_PORT, CLIENT_PORT)
            / Raw(bytes(1200)),
            600,
        )
    )
    for piece, expected in zip(pieces, expected_pieces, strict=True):
        outcome = run(lb, bytes(Ether(src=BACKEND_MAC, dst=GATEWAY_MAC) / piece))
        if case.version == 4:
            expected.ttl -= 1
            del expected.chksum
        else:
            expected.hlim -= 1
        assert outcome.reasons == {}
        same(outcome.packet, Ether(src=GATEWAY_MAC, dst=CLIENT_MAC) / expected)
        assert outcome.verdict == XDP_REDIRECT


# ICMP errors


def icmp_error(version: int, kind: str) -> Packet:
    """An ICMP header of an error."""
    if version == 4:
        return {
            "unreachable": ICMP(type=3, code=3),
            "too big": ICMP(type=3, code=4, nexthopmtu=1400),
            "expired": ICMP(type=11, code=0),
        }[kind]
    return {
        "unreachable": ICMPv6DestUnreach(code=4),
        "too big": ICMPv6PacketTooBig(mtu=1400),
        "expired": ICMPv6TimeExceeded(),
    }[kind]


def quoting(outer: Packet, error: Packet, inner: Packet, length: int = 0) -> Packet:
    """An error about a packet, of which so many bytes are quoted behind the IP header, or all."""
    quoted = bytes(inner)
    if length:
        quoted = quoted[: (20 if isinstance(inner, IP) else 40) + length]
    return outer / error / Raw(quoted)


@cases
@pytest.mark.parametrize("kind", ["unreachable", "too big", "expired"])
@pytest.mark.parametrize("quoted", [0, 8], ids=["all quoted", "8 bytes quoted"])
def test_an_error_about_an_answer(lb: Testbed, case: Case, kind: str, quoted: int) -> None:
    """From a router on the client's side, about a packet that the VIP sent: to the backend that it came from."""
    first_packet(lb, case)
    version, client = case.version, CLIENTS[case.version]
    data = Raw(b"0123456789abcdef")
    about = header(case.vip, client) / case.transport(VIP_PORT, CLIENT_PORT) / data
    error = icmp_error(version, kind)
    packet = quoting(header(ROUTERS[version], case.vip), error, about, quoted)
    if case.mode.translates:
        to = case.pool_source() if case.mode is Mode.FULLNAT else Endpoint(client, CLIENT_PORT)
        inner = header(case.backend.address, to.address) / case.transport(case.backend.port, to.port) / data
        source = to.address if case.mode is Mode.FULLNAT else ROUTERS[version]
        ttl = {"ttl" if version == 4 else "hlim": 63}
        expected = out(quoting(header(source, case.backend.address, **ttl), error, inner, quoted))
    else:
        expected = case.forwarded(packet, udp_checksum=False, renew=False)
    outcome = run(lb, bytes(arriving(packet)))
    assert outcome.reasons == {}
    same(outcome.packet, expected)
    assert outcome.verdict == XDP_TX
    assert list(outcome.traffic) == [case.account]


@translated
@pytest.mark.parametrize("kind", ["unreachable", "too big", "expired"])
@pytest.mark.parametrize("by", ["backend", "router"])
def test_an_error_about_a_request(lb: Testbed, case: Case, kind: str, by: str) -> None:
    """From the backend, or a router before it, about a packet of the client's: to the client, as from the VIP."""
    first_packet(lb, case)
    version, client = case.version, CLIENTS[case.version]
    data = Raw(b"0123456789abcdef")
    if case.mode is Mode.FULLNAT:
        run(lb, bytes(arriving(case.from_client() / case.transport())))
    seen = case.pool_source() if case.mode is Mode.FULLNAT else Endpoint(client, CLIENT_PORT)
    about = header(seen.address, case.backend.address) / case.transport(seen.port, case.backend.port) / data
    error = icmp_error(version, kind)
    sender = case.backend.address if by == "backend" else ROUTERS[version]
    packet = quoting(header(sender, seen.address), error, about)
    inner = header(client, case.vip) / case.transport(CLIENT_PORT, VIP_PORT) / data
    shown = case.vip if by == "backend" else ROUTERS[version]
    ttl = {"ttl" if version == 4 else "hlim": 63}
    expected = Ether(src=GATEWAY_MAC, dst=CLIENT_MAC) / quoting(header(shown, client, **ttl), error, inner)
    outcome = run(lb, bytes(Ether(src=BACKEND_MAC, dst=GATEWAY_MAC) / packet))
    assert outcome.reasons == {}
    same(outcome.packet, expected)
    assert outcome.verdict == XDP_REDIRECT
    assert list(outcome.traffic) == [case.account]


# Answers


@pytest.mark.parametrize("case", [case for case in CASES if case.mode is Mode.DSR], ids=str)
def test_a_ping_is_answered(lb: Testbed, case: Case) -> None:
    request = {4: ICMP(id=3, seq=9), 6: ICMPv6EchoRequest(id=3, seq=9)}[case.version]
    data = Raw(b"ping me!x")
    outcome = run(lb, bytes(arriving(case.from_client(**{"ttl" if case.version == 4 else "hlim": 5}) / request / data)))
    answer = header(case.vip, CLIENTS[case.version], id=1) if case.version == 4 else header(case.vip, CLIENTS[6])
    request = request.copy()
    request.type = 0 if case.version == 4 else 129
    same(outcome.packet, Ether(src=GATEWAY_MAC, dst=CLIENT_MAC) / answer / request / data)
    assert (outcome.verdict, outcome.reasons, outcome.traffic) == (XDP_TX, {"answer_echo": 1}, {})


def test_a_ping_is_left_to_the_kernel_where_that_is_wanted(lb: Testbed) -> None:
    request = bytes(arriving(header(CLIENTS[4], ip_address("192.0.2.1")) / ICMP()))
    lb.maps.set_echo(False)
    try:
        outcome = run(lb, request)
    finally:
        lb.maps.set_echo(True)
    assert (outcome.reasons, outcome.packet) == ({"pass_not_tcp_udp": 1}, request)


@cases
def test_what_is_too_long_is_answered(lb: Testbed, case: Case) -> None:
    """With the length that fits, quoting the beginning; the longest that fits goes on."""
    first_packet(lb, case)
    overhead = (20 if case.outer == 4 else 40) + (8 if case.mode is Mode.GUE else 0) if case.mode.tunnels else 0
    fits = 1500 - overhead
    headers = (20 if case.version == 4 else 40) + (20 if case.protocol is Protocol.TCP else 8)
    longest = case.from_client() / case.transport() / Raw(bytes(fits - headers))
    outcome = run(lb, bytes(arriving(longest)))
    assert outcome.reasons == {}
    assert len(outcome.packet) == 14 + 1500
    too_long = renewed(case.from_client() / case.transport() / Raw(bytes(fits - headers + 1)))
    outcome = run(lb, bytes(arriving(too_long)))
    assert (outcome.verdict, outcome.reasons) == (XDP_TX, {"answer_too_big": 1})
    quoted = Raw(bytes(too_long)[:128])
    if case.version == 4:
        answer = header(case.vip, CLIENTS[4], id=0) / ICMP(type=3, code=4, nexthopmtu=fits) / quoted
    else:
        answer = header(case.vip, CLIENTS[6]) / ICMPv6PacketTooBig(mtu=fits) / quoted
    same(outcome.packet, Ether(src=GATEWAY_MAC, dst=CLIENT_MAC) / answer)


@cases
def test_the_last_hop(lb: Testbed, case: Case) -> None:
    """TTL 1 is left to the kernel, which answers; dsr passes no router."""
    first_packet(lb, case)
    packet = case.from_client(**{"ttl" if case.version == 4 else "hlim": 1}) / case.transport()
    outcome = run(lb, bytes(arriving(packet)))
    if case.mode is Mode.DSR:
        same(outcome.packet, case.forwarded(packet))
    else:
        assert outcome.reasons == {"pass_ttl_expired": 1}
        same(outcome.packet, arriving(packet))


@translated
def test_an_answer_that_is_too_long(lb: Testbed, case: Case) -> None:
    """By nat the kernel tells the backend; by fullnat, where it would be for the gateway itself, the program does."""
    first_packet(lb, case)
    if case.mode is Mode.FULLNAT:
        run(lb, bytes(arriving(case.from_client() / case.transport())))
    to = case.pool_source() if case.mode is Mode.FULLNAT else Endpoint(CLIENTS[case.version], CLIENT_PORT)
    fields = {"flags": "DF"} if case.version == 4 else {}
    packet = renewed(
        case.from_backend(to.address, **fields) / case.transport(case.backend.port, to.port) / Raw(bytes(1500))
    )
    outcome = run(lb, bytes(Ether(src=BACKEND_MAC, dst=GATEWAY_MAC) / packet))
    if case.mode is Mode.NAT:
        assert outcome.reasons == {"pass_too_big": 1}
        return
    assert outcome.reasons == {"answer_too_big": 1}
    quoted = Raw(bytes(packet)[:128])
    if case.version == 4:
        answer = header(to.address, case.backend.address, id=0) / ICMP(type=3, code=4, nexthopmtu=1500) / quoted
    else:
        answer = header(to.address, case.backend.address) / ICMPv6PacketTooBig(mtu=1500) / quoted
    same(outcome.packet, Ether(src=GATEWAY_MAC, dst=BACKEND_MAC) / answer)


# What is not believed, and what is nobody's


@cases
def test_an_error_to_somebody_else(lb: Testbed, case: Case) -> None:
    """Who quotes a packet that its receiver did not send is not believed."""
    first_packet(lb, case)
    about = header(case.vip, CLIENTS[case.version]) / case.transport(VIP_PORT, CLIENT_PORT)
    stranger = {4: IPv4Address("203.0.113.77"), 6: IPv6Address("2001:db8:77::1")}[case.version]
    packet = arriving(quoting(header(ROUTERS[case.version], stranger), icmp_error(case.version, "unreachable"), about))
    outcome = run(lb, bytes(packet))
    assert outcome.reasons == {"pass_not_tcp_udp": 1}
    assert outcome.packet == bytes(packet)


@cases
def test_an_error_that_quotes_beyond_its_end(lb: Testbed, case: Case) -> None:
    first_packet(lb, case)
    about = header(case.vip, CLIENTS[case.version]) / case.transport(VIP_PORT, CLIENT_PORT)
    packet = quoting(header(ROUTERS[case.version], case.vip), icmp_error(case.version, "unreachable"), about, 8)
    whole = type(packet)(bytes(packet))
    if case.version == 4:
        whole.len -= 1
        del whole.chksum
    else:
        whole.plen -= 1
    outcome = run(lb, bytes(arriving(whole)))
    assert (outcome.verdict, outcome.reasons) == (XDP_DROP, {"drop_malformed": 1})


@pytest.mark.parametrize("version", [4, 6])
def test_a_long_ping_is_the_kernels(lb: Testbed, version: int) -> None:
    """In fragments, of which the program answers none."""
    case = next(case for case in CASES if case.version == version)
    request = {4: ICMP(id=3, seq=9), 6: ICMPv6EchoRequest(id=3, seq=9)}[version] / Raw(bytes(1200))
    pieces = (
        fragment(case.from_client(id=5) / request, 520)
        if version == 4
        else fragment6(case.from_client() / IPv6ExtHdrFragment(id=5) / request, 600)
    )
    found = [run(lb, bytes(arriving(piece))) for piece in pieces]
    assert [outcome.reasons for outcome in found] == [
        {"pass_not_tcp_udp": 1},
        {"pass_fragment": 1},
        {"pass_fragment": 1},
    ]


@pytest.mark.parametrize(
    "source", ["0.0.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"], ids=str
)
def test_nobody_is_answered_who_is_no_host(lb: Testbed, source: str) -> None:
    address = ip_address(source)
    case = next(case for case in CASES if case.version == address.version and case.mode is Mode.DSR)
    request = {4: ICMP(), 6: ICMPv6EchoRequest()}[address.version]
    assert run(lb, bytes(arriving(header(address, case.vip) / request))).reasons == {"pass_not_tcp_udp": 1}
    too_long = header(address, case.vip) / case.transport() / Raw(bytes(1500))
    assert run(lb, bytes(arriving(too_long))).reasons == {"drop_too_big": 1}
