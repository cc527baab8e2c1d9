"""Schedulers: who gets a new flow, that its packets follow, and how many connections are open."""

import random
import struct
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from l4lb.bench.frames import ACK, SYN, tcp_frame
from l4lb.datapath import bpf
from l4lb.datapath.layout import SWEEP
from l4lb.datapath.links import mac_bytes
from l4lb.datapath.loader import errand_of
from l4lb.lab.testbed import GATEWAY_MAC, LOOPBACK, Testbed, hop, testbed
from l4lb.model import Backend, Config, Endpoint, IPAddress, Mode, Protocol, Scheduler, Service, Vip
from tests.packet.harness import LIMITS, SEED, XDP_DROP, XDP_TX

FIN, RST = 0x11, 0x04
VIP: dict[int, IPAddress] = {4: IPv4Address("192.0.2.70"), 6: IPv6Address("2001:db8:1::70")}
SERVERS: dict[int, list[IPAddress]] = {
    4: [IPv4Address("10.2.0.70") + number for number in range(5)],
    6: [IPv6Address("2001:db8:2::70") + number for number in range(5)],
}
MACS = [f"02:00:00:00:07:{number:02x}" for number in range(5)]
BY_MAC = {mac_bytes(mac): number for number, mac in enumerate(MACS)}
CLIENT: dict[int, IPAddress] = {4: IPv4Address("10.1.0.0"), 6: IPv6Address("fd01::")}


@pytest.fixture(scope="module")
def roomy() -> Iterator[Testbed]:
    """With room for 262,144 flows."""
    features = frozenset({"DSR", "NAT", "IPV6", "SOURCE_HASH", "TRACKING"})
    with testbed(features, SEED, replace(LIMITS, flow_lines=65_536)) as made:
        yield made


@pytest.fixture
def lb(roomy: Testbed) -> Iterator[Testbed]:
    yield roomy
    roomy.configure(Config((), SEED), {})


def configure(
    bed: Testbed, scheduler: Scheduler, weights: list[int], version: int = 4, idle: int = 300, prefix: int = 0
) -> None:
    """One VIP whose backends are told apart by their MAC addresses."""
    backends = tuple(Backend(Endpoint(SERVERS[version][n], 80), weight) for n, weight in enumerate(weights))
    service = Service(VIP[version], 80, 80, Protocol.TCP)
    vip = Vip("web", service, Mode.DSR, scheduler, backends, idle_timeout=idle, client_prefix=prefix)
    bed.configure(Config((vip,), SEED), {SERVERS[version][n]: hop(LOOPBACK, MACS[n]) for n in range(len(weights))})


def send(bed: Testbed, client: Endpoint, flags: int = ACK) -> int | None:
    """The number of the backend that gets the packet."""
    answer = bed.send(tcp_frame(client, Endpoint(VIP[client.address.version], 80), flags))
    assert answer.verdict in (XDP_TX, XDP_DROP)
    return BY_MAC[answer.packet[:6]] if answer.verdict == XDP_TX else None


