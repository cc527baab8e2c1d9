"""Connections that are known by more than their source: fullnat's, and those to a server of several VIPs."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from l4lb.bench.frames import ACK, SYN, tcp_frame
from l4lb.datapath import bpf
from l4lb.lab.testbed import CLIENT_MAC, GATEWAY_MAC, LOOPBACK, SOURCES, Testbed, hop, testbed
from l4lb.model import Backend, Config, Endpoint, IPAddress, Mode, Protocol, Service, Vip
from tests.packet.harness import LIMITS, SEED, XDP_REDIRECT, run
from tests.packet.modes import BACKEND_MAC, CLIENTS

FIN, RST = 0x11, 0x04
VIPS: dict[int, list[IPAddress]] = {
    4: [IPv4Address("192.0.2.80") + number for number in range(3)],
    6: [IPv6Address("2001:db8:1::80") + number for number in range(3)],
}
SERVER: dict[int, Endpoint] = {
    4: Endpoint(IPv4Address("10.2.0.80"), 8080),
    6: Endpoint(IPv6Address("2001:db8:2::80"), 8080),
}
POOL = 1024
versions = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture
def lb(bed: Testbed) -> Iterator[Testbed]:
    bed.configure(Config((), SEED), {})
    yield bed
    bed.configure(Config((), SEED), {})


def configure(bed: Testbed, version: int, mode: Mode, vips: int, **settings: object) -> None:
    """So many VIPs with one and the same server."""
    bed.configure(
        Config(
            tuple(
                replace(
                    Vip(
                        f"v{n}",
                        Service(VIPS[version][n], 80, 80, Protocol.TCP),
                        mode,
                        backends=(Backend(SERVER[version]),),
                    ),
                    **{"pool": POOL, **settings},  # type: ignore[arg-type]
                )
                for n in range(vips)
            ),
            SEED,
        ),
        {SERVER[version].address: hop(LOOPBACK, BACKEND_MAC, version=version)},
    )


def client(version: int, port: int) -> Endpoint:
    return Endpoint(CLIENTS[version], port)


def send(bed: Testbed, who: Endpoint, vip: int = 0, flags: int = ACK) -> Endpoint | str:
    """Whom the server sees, or the reason why it sees nobody."""
    version = who.address.version
    outcome = run(bed, tcp_frame(who, Endpoint(VIPS[version][vip], 80), flags))
    if outcome.reasons:
        (reason,) = outcome.reasons
        return reason
    packet = Ether(outcome.packet)
    assert (packet.payload.dst, packet[TCP].dport) == (str(SERVER[version].address), SERVER[version].port)
    return Endpoint(type(who.address)(packet.payload.src), packet[TCP].sport)


def answer(bed: Testbed, seen: Endpoint, flags: int = ACK) -> tuple[Endpoint, Endpoint] | str:
    """Between whom the server's answer passes on, VIP first, or the reason why it does not."""
    version = seen.address.version
    frame = tcp_frame(SERVER[version], seen, flags)
    outcome = run(bed, frame)
    if outcome.verdict != XDP_REDIRECT:
        (reason,) = outcome.reasons
        return reason
    packet = Ether(outcome.packet)
    assert packet.dst == CLIENT_MAC
    kind = type(seen.address)
    return (
        Endpoint(kind(packet.payload.src), packet[TCP].sport),
        Endpoint(kind(packet.payload.dst), packet[TCP].dport),
    )


def age(bed: Testbed, ticks: int) -> None:
    """Makes all connections silent for so much longer."""
    with bpf.opened(bed.pins / "maps" / "connections") as fd:
        for number in range(bed.limits.max_connections):
            *rest, state = struct.unpack("<QQIIQ", bpf.map_lookup(fd, number, 32))
            if state:
                tick = (state >> 32) - ticks & 0xFFFFFF
                state = state & ~(0xFFFFFF << 32) | tick << 32
                bpf.map_update(fd, number, struct.pack("<QQIIQ", *rest, state))


