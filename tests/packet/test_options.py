"""Ranges of ports, MSS, sources, VLANs on the way out, and what the program leaves to the kernel without a feature."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from l4lb.datapath.layout import FEATURES
from l4lb.datapath.links import TAG_8021AD
from l4lb.lab.testbed import CLIENT_MAC, GATEWAY_MAC, LOOPBACK, SOURCES, Testbed, hop, testbed
from l4lb.model import Backend, Config, Endpoint, IPAddress, Mode, Protocol, Service, Vip
from l4lb.ports import MAX_PORT
from tests.packet.harness import LIMITS, SEED, XDP_REDIRECT, XDP_TX, run
from tests.packet.modes import BACKEND_MAC, CLIENTS, VIP_PORT, arriving, header, out

VIP: dict[int, IPAddress] = {4: IPv4Address("192.0.2.50"), 6: IPv6Address("2001:db8:1::50")}
BACKEND: dict[int, IPAddress] = {4: IPv4Address("10.2.0.50"), 6: IPv6Address("2001:db8:2::50")}
DATA = Raw(b"data")
versions = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture
def lb(bed: Testbed) -> Iterator[Testbed]:
    bed.configure(Config((), SEED), {})
    yield bed
    bed.configure(Config((), SEED), {})


def configure(bed: Testbed, *vips: Vip) -> None:
    """With every backend behind the loopback interface."""
    backends = {backend.endpoint.address for vip in vips for backend in vip.backends}
    bed.configure(
        Config(vips, SEED), {address: hop(LOOPBACK, BACKEND_MAC, version=address.version) for address in backends}
    )


def vip(version: int, ports: tuple[int, int], mode: Mode, port: int, number: int = 0, **settings: object) -> Vip:
    """A VIP with one backend, which has a number of its own."""
    service = Service(VIP[version], *ports, Protocol.TCP)
    backend = Backend(Endpoint(BACKEND[version] + number, port))
    return replace(Vip(f"v{number}", service, mode, backends=(backend,), pool=256), **settings)  # type: ignore[arg-type]


def tcp(source: int, destination: int, **fields: object) -> Packet:
    return TCP(sport=source, dport=destination, seq=7, ack=9, **{"flags": "PA", **fields})


# Ranges of ports


@versions
def test_the_narrowest_vip_takes_a_port(lb: Testbed, version: int) -> None:
    ranges = [(1, MAX_PORT), (8000, 8999), (8080, 8090), (8085, 8085), (60_000, MAX_PORT)]
    configure(lb, *(vip(version, ports, Mode.NAT, 7, number) for number, ports in enumerate(ranges)))
    owners = {1: 0, 80: 0, 7999: 0, 8000: 1, 8079: 1, 8080: 2, 8085: 3, 8090: 2, 8091: 1, 8999: 1, 9000: 0, 65_535: 4}
    for source, (port, number) in enumerate(owners.items(), start=4000):
        outcome = run(lb, bytes(arriving(header(CLIENTS[version], VIP[version]) / tcp(source, port) / DATA)))
        assert list(outcome.traffic) == [
            f"{lb.image.vips[_number(lb, number)].service.place} {_backend(version, number)}"
        ]
    outcome = run(lb, bytes(arriving(header(CLIENTS[version], VIP[version]) / UDP(sport=4000, dport=8085))))
    assert outcome.reasons == {"pass_not_vip": 1}, "the other protocol"


def _backend(version: int, number: int) -> Endpoint:
    return Endpoint(BACKEND[version] + number, 7)


def _number(lb: Testbed, number: int) -> int:
    """The VIP's number in the maps, by that of its backend."""
    (found,) = (
        record.vip
        for record in lb.image.backends.values()
        if record.endpoint.address in (BACKEND[4] + number, BACKEND[6] + number)
    )
    return found


@versions
def test_ports_that_are_nobodys(lb: Testbed, version: int) -> None:
    configure(lb, vip(version, (8000, 8010), Mode.NAT, 0), vip(version, (9000, 9010), Mode.NAT, 0, 1))
    for port, ours in {7999: False, 8000: True, 8010: True, 8011: False, 9000: True, 9011: False}.items():
        outcome = run(lb, bytes(arriving(header(CLIENTS[version], VIP[version]) / tcp(4000, port))))
        assert outcome.reasons == ({} if ours else {"pass_not_vip": 1}), port


