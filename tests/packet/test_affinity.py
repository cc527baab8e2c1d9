"""Flows keep their backends when the backends change, in the real program."""

import random
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from l4lb.balance.slots import settle
from l4lb.datapath import bpf
from l4lb.datapath.links import mac_bytes
from l4lb.lab.testbed import GATEWAY_MAC, LOOPBACK, Testbed, hop
from l4lb.model import Backend, Config, Endpoint, Mode, Protocol, Service, Vip
from tests.packet.harness import LIMITS, SEED, XDP_DROP, XDP_TX

SYN, ACK = 0x02, 0x10
TCP_VIP, UDP_VIP = IPv4Address("192.0.2.10"), IPv4Address("192.0.2.11")
ADDRESSES = [IPv4Address("10.2.0.1") + number for number in range(30)]
MACS = {address: f"02:00:00:00:02:{number:02x}" for number, address in enumerate(ADDRESSES)}
BY_MAC = {mac_bytes(text): address for address, text in MACS.items()}


class Flow:
    """A flow that remembers where it went."""

    def __init__(self, bed: Testbed, number: int, protocol: Protocol = Protocol.TCP) -> None:
        self.bed = bed
        self.protocol = protocol
        self.client = Endpoint(IPv4Address("10.1.0.0") + number // 50_000, 10_000 + number % 50_000)
        self.backend: IPv4Address | None = None

    def send(self, flags: int = ACK) -> IPv4Address | None:
        """The backend that gets the packet."""
        vip = TCP_VIP if self.protocol is Protocol.TCP else UDP_VIP
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, self.protocol, 0) + self.client.address.packed + vip.packed
        ports = struct.pack("!HH", self.client.port, 80)
        rest = struct.pack("!IIBBHHH", 0, 0, 0x50, flags, 0, 0, 0) if self.protocol is Protocol.TCP else bytes(16)
        answer = self.bed.send(mac_bytes(GATEWAY_MAC) + bytes(6) + b"\x08\x00" + ip + ports + rest)
        assert answer.verdict in (XDP_TX, XDP_DROP)
        return BY_MAC[answer.packet[:6]] if answer.verdict == XDP_TX else None

    def begin(self) -> "Flow":
        """Its first packet."""
        self.backend = self.send(SYN)
        return self

    @property
    def stays(self) -> bool:
        """Whether its next packet goes where its first went."""
        return self.send() == self.backend


def configure(bed: Testbed, weights: dict[IPv4Address, int], idle: int = 300) -> None:
    backends = tuple(Backend(Endpoint(address, 80), weight) for address, weight in sorted(weights.items()))
    vips = (
        Vip("tcp", Service(TCP_VIP, 80, 80, Protocol.TCP), Mode.DSR, backends=backends, idle_timeout=idle),
        Vip("udp", Service(UDP_VIP, 80, 80, Protocol.UDP), Mode.DSR, backends=backends, idle_timeout=idle),
    )
    bed.configure(Config(vips, SEED), {address: hop(LOOPBACK, MACS[address]) for address in weights})


@pytest.fixture
def lb(bed: Testbed) -> Iterator[Testbed]:
    """Three equal backends, no flow remembered."""
    bed.configure(Config((), SEED), {})
    with bpf.opened(bed.pins / "maps" / "flows") as fd:
        for line in range(LIMITS.flow_lines):
            bpf.map_update(fd, line, bytes(64))
    configure(bed, dict.fromkeys(ADDRESSES[:3], 1))
    yield bed
    bed.configure(Config((), SEED), {})


def recorded(bed: Testbed) -> int:
    return bed.maps.events()["flow_recorded"]


def test_settled_slots_remember_nothing(lb: Testbed) -> None:
    """A flood of SYNs fills no table."""
    before = recorded(lb)
    assert {Flow(lb, number).begin().backend for number in range(20_000)} == set(ADDRESSES[:3])
    assert recorded(lb) == before


def test_older_flows_stay_and_new_ones_are_recorded(lb: Testbed) -> None:
    old = [Flow(lb, number).begin() for number in range(300)]
    configure(lb, dict.fromkeys(ADDRESSES[:4], 1))
    assert all(flow.stays for flow in old)
    before = recorded(lb)
    new = [Flow(lb, number).begin() for number in range(1000, 1100)]
    assert any(flow.backend == ADDRESSES[3] for flow in new)
    assert 0 < recorded(lb) - before < 100, "only what is in slots that moved"
    configure(lb, dict.fromkeys(ADDRESSES[:3], 1))
    lost = [flow for flow in new if flow.backend == ADDRESSES[3]]
    assert all(flow.stays for flow in [*old, *new] if flow not in lost)
    assert not any(flow.stays for flow in lost), "its backend is gone"


def test_a_backend_without_weight_keeps_its_flows(lb: Testbed) -> None:
    """That is how a server is emptied."""
    flows = [Flow(lb, number).begin() for number in range(200)]
    configure(lb, {ADDRESSES[0]: 0, ADDRESSES[1]: 1, ADDRESSES[2]: 1})
    assert all(flow.stays for flow in flows)
    assert {Flow(lb, number).begin().backend for number in range(500, 700)} == set(ADDRESSES[1:3])
    configure(lb, dict.fromkeys(ADDRESSES[:3], 0))
    assert all(flow.stays for flow in flows)
    assert Flow(lb, 900).begin().backend is None, "no backend takes new flows"