def clients(count: int, version: int = 4, first: int = 0) -> list[Endpoint]:
    return [
        Endpoint(CLIENT[version] + number // 1000, 10_000 + number % 1000) for number in range(first, first + count)
    ]


def connections(bed: Testbed) -> dict[int, int]:
    """Open ones, by the number of the backend, as the program counts them."""
    numbers = {address: number for addresses in SERVERS.values() for number, address in enumerate(addresses)}
    return {
        numbers[record.endpoint.address]: bed.maps.open_connections(number)
        for number, record in bed.image.backends.items()
    }


@pytest.mark.parametrize(("version", "prefix"), [(4, 0), (4, 24), (4, 16), (6, 0), (6, 64), (6, 56)])
def test_a_client_or_network_sticks(lb: Testbed, version: int, prefix: int) -> None:
    """Whatever port it comes from; clients of other networks are spread."""
    configure(lb, Scheduler.SOURCE_HASH, [1, 1, 1, 1], version, prefix=prefix)
    width = 32 if version == 4 else 128
    size = 1 << (width - (prefix or width))
    numbers = random.Random(3)
    base = IPv4Address("10.64.0.0") if version == 4 else IPv6Address("fd64::")
    seen: Counter[int | None] = Counter()
    for network in range(60):
        found = {
            send(lb, Endpoint(base + network * size + numbers.randrange(size), numbers.randrange(1024, 65_536)), flags)
            for flags in (SYN, ACK, SYN, ACK, ACK)
        }
        assert len(found) == 1
        seen.update(found)
    assert set(seen) == {0, 1, 2, 3}


def test_a_client_stays_when_backends_come(lb: Testbed) -> None:
    """Source-hash keeps connections as maglev does."""
    configure(lb, Scheduler.SOURCE_HASH, [1, 1, 1])
    flows = {client: send(lb, client, SYN) for client in clients(20_000)[::37]}
    configure(lb, Scheduler.SOURCE_HASH, [1, 1, 1, 1, 1])
    assert {client: send(lb, client) for client in flows} == flows
    assert {send(lb, client, SYN) for client in clients(20_000, first=100_000)[::37]} == {0, 1, 2, 3, 4}


def test_nobody_has_a_turn_where_no_weight_is_left(lb: Testbed) -> None:
    """Though others' numbers lie behind where the turns would be, and the CPUs' turns point at them."""
    configure(lb, Scheduler.ROUND_ROBIN, [1, 1, 1])
    send(lb, *clients(1), SYN)
    configure(lb, Scheduler.ROUND_ROBIN, [0, 0, 0])
    with bpf.opened(lb.pins / "maps" / "turns") as turns:
        bpf.map_update(turns, next(iter(lb.image.vips)), struct.pack("=II", 1, 0) * bpf.possible_cpus())
    assert send(lb, clients(2)[1], SYN) is None


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("weights", [[1, 1, 1], [3, 1, 2], [1, 0, 1]])
def test_round_robin(lb: Testbed, version: int, weights: list[int]) -> None:
    """Each whole round has every backend as often as its weight says; a flow's packets follow its first."""
    configure(lb, Scheduler.ROUND_ROBIN, weights, version)
    flows = {client: send(lb, client, SYN) for client in clients(100 * sum(weights), version)}
    assert Counter(flows.values()) == {number: 100 * weight for number, weight in enumerate(weights) if weight}
    assert {client: send(lb, client) for client in flows} == flows
    assert {client: send(lb, client, SYN) for client in flows} == flows, "a SYN that is sent again"


def test_random(lb: Testbed) -> None:
    configure(lb, Scheduler.RANDOM, [1, 3])
    flows = {client: send(lb, client, SYN) for client in clients(4000)}
    assert 0.71 < sum(flows.values()) / 4000 < 0.79  # type: ignore[arg-type]
    assert {client: send(lb, client) for client in flows} == flows


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 2, 3], [1, 0, 1]])
def test_least_connections(lb: Testbed, weights: list[int]) -> None:
    """Open connections in proportion to the weights, also when those of one backend end."""
    configure(lb, Scheduler.LEAST_CONNECTIONS, weights)
    flows = {client: send(lb, client, SYN) for client in clients(60 * sum(weights))}
    for client in flows:
        send(lb, client)
    wanted = {number: 60 * weight for number, weight in enumerate(weights)}
    assert connections(lb) == wanted
    assert Counter(flows.values()) == {number: count for number, count in wanted.items() if count}
    ended = [client for client, number in flows.items() if number == 0]
    for place, client in enumerate(ended):
        send(lb, client, FIN if place % 2 else RST)
        send(lb, client, FIN if place % 2 else RST)
    assert connections(lb)[0] == 0
    again = {client: send(lb, client, SYN) for client in clients(len(ended), first=50_000)}
    assert set(again.values()) == {0}