@versions
@pytest.mark.parametrize("port", [0, 7], ids=["the client's port", "one port"])
def test_a_range_by_nat(lb: Testbed, version: int, port: int) -> None:
    """The backend gets the client's port, or one for all; then the connection tells which one answers are from."""
    configure(lb, vip(version, (8000, 8010), Mode.NAT, port))
    ttl = {"ttl" if version == 4 else "hlim": 63}
    outcome = run(lb, bytes(arriving(header(CLIENTS[version], VIP[version]) / tcp(4000, 8005) / DATA)))
    assert outcome.packet == bytes(
        out(header(CLIENTS[version], BACKEND[version], **ttl) / tcp(4000, port or 8005) / DATA)
    )
    from_backend = Ether(src=BACKEND_MAC, dst=GATEWAY_MAC)
    answer = from_backend / header(BACKEND[version], CLIENTS[version]) / tcp(port or 8005, 4000) / DATA
    outcome = run(lb, bytes(answer))
    to_client = Ether(src=GATEWAY_MAC, dst=CLIENT_MAC) / header(VIP[version], CLIENTS[version], **ttl)
    assert outcome.packet == bytes(to_client / tcp(8005, 4000) / DATA)
    for stranger in (7999, 8011, 22) if not port else (8005,):
        other = from_backend / header(BACKEND[version], CLIENTS[version]) / tcp(stranger, 4000)
        assert run(lb, bytes(other)).reasons == {"pass_not_vip": 1}, "a port outside of the range is the server's own"


@versions
@pytest.mark.parametrize("mode", [Mode.DSR, Mode.IPIP, Mode.GUE])
def test_a_range_by_other_modes(lb: Testbed, version: int, mode: Mode) -> None:
    configure(lb, vip(version, (1, MAX_PORT), mode, 0))
    outcome = run(lb, bytes(arriving(header(CLIENTS[version], VIP[version]) / tcp(4000, 12_345) / DATA)))
    assert (outcome.verdict, outcome.reasons) == (XDP_TX, {})
    assert bytes(tcp(4000, 12_345))[:4] in outcome.packet


# MSS

OPTIONS = {
    "MSS first": [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)],
    "MSS behind a NOP": [("NOP", None), ("MSS", 1460), ("NOP", None), ("NOP", None), ("NOP", None)],
    "MSS after timestamps": [("Timestamp", (1, 0)), ("NOP", None), ("MSS", 9000), ("NOP", None)],
}


def clamped(options: list[tuple[str, object]], most: int) -> list[tuple[str, object]]:
    return [(name, min(value, most) if name == "MSS" and isinstance(value, int) else value) for name, value in options]


@versions
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("most", [1300, 9001])
def test_mss_is_lowered(lb: Testbed, version: int, options: list[tuple[str, object]], most: int) -> None:
    """In SYNs both ways, and never raised; also at an odd place."""
    configure(lb, vip(version, (80, 80), Mode.NAT, 8080, mss=most))
    ttl = {"ttl" if version == 4 else "hlim": 63}
    packet = header(CLIENTS[version], VIP[version]) / tcp(4000, 80, flags="S", options=options)
    outcome = run(lb, bytes(arriving(packet)))
    expected = header(CLIENTS[version], BACKEND[version], **ttl) / tcp(
        4000, 8080, flags="S", options=clamped(options, most)
    )
    assert outcome.packet == bytes(out(expected))
    answer = header(BACKEND[version], CLIENTS[version]) / tcp(8080, 4000, flags="SA", options=options)
    outcome = run(lb, bytes(Ether(src=BACKEND_MAC, dst=GATEWAY_MAC) / answer))
    expected = header(VIP[version], CLIENTS[version], **ttl) / tcp(80, 4000, flags="SA", options=clamped(options, most))
    assert outcome.packet == bytes(Ether(src=GATEWAY_MAC, dst=CLIENT_MAC) / expected)


def test_mss_of_what_is_no_syn_or_not_understood(lb: Testbed) -> None:
    configure(lb, vip(4, (80, 80), Mode.DSR, 80, mss=1300))
    for fields in (
        {"flags": "PA", "options": [("MSS", 1460)]},
        {"flags": "S", "options": [("NOP", None)] * 12},
        {"flags": "S", "options": [("EOL", None), ("MSS", 1460)]},
    ):
        packet = header(CLIENTS[4], VIP[4]) / tcp(4000, 80, **fields)
        assert run(lb, bytes(arriving(packet))).packet == bytes(out(packet))


# Sources


