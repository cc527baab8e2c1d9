"""Whose a packet is: VIPs by destination, backends by the source of their answers."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from l4lb.model import Endpoint, IPAddress, Mode, Vip
from tests.reference.world import Hop, Way, World

Server = tuple[bytes, int, int]  # address, port and protocol

_IP_HEADER = {4: 20, 6: 40}


@dataclass(frozen=True, slots=True)
class Target:
    """A backend of one VIP, and how packets get there.

    Attributes:
        address: its bytes.
        hop: its next hop, None if it is not resolved or of no use to the mode.
        room: the longest IP packet that can be sent there, without outer headers.
        source: of outer headers, or of fullnat; the first of several.
        source_mask: which of its last 32 bits are a flow's own.
        shared: by nat, and its source alone does not tell which VIP, or which of a VIP's ports, it answers for.
    """

    vip: Vip
    endpoint: Endpoint
    address: bytes
    hop: Hop | None
    room: int
    source: bytes
    source_mask: int
    shared: bool

    @property
    def server(self) -> Server:
        """Where its answers come from."""
        return self.address, self.endpoint.port, self.vip.protocol

    @property
    def by_connection(self) -> bool:
        """Whether it takes a connection to know whose an answer is."""
        return self.shared or self.vip.mode is Mode.FULLNAT


@dataclass(slots=True)
class Owner:
    """Whose a packet is.

    Attributes:
        service_port: that the client connected to; 0 for a later fragment.
        client: where an answer by fullnat goes to: address and port.
        place: of the connection, for fullnat; None if it has none.
    """

    target: Target
    way: Way
    service_port: int = 0
    client: tuple[bytes, int] | None = None
    place: int | None = None


class Services:
    """The look-ups that a configuration stands for."""

    def __init__(self, world: World) -> None:
        self._single: dict[Server, Vip] = {}
        self._wide: dict[tuple[bytes, int], list[Vip]] = {}
        self._targets: dict[tuple[str, Endpoint], Target] = {}
        self._answering: dict[Server, Target] = {}
        self.addresses = frozenset(vip.service.address.packed for vip in world.config.vips)
        self.pool_sizes: dict[Server, int] = {}
        users = _users(world)
        for vip in world.config.vips:
            service = vip.service
            if service.is_single:
                self._single[service.address.packed, service.first_port, vip.protocol] = vip
            else:
                self._wide.setdefault((service.address.packed, vip.protocol), []).append(vip)
            for backend in vip.backends:
                target = _target(world, vip, backend.endpoint, users)
                self._targets[vip.name, backend.endpoint] = target
                if vip.mode.translates:
                    self._answering.setdefault(target.server, target)
                if target.by_connection:
                    self.pool_sizes[target.server] = max(vip.pool, self.pool_sizes.get(target.server, 0))
        for wide in self._wide.values():
            wide.sort(key=lambda vip: vip.service.breadth)

    def vip_at(self, address: bytes, port: int, protocol: int) -> Vip | None:
        """The narrowest VIP that takes what is sent there."""
        vip = self._single.get((address, port, protocol))
        if vip is not None:
            return vip
        for vip in self._wide.get((address, protocol), ()):
            if vip.service.first_port <= port <= vip.service.last_port:
                return vip
        return None

    def target(self, vip: Vip, endpoint: Endpoint) -> Target:
        """A backend of a VIP."""
        return self._targets[vip.name, endpoint]

    def answering(self, address: bytes, port: int, protocol: int) -> Target | None:
        """The backend whose answers come from there; of several VIPs', the first one's."""
        target = self._answering.get((address, port, protocol))
        if target is not None and port:
            return target
        target = self._answering.get((address, 0, protocol))  # one that keeps the port that the client chose
        if target is not None and target.vip.service.first_port <= port <= target.vip.service.last_port:
            return target
        return None


def _users(world: World) -> dict[tuple[Endpoint, int], set[str]]:
    """Which VIPs a server serves by nat."""
    users: dict[tuple[Endpoint, int], set[str]] = {}
    for vip in world.config.vips:
        for backend in vip.backends if vip.mode is Mode.NAT else ():
            users.setdefault((backend.endpoint, vip.protocol), set()).add(vip.name)
    return users


def _target(world: World, vip: Vip, endpoint: Endpoint, users: dict[tuple[Endpoint, int], set[str]]) -> Target:
    hop = world.next_hops.get(endpoint.address)
    chosen = vip.source_for(endpoint.address)
    sends = vip.mode.tunnels or vip.mode is Mode.FULLNAT
    if hop is not None and ((vip.mode is Mode.DSR and hop.routed) or (sends and chosen is None and hop.source is None)):
        hop = None
    source = chosen.network_address if chosen is not None else hop.source if hop is not None else None
    one_port_of_several = bool(endpoint.port) and not vip.service.is_single
    return Target(
        vip=vip,
        endpoint=endpoint,
        address=endpoint.address.packed,
        hop=hop,
        room=_room(world, vip.mode, endpoint.address, hop) if hop is not None else 0,
        source=source.packed if source is not None else b"",
        source_mask=int(chosen.hostmask) & 0xFFFFFFFF if chosen is not None else 0,
        shared=vip.mode is Mode.NAT and (one_port_of_several or len(users[endpoint, vip.protocol]) > 1),
    )


def _room(world: World, mode: Mode, address: IPAddress, hop: Hop) -> int:
    outer = (_IP_HEADER[address.version] if mode.tunnels else 0) + (8 if mode is Mode.GUE else 0)
    port = world.ports.get(hop.ifindex)
    return longest(hop, port.mtu if port is not None else 0xFFFF) - outer


def longest(hop: Hop, mtu: int) -> int:
    """The longest IP packet that a next hop on an interface of this MTU takes."""
    return min(hop.mtu or mtu, mtu, 0xFFFF)


def address_of(packed: bytes) -> IPAddress:
    """An address from its bytes."""
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