@versions
def test_fullnat_gives_each_connection_a_port_of_its_own(lb: Testbed, version: int) -> None:
    """And leads each answer to the client that it is for."""
    configure(lb, version, Mode.FULLNAT, 1)
    clients = [client(version, port) for port in range(2000, 2600)]
    seen = {who: send(lb, who, flags=SYN) for who in clients}
    refused = [who for who, source in seen.items() if isinstance(source, str)]
    assert len(refused) < 30, "eight places are looked at for each"
    assert {seen[who] for who in refused} <= {"drop_no_port"}
    known = {who: source for who, source in seen.items() if isinstance(source, Endpoint)}
    # One that is no more than a SYN gives way to another when there is no room: whose port is a later one's is lost.
    owners = {source: who for who, source in known.items()}
    assert len(owners) > 550
    for source, who in owners.items():
        assert source.address == SOURCES[version]
        assert 16_384 <= source.port < 16_384 + POOL
        assert answer(lb, source) == (Endpoint(VIPS[version][0], 80), who)
        assert send(lb, who) == source


@versions
def test_fullnat_knows_no_connection_without_its_beginning(lb: Testbed, version: int) -> None:
    configure(lb, version, Mode.FULLNAT, 1)
    assert send(lb, client(version, 3000)) == "answer_reset"
    assert answer(lb, Endpoint(SOURCES[version], 17_000)) == "pass_not_vip"
    for port in (80, 16_383, 16_384 + POOL, 40_000):
        assert answer(lb, Endpoint(SOURCES[version], port)) == "pass_not_vip", "a port of the gateway itself"


@versions
def test_a_connection_in_use_is_never_given_away(lb: Testbed, version: int) -> None:
    """When every place that a client could have is taken by one that lives, it is refused."""
    configure(lb, version, Mode.FULLNAT, 1, pool=256)
    established = {}
    for port in range(2000, 3500):
        who = client(version, port)
        source = send(lb, who, flags=SYN)
        if isinstance(source, Endpoint):
            answer(lb, source, 0x12)
            send(lb, who)
            established[who] = source
    assert len(set(established.values())) == len(established) > 240
    assert {who: send(lb, who) for who in established} == established
    assert {answer(lb, source) for source in established.values()} == {
        (Endpoint(VIPS[version][0], 80), who) for who in established
    }


@versions
@pytest.mark.parametrize("how", ["idle", "RST", "FIN"])
def test_a_port_is_free_again(lb: Testbed, version: int, how: str) -> None:
    configure(lb, version, Mode.FULLNAT, 1, pool=256, idle_timeout=300)
    source = send(lb, client(version, 4000), flags=SYN)
    assert isinstance(source, Endpoint)
    answer(lb, source, 0x12)
    send(lb, client(version, 4000))
    age(lb, 200)
    assert answer(lb, source) != "pass_not_vip", "it may be silent as long as the idle timeout is"
    if how == "RST":
        answer(lb, source, RST)
        age(lb, 11)
    elif how == "FIN":
        send(lb, client(version, 4000), flags=FIN)
        answer(lb, source, FIN)
        age(lb, 61)
    else:
        age(lb, 300)
    assert send(lb, client(version, 4000)) == "answer_reset"
    assert answer(lb, source) == "pass_not_vip"


@versions
@pytest.mark.parametrize("how", [RST, FIN], ids=["RST", "FIN"])
def test_a_port_that_is_used_again_lives_as_long_as_any(lb: Testbed, version: int, how: int) -> None:
    """Its client connects again before what was there before is forgotten."""
    configure(lb, version, Mode.FULLNAT, 1, idle_timeout=300)
    source = send(lb, client(version, 4000), flags=SYN)
    assert isinstance(source, Endpoint)
    for flags in (ACK, how):
        send(lb, client(version, 4000), flags=flags)
    assert send(lb, client(version, 4000), flags=SYN) == source
    answer(lb, source, 0x12)
    send(lb, client(version, 4000))
    age(lb, 250)
    assert answer(lb, source) == (Endpoint(VIPS[version][0], 80), client(version, 4000))


@versions
def test_an_icmp_error_opens_no_connection(lb: Testbed, version: int) -> None:
    """One that nobody answered but a router is forgotten as soon as one that nobody answered at all."""
    configure(lb, version, Mode.FULLNAT, 1)
    source = send(lb, client(version, 4000), flags=SYN)
    assert isinstance(source, Endpoint)
    quoted = bytes(tcp_frame(source, SERVER[version]))[14:]
    error = (ICMP(type=3, code=1) if version == 4 else ICMPv6DestUnreach(code=3)) / Raw(quoted)
    header = IP if version == 4 else IPv6
    router = Ether(src=BACKEND_MAC, dst=GATEWAY_MAC) / header(src=str(SERVER[version].address), dst=str(source.address))
    assert run(lb, bytes(router / error)).reasons == {}
    age(lb, 61)
    assert answer(lb, source) == "pass_not_vip"


