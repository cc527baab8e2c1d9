"""VIPs of every mode, family and protocol, and what a packet for one has to look like behind the gateway, by Scapy."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from l4lb.balance.flowhash import flow_hash64, flow_tag, seeds
from l4lb.lab.testbed import CLIENT, CLIENT6, CLIENT_MAC, GATEWAY_MAC, LOOPBACK, SOURCES, hop
from l4lb.model import Backend, Config, Endpoint, IPAddress, Mode, Protocol, Service, Vip
from tests.packet.harness import SEED

BACKEND_MAC = "02:00:00:00:00:04"
CLIENTS: dict[int, IPAddress] = {4: IPv4Address(CLIENT), 6: IPv6Address(CLIENT6)}
CLIENT_PORT, VIP_PORT, BACKEND_PORT, GUE_PORT = 4000, 80, 8080, 6081
POOL = 256

_VIPS: dict[int, IPAddress] = {4: IPv4Address("192.0.2.100"), 6: IPv6Address("2001:db8:1::100")}
_BACKENDS: dict[int, IPAddress] = {4: IPv4Address("10.2.0.100"), 6: IPv6Address("2001:db8:2::100")}
_EXTENSIONS = (IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt, IPv6ExtHdrRouting, IPv6ExtHdrFragment)


@dataclass(frozen=True)
class Case:
    """A VIP with one backend.

    Attributes:
        version: of IP, of the VIP.
        outer: of IP, of the backend.
    """

    mode: Mode
    version: int
    outer: int
    protocol: Protocol

    def __str__(self) -> str:
        across = f"in{self.outer}" if self.mode.tunnels else ""
        return f"{self.mode}-ipv{self.version}{across}-{self.protocol.label}"

    @property
    def number(self) -> int:
        """A number of its own."""
        return CASES.index(self)

    @property
    def vip(self) -> IPAddress:
        """The VIP's address."""
        return _VIPS[self.version] + self.number

    @property
    def backend(self) -> Endpoint:
        """The backend."""
        return Endpoint(_BACKENDS[self.outer] + self.number, BACKEND_PORT if self.mode.translates else VIP_PORT)

    @property
    def account(self) -> str:
        """Whom the harness charges packets to."""
        return f"{Endpoint(self.vip, VIP_PORT)} {self.backend}"

    def in_config(self) -> Vip:
        """As it is configured."""
        service = Service(self.vip, VIP_PORT, VIP_PORT, self.protocol)
        return Vip(str(self), service, self.mode, backends=(Backend(self.backend),), gue_port=GUE_PORT, pool=POOL)

    # Packets

    def from_client(self, **fields: object) -> Packet:
        """The IP header of a packet of the client's."""
        return header(CLIENTS[self.version], self.vip, **fields)

    def from_backend(self, to: IPAddress, **fields: object) -> Packet:
        """The IP header of a packet of the backend's."""
        return header(self.backend.address, to, **fields)

    def transport(self, source: int = CLIENT_PORT, destination: int = VIP_PORT, **fields: object) -> Packet:
        """The header of its protocol."""
        if self.protocol is Protocol.UDP:
            return UDP(sport=source, dport=destination, **{k: v for k, v in fields.items() if k == "chksum"})
        return TCP(sport=source, dport=destination, seq=7, ack=9, **{"flags": "PA", **fields})

    def forwarded(
        self, packet: Packet, hash_port: int = CLIENT_PORT, udp_checksum: bool = True, renew: bool = True
    ) -> Packet:
        """The frame that has to leave for a packet of the client's (from its IP header on).

        Args:
            packet: the client's.
            hash_port: the client's port, 0 if the packet does not tell it.
            udp_checksum: whether an outer UDP header over IPv6 has one.
            renew: whether the checksum of TCP or UDP is to be computed anew, as it cannot for a fragment.
        """
        inner = renewed(packet) if renew else type(packet)(bytes(packet))
        if self.mode is Mode.DSR:
            return out(inner)
        _decrement(inner)
        if self.version == 4:
            del inner.chksum
        if self.mode.translates:
            inner.dst = str(self.backend.address)
            transport = inner.getlayer(TCP) or inner.getlayer(UDP)
            if transport is not None:
                transport.dport = self.backend.port
            if self.mode is Mode.FULLNAT:
                source = self.pool_source()
                inner.src = str(source.address)
                if transport is not None:
                    transport.sport = source.port
            return out(inner)
        hash64 = flow_hash64(Endpoint(CLIENTS[self.version], hash_port), VIP_PORT if hash_port else 0, seeds(SEED))
        ipv4 = self.version == 4
        traffic_class = inner.tos if ipv4 else inner.tc
        gue = self.mode is Mode.GUE
        if self.outer == 4:
            proto = 17 if gue else 4 if ipv4 else 41
            outer = header(SOURCES[4], self.backend.address, tos=traffic_class, flags="DF", id=0, proto=proto)
        else:
            proto = 17 if gue else 4 if ipv4 else 41
            outer = header(SOURCES[6], self.backend.address, tc=traffic_class, fl=hash64 >> 44, nh=proto)
        if gue:
            udp = UDP(sport=0xC000 | hash64 >> 48 & 0x3FFF, dport=GUE_PORT)
            if self.outer == 4 or not udp_checksum:
                udp.chksum = 0
            outer /= udp
        return out(outer / inner)

    def pool_source(self) -> Endpoint:
        """Where fullnat sends from, while the pool is empty: the place that the flow hashes to."""
        client, constants = Endpoint(CLIENTS[self.version], CLIENT_PORT), seeds(SEED)
        place = (flow_tag(flow_hash64(client, VIP_PORT, constants), self.number, constants) >> 32) % POOL
        return Endpoint(SOURCES[self.version], 16_384 + place)


def header(source: IPAddress, destination: IPAddress, **fields: object) -> Packet:
    """An IP header."""
    kind = IP if source.version == 4 else IPv6
    return kind(src=str(source), dst=str(destination), **fields)


def out(packet: Packet) -> Packet:
    """As it leaves for the backend."""
    return Ether(src=GATEWAY_MAC, dst=BACKEND_MAC) / packet


def arriving(packet: Packet, tags: Packet | None = None) -> Packet:
    """As it comes from the client."""
    ethernet = Ether(src=CLIENT_MAC, dst=GATEWAY_MAC)
    return ethernet / packet if tags is None else ethernet / tags / packet


def renewed(packet: Packet) -> Packet:
    """A copy of which Scapy computes the checksums anew, but for UDP's where there is none."""
    copy = type(packet)(bytes(packet))
    layer = copy
    while layer:
        if isinstance(layer, IP | TCP) or (isinstance(layer, UDP) and layer.chksum):
            del layer.chksum
        layer = layer.payload
    return copy


def _decrement(packet: Packet) -> None:
    if isinstance(packet, IP):
        packet.ttl -= 1
    else:
        packet.hlim -= 1


CASES = [
    Case(mode, version, outer, protocol)
    for mode in Mode
    for version in (4, 6)
    for outer in (4, 6)
    for protocol in Protocol
    if outer == version or mode.tunnels
]
CONFIG = Config(tuple(case.in_config() for case in CASES), SEED)
NEXT_HOPS = {case.backend.address: hop(LOOPBACK, BACKEND_MAC, version=case.outer) for case in CASES}