@pytest.mark.parametrize("scheduler", [Scheduler.ROUND_ROBIN, Scheduler.LEAST_CONNECTIONS, Scheduler.RANDOM])
def test_flows_stay_through_changes(lb: Testbed, scheduler: Scheduler) -> None:
    """Backends come, lose their weight, go; and the scheduler is another."""
    configure(lb, scheduler, [1, 1, 1])
    flows = {client: send(lb, client, SYN) for client in clients(300)}
    for weights in ([1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 5], [2, 1, 1, 1, 1]):
        configure(lb, scheduler, weights)
        assert {client: send(lb, client) for client in flows} == flows
    for other in Scheduler:
        configure(lb, other, [1, 1, 1])
        # A scheduler that hashes does not read the records of settled slots.
        if not other.hashes:
            assert {client: send(lb, client) for client in flows} == flows


def test_the_count_is_right_under_churn(lb: Testbed) -> None:
    """20,000 connections that begin, end by FIN of either side or RST, or are used again at once."""
    configure(lb, Scheduler.LEAST_CONNECTIONS, [1, 1, 1, 1])
    numbers = random.Random(11)
    places = clients(4000)
    live: dict[Endpoint, int | None] = {}
    for _ in range(20_000):
        client = numbers.choice(places)
        if client not in live:
            live[client] = send(lb, client, SYN)
            if numbers.random() < 0.9:
                send(lb, client)
        elif numbers.random() < 0.5:
            flags = numbers.choice([FIN, RST])
            for _ in range(numbers.randrange(1, 3)):
                assert send(lb, client, flags) == live[client]
            del live[client]
        else:
            assert send(lb, client) == live[client]
    found, wanted = connections(lb), Counter(live.values())
    for number in range(4):
        assert abs(found[number] - wanted[number]) <= 0.05 * wanted[number]


def test_silent_connections_are_no_load_any_more(lb: Testbed) -> None:
    """The control plane sweeps the table."""
    configure(lb, Scheduler.LEAST_CONNECTIONS, [1, 1], idle=1)
    for client in clients(100):
        send(lb, client, SYN)
        send(lb, client)
    assert connections(lb) == {0: 50, 1: 50}
    time.sleep(4)
    with bpf.opened(errand_of(lb.pins / "program", SWEEP)) as program:
        frame = bytes(14)
        for _ in range(4):
            frame = bpf.run_on_packet(program, frame, 16_384).packet
    assert int.from_bytes(frame[:4], "little") == 65_536
    assert connections(lb) == {0: 0, 1: 0}


def test_a_backend_that_is_gone_and_back_has_no_load(lb: Testbed) -> None:
    configure(lb, Scheduler.LEAST_CONNECTIONS, [1, 1])
    for client in clients(100):
        send(lb, client, SYN)
    configure(lb, Scheduler.LEAST_CONNECTIONS, [1])
    configure(lb, Scheduler.LEAST_CONNECTIONS, [1, 1])
    assert connections(lb) == {0: 50, 1: 0}
    for client in clients(100):
        send(lb, client, RST)
    assert connections(lb)[1] == 0, "records of its first life take nothing off its second"


@pytest.mark.parametrize("scheduler", [Scheduler.ROUND_ROBIN, Scheduler.LEAST_CONNECTIONS, Scheduler.RANDOM])
def test_without_weights_no_datagram_begins_a_flow(lb: Testbed, scheduler: Scheduler) -> None:
    """Also while older flows by hash might still be unknown: those of such a scheduler are all recorded."""

    def configure_udp(weights: list[int]) -> None:
        backends = tuple(Backend(Endpoint(SERVERS[4][n], 80), weight) for n, weight in enumerate(weights))
        vip = Vip("dns", Service(VIP[4], 80, 80, Protocol.UDP), Mode.DSR, scheduler, backends)
        lb.configure(Config((vip,), SEED), {SERVERS[4][n]: hop(LOOPBACK, MACS[n]) for n in range(len(weights))})

    def datagram(port: int) -> int:
        packet = Ether(dst=GATEWAY_MAC) / IP(src="10.1.0.2", dst=str(VIP[4])) / UDP(sport=port, dport=80)
        return lb.send(bytes(packet)).verdict

    configure_udp([1, 1])
    assert [datagram(port) for port in range(2000, 2010)] == [XDP_TX] * 10
    configure_udp([0, 0])
    assert [datagram(port) for port in range(2000, 2010)] == [XDP_TX] * 10
    assert [datagram(port) for port in range(3000, 3010)] == [XDP_DROP] * 10