def test_an_address_far_from_the_pool_is_not_of_it(lb: Testbed) -> None:
    """Addresses a multiple of 2^18 apart would meet in 32 bits of places."""
    configure(lb, 4, Mode.FULLNAT, 1)
    source = send(lb, client(4, 4000), flags=SYN)
    assert isinstance(source, Endpoint)
    assert answer(lb, Endpoint(source.address + (1 << 18), source.port)) == "pass_not_vip"


@versions
def test_vips_of_one_fullnat_server_share_its_ports(lb: Testbed, version: int) -> None:
    """No two connections to it may look the same, whatever VIP they are for."""
    configure(lb, version, Mode.FULLNAT, 3)
    seen = {}
    for number in range(3):
        for port in range(2000, 2060):
            seen[number, port] = send(lb, client(version, port), number, SYN)
            assert send(lb, client(version, port), number) == seen[number, port]
    assert len(set(seen.values())) == len(seen)
    for (number, port), source in seen.items():
        assert isinstance(source, Endpoint)
        assert answer(lb, source) == (Endpoint(VIPS[version][number], 80), client(version, port))


@versions
def test_fullnat_sends_from_several_addresses(version: int) -> None:
    """16,384 ports each."""
    network = ip_network("10.99.0.0/30" if version == 4 else "fd99::/126")
    features = frozenset({"FULLNAT", "IPV6"})
    with testbed(features, SEED, replace(LIMITS, max_connections=65_536)) as bed:
        configure(bed, version, Mode.FULLNAT, 1, pool=65_536, sources=(network,))
        sources = set()
        for port in range(2000, 2200):
            source = send(bed, client(version, port), flags=SYN)
            assert isinstance(source, Endpoint)
            assert answer(bed, source) == (Endpoint(VIPS[version][0], 80), client(version, port))
            sources.add(source.address)
        assert sources == set(network)


@versions
def test_a_server_of_several_vips_by_nat(lb: Testbed, version: int) -> None:
    configure(lb, version, Mode.NAT, 3)
    flows = {port: port % 3 for port in range(2000, 2100)}
    for port, number in flows.items():
        assert send(lb, client(version, port), number, SYN) == client(version, port)
    for port, number in flows.items():
        assert answer(lb, client(version, port)) == (Endpoint(VIPS[version][number], 80), client(version, port))
    assert send(lb, client(version, 2000), (flows[2000] + 1) % 3, SYN) == "drop_no_port", (
        "the server cannot tell them apart"
    )


@versions
def test_connections_outlive_the_coming_of_a_second_vip(lb: Testbed, version: int) -> None:
    """They were not recorded, as they did not have to be."""
    configure(lb, version, Mode.NAT, 1)
    old = [client(version, port) for port in range(2000, 2050)]
    for who in old:
        send(lb, who, flags=SYN)
    configure(lb, version, Mode.NAT, 2)
    for who in old[:25]:
        assert answer(lb, who) == (Endpoint(VIPS[version][0], 80), who), "the server goes on first"
    for who in old:
        assert send(lb, who) == who
        assert answer(lb, who) == (Endpoint(VIPS[version][0], 80), who)
    new = client(version, 3000)
    send(lb, new, 1, SYN)
    assert answer(lb, new) == (Endpoint(VIPS[version][1], 80), new)
    configure(lb, version, Mode.NAT, 1)
    assert all(answer(lb, who) == (Endpoint(VIPS[version][0], 80), who) for who in old)


@pytest.mark.parametrize("version", [4, 6])
def test_fullnat_resets_what_it_does_not_know(lb: Testbed, version: int) -> None:
    """As the server would, so that a client whose backend went connects again at once; a reset is not answered."""
    configure(lb, version, Mode.FULLNAT, 1)
    who, vip = client(version, 3100), Endpoint(VIPS[version][0], 80)
    answer = Ether(run(lb, tcp_frame(who, vip, ACK)).packet)
    assert (answer.payload.src, answer.payload.dst) == (str(vip.address), str(who.address))
    assert (answer[TCP].sport, answer[TCP].dport, answer[TCP].flags) == (80, 3100, "R")
    whole = bytes(answer)
    del answer[TCP].chksum
    assert bytes(answer) == whole, "the checksum is right"
    assert run(lb, tcp_frame(who, vip, RST)).reasons == {"drop_no_connection": 1}
