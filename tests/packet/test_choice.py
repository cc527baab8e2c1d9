"""The kernel chooses the backend that the Python reference predicts, for every flow."""

import random
import struct
from ipaddress import IPv4Address

from l4lb.balance import maglev
from l4lb.balance.flowhash import flow_hash, seeds, slot_of
from l4lb.datapath.links import mac_bytes
from l4lb.lab.testbed import GATEWAY_MAC, LOOPBACK, Testbed, hop
from l4lb.model import Backend, Config, Endpoint, Mode, Protocol, Service, Vip
from tests.packet.harness import SEED, XDP_TX

FLOWS = 12_000

BACKENDS = tuple(
    Backend(Endpoint(IPv4Address(f"10.2.{number // 250}.{number % 250 + 1}"), 8080), weight=number % 5)
    for number in range(300)
)
VIP = Vip("web", Service(IPv4Address("192.0.2.10"), 443, 443, Protocol.TCP), Mode.NAT, backends=BACKENDS)
MACS = {
    backend.endpoint.address: f"02:00:00:01:{number >> 8:02x}:{number & 255:02x}"
    for number, backend in enumerate(BACKENDS)
}


def syn(client: Endpoint) -> bytes:
    """A TCP segment without valid checksums: this test is about its destination."""
    ethernet = mac_bytes(GATEWAY_MAC) + bytes(6) + b"\x08\x00"
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, client.address.packed, VIP.service.address.packed)
    return ethernet + ip + struct.pack("!HHIIBBHHH", client.port, 443, 0, 0, 0x50, 2, 0, 0, 0)


def test_the_reference_predicts_the_kernels_choice(bed: Testbed) -> None:
    """12,000 random flows over 300 weighted backends, a fifth of them with weight 0."""
    bed.configure(Config(vips=(VIP,), seed=SEED), {address: hop(LOOPBACK, where) for address, where in MACS.items()})
    members = [backend for backend in BACKENDS if backend.weight]
    table = maglev.build(
        [(str(backend.endpoint), backend.weight) for backend in members], maglev.table_size(len(members)), SEED
    )
    by_mac = {mac_bytes(text): address for address, text in MACS.items()}
    constants = seeds(SEED)
    numbers = random.Random(1)
    chosen = set()
    for _ in range(FLOWS):
        client = Endpoint(IPv4Address(numbers.randrange(1 << 24, 0xE0 << 24)), numbers.randrange(1, 65_536))
        predicted = members[table[slot_of(flow_hash(client, 443, constants), len(table))]].endpoint
        answer = bed.send(syn(client))
        assert answer.verdict == XDP_TX
        assert by_mac[answer.packet[:6]] == predicted.address, client
        assert IPv4Address(answer.packet[30:34]) == predicted.address, client
        chosen.add(predicted)
    assert len(chosen) == len(members), "the sample reaches every backend"