@versions
@pytest.mark.parametrize("mode", [Mode.IPIP, Mode.GUE])
def test_outer_sources_vary_by_flow(lb: Testbed, version: int, mode: Mode) -> None:
    """Over the whole network, the same for each packet of a flow."""
    network = ip_network("10.99.0.0/28" if version == 4 else "fd99::/124")
    configure(lb, vip(version, (80, 80), mode, 80, sources=(network,)))
    seen = []
    for port in [*range(4000, 4200)] * 2:
        outcome = run(lb, bytes(arriving(header(CLIENTS[version], VIP[version]) / tcp(port, 80))))
        outer = Ether(outcome.packet).payload
        checksum = outer.chksum if version == 4 else 0
        if version == 4:
            del outer.chksum
            assert IP(bytes(outer)).chksum == checksum
        seen.append(outer.src)
    assert seen[:200] == seen[200:]
    assert {*seen} == {str(address) for address in network}


@versions
def test_gue_sources_have_many_ports(lb: Testbed, version: int) -> None:
    configure(lb, vip(version, (80, 80), Mode.GUE, 80))
    ports = {
        Ether(run(lb, bytes(arriving(header(CLIENTS[version], VIP[version]) / tcp(port, 80)))).packet)[UDP].sport
        for port in range(4000, 4500)
    }
    assert len(ports) > 480
    assert min(ports) >= 0xC000, "the dynamic ones"


# VLANs on the way out


@versions
@pytest.mark.parametrize("mode", [Mode.NAT, Mode.DSR, Mode.IPIP])
@pytest.mark.parametrize("arrives", [None, Dot1Q(vlan=9)], ids=["untagged", "tagged"])
@pytest.mark.parametrize(
    ("tags", "expected"),
    [((5,), Dot1Q(vlan=5)), ((TAG_8021AD | 7, 5), Dot1AD(vlan=7) / Dot1Q(vlan=5))],
    ids=["802.1Q", "802.1ad"],
)
def test_a_backend_in_a_vlan(
    lb: Testbed, version: int, mode: Mode, arrives: Packet | None, tags: tuple[int, ...], expected: Packet
) -> None:
    """The frame leaves by the interface that the VLAN is on, with its tags, whatever tags it came with."""
    vlan = 40
    lb.set_port("vlan", vlan, lb.wan, tags)
    chosen = vip(version, (80, 80), mode, 8080 if mode is Mode.NAT else 80)
    lb.configure(Config((chosen,), SEED), {BACKEND[version]: hop(vlan, BACKEND_MAC, version=version)})
    packet = header(CLIENTS[version], VIP[version]) / tcp(4000, 80) / DATA
    outcome = run(lb, bytes(arriving(packet, arrives.copy() if arrives else None)))
    lb.maps.clear_port(vlan)
    assert (outcome.verdict, outcome.reasons) == (XDP_REDIRECT, {})
    ttl = {} if mode is Mode.DSR else {"ttl" if version == 4 else "hlim": 63}
    inner: Packet = header(CLIENTS[version], BACKEND[version] if mode is Mode.NAT else VIP[version], **ttl)
    inner /= tcp(4000, 8080 if mode is Mode.NAT else 80) / DATA
    if mode is Mode.IPIP:
        found = Ether(outcome.packet)
        layer = found.payload
        for tag in (expected, expected.payload):
            if tag:
                assert (type(layer), layer.vlan) == (type(tag), tag.vlan)
                layer = layer.payload
        assert (layer.src, layer.dst) == (str(SOURCES[version]), str(BACKEND[version]))
        assert bytes(layer.payload) == bytes(inner)
        return
    assert outcome.packet == bytes(Ether(src=GATEWAY_MAC, dst=BACKEND_MAC) / expected.copy() / inner)


# Without a feature


@pytest.mark.parametrize(
    ("without", "packet", "reason"),
    [
        ("VLAN", arriving(header(CLIENTS[4], VIP[4]) / tcp(4000, 80), Dot1Q(vlan=5)), "pass_not_ip"),
        ("IPV6", arriving(IPv6(dst="2001:db8:1::50") / TCP(dport=80)), "pass_not_vip"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_compiled_in_is_the_kernels(without: str, packet: Packet, reason: str) -> None:
    with testbed(frozenset(FEATURES) - {without}, SEED, LIMITS) as made:
        configure(made, vip(4, (VIP_PORT, VIP_PORT), Mode.DSR, VIP_PORT))
        outcome = run(made, bytes(packet))
        assert outcome.reasons == {reason: 1}
        assert outcome.packet == bytes(packet)