def test_a_new_size_of_the_table(lb: Testbed) -> None:
    """More backends than 10 make a larger table, in which all slots are elsewhere."""
    flows = [Flow(lb, number).begin() for number in range(300)]
    configure(lb, dict.fromkeys(ADDRESSES[:12], 1))
    assert all(flow.stays for flow in flows)
    flows += [Flow(lb, number).begin() for number in range(2000, 2100)]
    configure(lb, dict.fromkeys(ADDRESSES[:5], 1))
    assert all(flow.stays for flow in flows if flow.backend in ADDRESSES[:5])


def test_a_number_that_is_used_again_is_another_backend(lb: Testbed) -> None:
    """A record does not lead to whoever got its backend's number."""
    configure(lb, dict.fromkeys(ADDRESSES[:4], 1))
    lost = [flow for number in range(400) if (flow := Flow(lb, number).begin()).backend == ADDRESSES[3]]
    configure(lb, dict.fromkeys(ADDRESSES[:3], 1))
    configure(lb, dict.fromkeys([*ADDRESSES[:3], ADDRESSES[9]], 0) | {ADDRESSES[0]: 1})
    assert {flow.send() for flow in lost} <= set(ADDRESSES[:3])


def test_udp_flows_are_learned(lb: Testbed) -> None:
    """They have no beginning to be seen: who sends within the idle timeout is taken for old, later ones for new."""
    old = [Flow(lb, number, Protocol.UDP) for number in range(200)]
    for flow in old:
        flow.backend = flow.send()
    configure(lb, dict.fromkeys(ADDRESSES[:4], 1), idle=1)
    assert all(flow.stays for flow in old[:100])
    time.sleep(3.5)
    late = [Flow(lb, number, Protocol.UDP) for number in range(1000, 1100)]
    assert ADDRESSES[3] in {flow.send() for flow in late}


def test_slots_settle_when_they_are_quiet(lb: Testbed) -> None:
    old = [Flow(lb, number).begin() for number in range(200)]
    configure(lb, dict.fromkeys(ADDRESSES[:4], 1))
    (region,) = (
        lb.image.tables[number].region for number, vip in lb.image.vips.items() if vip.service.protocol is Protocol.TCP
    )
    assert any(lb.maps.read_table(region).unsettled)
    lb.maps.begin_period(region)
    assert all(flow.stays for flow in old)
    half = settle(lb.maps.read_table(region), lb.maps.used_slots(region))
    assert 0 < sum(half.unsettled) < sum(lb.maps.read_table(region).unsettled)
    lb.maps.settle(region, half)
    assert all(flow.stays for flow in old), "slots in use were left alone"
    lb.maps.begin_period(region)
    settled = settle(lb.maps.read_table(region), lb.maps.used_slots(region))
    assert not settled.previous
    assert lb.maps.settle(region, settled).lines < region.lines
    before = recorded(lb)
    assert ADDRESSES[3] in {Flow(lb, number).begin().backend for number in range(1000, 1200)}
    assert recorded(lb) == before


def test_a_full_table_forgets_some(lb: Testbed) -> None:
    """1,024 lines of 4 records; a flow without one is taken for older than the change."""
    configure(lb, {ADDRESSES[0]: 0, ADDRESSES[1]: 0, ADDRESSES[2]: 0, ADDRESSES[3]: 1})
    before = lb.maps.events()
    flows = [Flow(lb, number).begin() for number in range(100_000, 108_000)]
    events = lb.maps.events()
    assert events["flow_recorded"] - before["flow_recorded"] == 8000
    assert events["flow_evicted"] - before["flow_evicted"] >= 8000 - 4096
    assert 3000 < sum(flow.stays for flow in flows) <= 4096


def test_random_changes(lb: Testbed) -> None:
    """Flows through 60 changes of backends and weights: each stays as long as its backend is there."""
    numbers = random.Random(5)
    weights = dict.fromkeys(ADDRESSES[:3], 1)
    flows: list[Flow] = []
    began = 0
    for _ in range(60):
        while len(flows) < 60:
            began += 1
            flow = Flow(lb, began).begin()
            if flow.backend is not None:
                flows.append(flow)
            elif not any(weights.values()):
                break
        match numbers.choice(["add", "remove", "weight", "weight"]):
            case "add":
                weights[numbers.choice(ADDRESSES)] = 1
            case "remove" if len(weights) > 1:
                del weights[numbers.choice(sorted(weights))]
            case _:
                weights[numbers.choice(sorted(weights))] = numbers.randrange(4)
        flows = [flow for flow in flows if flow.backend in weights]
        configure(lb, weights)
        assert all(flow.stays for flow in flows)
        flows = [flow for flow in flows if numbers.random() < 0.9]


def test_a_restart_forgets_nothing(lb: Testbed) -> None:
    """The daemon reads previous slots and records back from the maps."""
    old = [Flow(lb, number).begin() for number in range(200)]
    configure(lb, dict.fromkeys(ADDRESSES[:4], 1))
    new = [Flow(lb, number).begin() for number in range(1000, 1100)]
    found = lb.maps.read_image()
    lb.image = replace(found, tables={n: replace(table, source=None) for n, table in found.tables.items()})
    configure(lb, dict.fromkeys(ADDRESSES[:5], 1))
    assert all(flow.stays for flow in [*old, *new])
