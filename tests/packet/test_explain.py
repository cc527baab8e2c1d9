"""`l4lb explain` says what the program does."""

import random
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import pytest

from l4lb.balance.explain import Why
from l4lb.datapath import bpf
from l4lb.datapath.explain import Packet, explain_packet
from l4lb.datapath.links import mac_bytes
from l4lb.lab.testbed import CLIENT_MAC, GATEWAY_MAC, LOOPBACK, Testbed, hop
from l4lb.model import Backend, Config, Endpoint, IPAddress, Mode, Protocol, Scheduler, Service, Vip
from l4lb.plan.records import VipRecord
from l4lb.ports import MAX_PORT
from tests.packet.harness import LIMITS, SEED, XDP_DROP, XDP_TX

SYN, ACK = 0x02, 0x10
VIP: dict[int, IPAddress] = {4: IPv4Address("192.0.2.60"), 6: IPv6Address("2001:db8:1::60")}
SERVERS: dict[int, list[IPAddress]] = {
    4: [IPv4Address("10.2.0.130") + number for number in range(14)],
    6: [IPv6Address("2001:db8:2::130") + number for number in range(14)],
}
CLIENT: dict[int, IPAddress] = {4: IPv4Address("10.64.0.0"), 6: IPv6Address("fd64::")}
MACS = {address: f"02:00:00:00:{version:02x}:{number:02x}"
        for version, addresses in SERVERS.items() for number, address in enumerate(addresses)}  # fmt: skip
BY_MAC = {mac_bytes(mac): address for address, mac in MACS.items()}
BY_CHANCE = {Why.ROUND_ROBIN, Why.LEAST_CONNECTIONS, Why.RANDOM}

# The weights of the backends, in turn: more, none with a weight, fewer, a table of another size, gone and back.
CHANGES = (
    {0: 1, 1: 1, 2: 1},
    {0: 1, 1: 2, 2: 1, 3: 1, 4: 1},
    {0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 7: 3, 8: 1},
    dict.fromkeys(range(9), 0),
    dict.fromkeys(range(2, 14), 1),
    {0: 1, 1: 1, 5: 1, 6: 0},
)


@dataclass(frozen=True)
class Kind:
    """A way to choose a backend, and for whose packets."""

    scheduler: Scheduler
    protocol: Protocol
    version: int
    ports: tuple[int, int]
    prefix: int = 0

    @property
    def service(self) -> Service:
        return Service(VIP[self.version], *self.ports, self.protocol)

    def vip(self, weights: dict[int, int]) -> Vip:
        port = 0 if self.ports[1] > self.ports[0] else self.ports[0]
        backends = tuple(Backend(Endpoint(SERVERS[self.version][n], port), weight) for n, weight in weights.items())
        return Vip("v", self.service, Mode.DSR, self.scheduler, backends, client_prefix=self.prefix)


KINDS = [
    *(
        Kind(scheduler, protocol, version, ports)
        for scheduler in Scheduler
        for protocol, version, ports in (
            (Protocol.TCP, 4, (80, 80)),
            (Protocol.UDP, 6, (80, 80)),
            (Protocol.TCP, 6, (8000, 8999)),
            (Protocol.UDP, 4, (1, MAX_PORT)),
        )
    ),
    Kind(Scheduler.SOURCE_HASH, Protocol.TCP, 4, (80, 80), 28),
    Kind(Scheduler.SOURCE_HASH, Protocol.UDP, 6, (80, 80), 64),
]


@pytest.fixture
def lb(bed: Testbed) -> Iterator[Testbed]:
    """No flow remembered."""
    bed.configure(Config((), SEED), {})
    with bpf.opened(bed.pins / "maps" / "flows") as fd:
        for line in range(LIMITS.flow_lines):
            bpf.map_update(fd, line, bytes(64))
    yield bed
    bed.configure(Config((), SEED), {})


def send(bed: Testbed, kind: Kind, packet: Packet) -> IPAddress | None:
    """The backend that the program gives the packet to."""
    client, flags = packet.client, SYN if packet.begins else ACK
    ports = struct.pack("!HH", client.port, packet.port)
    if kind.protocol is Protocol.TCP:
        segment = ports + struct.pack("!IIBBHHH", 1, 1, 0x50, flags, 512, 0, 0)
    else:
        segment = ports + struct.pack("!HH", 20, 0) + bytes(12)
    addresses = client.address.packed + VIP[kind.version].packed
    if kind.version == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, kind.protocol, 0)
    else:
        header = struct.pack("!IHBB", 6 << 28, len(segment), kind.protocol, 64)
    ethertype = {4: b"\x08\x00", 6: b"\x86\xdd"}[kind.version]
    answer = bed.send(mac_bytes(GATEWAY_MAC) + mac_bytes(CLIENT_MAC) + ethertype + header + addresses + segment)
    assert answer.verdict in (XDP_TX, XDP_DROP)
    return BY_MAC[answer.packet[:6]] if answer.verdict == XDP_TX else None


def explained(bed: Testbed, kind: Kind, packet: Packet) -> tuple[IPAddress | None, Why]:
    backend, why = explain_packet(bed.maps, bed.image, VipRecord(kind.service), packet, SEED)
    return (backend.endpoint.address if backend else None), why


def expected(kind: Kind) -> set[Why]:
    """All that has to have come up."""
    is_tcp = kind.protocol is Protocol.TCP  # UDP flows are all taken for old ones, as long as this takes
    if kind.scheduler.hashes:
        return {Why.SETTLED, Why.TRACKED, Why.PREVIOUS, *([Why.NEW, Why.NO_BACKEND] if is_tcp else [])}
    by_chance = Why(kind.scheduler.replace("-", "_"))
    return {Why.TRACKED, by_chance, *([Why.PREVIOUS, Why.NO_BACKEND] if is_tcp else [])}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.scheduler}-{kind.service}-{kind.prefix}")
def test_it_agrees_with_the_kernel(lb: Testbed, kind: Kind) -> None:
    """Random packets, before and after changes, of flows that are new, recorded, and older than the changes."""
    numbers = random.Random(2)
    reasons: Counter[Why] = Counter()
    for weights in CHANGES:
        lb.configure(Config((kind.vip(weights),), SEED), {address: hop(LOOPBACK, mac) for address, mac in MACS.items()})
        takes_new = {SERVERS[kind.version][number] for number, weight in weights.items() if weight}
        for _ in range(120):
            flow = random.Random(numbers.randrange(100))
            client = Endpoint(CLIENT[kind.version] + flow.randrange(1 << 12), flow.randrange(1024, MAX_PORT))
            begins = kind.protocol is Protocol.TCP and numbers.random() < 0.5
            packet = Packet(client, flow.randint(*kind.ports), begins)
            backend, why = explained(lb, kind, packet)
            reasons[why] += 1
            got = send(lb, kind, packet)
            if why in BY_CHANCE:
                assert backend is None
                assert got in takes_new
                assert explained(lb, kind, Packet(client, packet.port, begins=False)) == (got, Why.TRACKED)
            else:
                assert got == backend, (why, weights)
    assert all(reasons[why] > 4 for why in expected(kind)), reasons
