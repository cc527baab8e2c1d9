"""A small world for the reference's own tests: one VIP for each mode, in both families where it takes both."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from l4lb.balance.flowhash import flow_hash64, seeds
from l4lb.datapath.links import TAG_8021AD, mac_bytes
from l4lb.model import Backend, Config, Endpoint, IPAddress, Mode, Protocol, Service, Vip
from tests.reference import Hop, Outcome, Port, Reference, World

GATEWAY_MAC, CLIENT_MAC, BACKEND_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:04"
LAN, WAN, VLAN, STACKED = 1, 2, 40, 41  # where packets come in, where clients are, and VLANs on LAN

CLIENT, CLIENT6 = "10.1.0.2", "fd01::2"
UNKNOWN_CLIENT, LOST_CLIENT, SLOW_CLIENT = "10.1.5.5", "203.0.113.9", "198.51.100.8"
GATEWAY, GATEWAY6 = "10.2.0.1", "fd02::1"
CONSTANTS = seeds(7)

_HOPS = {BACKEND_MAC: mac_bytes(BACKEND_MAC), CLIENT_MAC: mac_bytes(CLIENT_MAC)}


def vip(name: str, service: str, mode: Mode, *backends: str, protocol: Protocol = Protocol.TCP, **more: Any) -> Vip:
    """A VIP from texts; a backend without a port keeps the client's."""
    made = Vip(name, Service.parse(service, protocol), mode)
    port = 0 if not made.service.is_single else made.service.first_port
    members = tuple(Backend(Endpoint.parse(text, port)) for text in backends)
    sources = tuple(map(ip_network, more.pop("sources", ())))
    return replace(made, backends=members, sources=sources, **more)


TUNNEL_SOURCES = ("198.18.0.0/24", "fd09::/96")
VIPS = (
    vip("nat", "192.0.2.10:80", Mode.NAT, "10.2.0.10:8080"),
    vip("nat-udp", "192.0.2.10:53", Mode.NAT, "10.2.0.10:5353", protocol=Protocol.UDP),
    vip("nat6", "[2001:db8::10]:80", Mode.NAT, "[fd02::10]:8080"),
    vip("nat6-udp", "[2001:db8::10]:53", Mode.NAT, "[fd02::10]:5353", protocol=Protocol.UDP),
    vip("fullnat", "192.0.2.11:80", Mode.FULLNAT, "10.2.0.11:8080", pool=256),
    vip("fullnat6-udp", "[2001:db8::11]:53", Mode.FULLNAT, "[fd02::11]:53", protocol=Protocol.UDP, pool=256),
    vip("dsr", "192.0.2.12:80", Mode.DSR, "10.2.0.12", mss=1200),
    vip("ipip", "192.0.2.13:80", Mode.IPIP, "10.2.0.13", sources=TUNNEL_SOURCES),
    vip("ipip46", "192.0.2.14:80", Mode.IPIP, "[fd02::14]", sources=TUNNEL_SOURCES),
    vip("ipip64", "[2001:db8::15]:80", Mode.IPIP, "10.2.0.15", sources=TUNNEL_SOURCES),
    vip("gue", "192.0.2.16:80", Mode.GUE, "10.2.0.16", sources=TUNNEL_SOURCES, gue_port=7000),
    vip("gue46", "192.0.2.17:53", Mode.GUE, "[fd02::17]", protocol=Protocol.UDP, sources=TUNNEL_SOURCES),
    vip("gue66", "[2001:db8::18]:80", Mode.GUE, "[fd02::18]", sources=TUNNEL_SOURCES),
    vip("any-of-1000", "192.0.2.19:8000-8999", Mode.NAT, "10.2.0.19"),
    vip("of-100", "192.0.2.19:8500-8599", Mode.NAT, "10.2.0.20"),
    vip("one", "192.0.2.19:8550", Mode.NAT, "10.2.0.21:80"),
    vip("merged", "192.0.2.22:8000-8999", Mode.NAT, "10.2.0.22:80", pool=256),
    vip("shared-a", "192.0.2.23:80", Mode.NAT, "10.2.0.23:80", pool=256),
    vip("shared-b", "192.0.2.24:80", Mode.NAT, "10.2.0.23:80", pool=256),
    vip("empty", "192.0.2.25:80", Mode.NAT),
    vip("lost", "192.0.2.26:80", Mode.NAT, "10.2.0.26"),
    vip("tagged", "192.0.2.27:80", Mode.NAT, "10.2.0.27"),
    vip("twice-tagged", "192.0.2.28:80", Mode.IPIP, "10.2.0.28", sources=TUNNEL_SOURCES),
    vip("astray", "192.0.2.29:80", Mode.NAT, "10.2.0.29"),
)
_LEAVING_BY = {"10.2.0.27": VLAN, "10.2.0.28": STACKED, "10.2.0.29": 99}


def _hop(address: IPAddress) -> Hop:
    source = ip_address(GATEWAY if address.version == 4 else GATEWAY6)
    return Hop(_LEAVING_BY.get(str(address), LAN), mac_bytes(BACKEND_MAC), 0, source)


def _route(client: IPAddress) -> Hop | str:
    answers: dict[str, Hop | str] = {
        UNKNOWN_CLIENT: "pass_resolve_neighbour",
        LOST_CLIENT: "drop_no_route",
        GATEWAY: "pass_local",
        SLOW_CLIENT: Hop(WAN, mac_bytes(CLIENT_MAC), 1400),
    }
    return answers.get(str(client), Hop(WAN, mac_bytes(CLIENT_MAC)))


def _first(vip: Vip, client: Endpoint, port: int, protocol: Protocol, begins: bool) -> Endpoint | None:
    return vip.backends[0].endpoint if vip.backends else None


def hash_of(client: str, port: int, service_port: int) -> int:
    """The hash of a flow, 64 bits."""
    return flow_hash64(Endpoint(ip_address(client), port), service_port, CONSTANTS)


def world(vips: tuple[Vip, ...] = VIPS, now: Callable[[], int] = lambda: 1000, **more: Any) -> World:
    """The world around these VIPs; each backend but that of the VIP "lost" is resolved."""
    mac = mac_bytes(GATEWAY_MAC)
    backends = {backend.endpoint.address for vip in vips for backend in vip.backends}
    made = World(
        config=Config(vips, 7),
        ports={
            LAN: Port(mac, 1500, LAN),
            WAN: Port(mac, 1500, WAN),
            VLAN: Port(mac, 1500, LAN, (5,)),
            STACKED: Port(mac, 1500, LAN, (TAG_8021AD | 5, 6)),
        },
        next_hops={address: _hop(address) for address in backends if str(address) != "10.2.0.26"},
        route=_route,
        choose=_first,
        flow_hash64=lambda client, port: flow_hash64(client, port, CONSTANTS),
        now=now,
        constants=CONSTANTS,
    )
    return replace(made, **more)


def ip(source: str, destination: str, ttl: int = 64, **fields: Any) -> Packet:
    """An IP header of either family."""
    if ":" in source:
        return IPv6(src=source, dst=destination, hlim=ttl, **fields)
    return IP(src=source, dst=destination, ttl=ttl, **fields)


def incoming(packet: Packet, source: str = CLIENT_MAC) -> Packet:
    """As it comes to the gateway."""
    return Ether(src=source, dst=GATEWAY_MAC) / packet


def to_backend(packet: Packet) -> Packet:
    """As it leaves for a backend."""
    return Ether(src=GATEWAY_MAC, dst=BACKEND_MAC) / packet


def to_client(packet: Packet) -> Packet:
    """As it leaves for a client, or goes back to it."""
    return Ether(src=GATEWAY_MAC, dst=CLIENT_MAC) / packet


def run(reference: Reference, packet: Packet) -> Outcome:
    """What becomes of a packet that comes in by :data:`LAN`."""
    return reference.run(bytes(packet), LAN)


def shown(frame: bytes) -> str:
    """A frame as Scapy explains it, for messages about a difference."""
    text = Ether(frame).show2(dump=True)
    assert isinstance(text, str)
    return text
