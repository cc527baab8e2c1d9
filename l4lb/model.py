"""What the operator wants: virtual IPs and their backends, as immutable values.

The rules that every set of them obeys are in :mod:`l4lb.rules`.
"""

import enum
import re
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Self

from l4lb.errors import UsageError
from l4lb.health.check import Check
from l4lb.health.rules import HealthRules, VipRules
from l4lb.ports import MAX_PORT

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

MAX_WEIGHT = 65_535
MAX_PRIORITY = 15
MAX_SEED = 2**64 - 1
MAX_IDLE_TIMEOUT = 7 * 24 * 3600
GUE_PORT = 6080  # IANA's for GUE
POOL_SIZES = tuple(2**power for power in range(8, 17))
POOL = 4_096  # where nothing else is said


class Protocol(enum.IntEnum):
    """Transport protocols, by their numbers in an IP header."""

    TCP = 6
    UDP = 17

    @property
    def label(self) -> str:
        """As users write it."""
        return self.name.lower()

    @property
    def idle_timeout(self) -> int:
        """Seconds of silence after which a flow is forgotten, where nothing else is said."""
        return {Protocol.TCP: 300, Protocol.UDP: 60}[self]

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``tcp`` or ``udp``."""
        if text not in ("tcp", "udp"):
            raise UsageError(f"protocol {text!r} is not known", "use tcp or udp")
        return cls[text.upper()]


class Mode(enum.StrEnum):
    """How packets reach a backend.

    * ``nat``: the destination is rewritten to the backend, and its answers' source back; the gateway is its route.
    * ``fullnat``: the source is rewritten too, to the gateway's, so that answers need no route through it.
    * ``dsr``: only the MAC address is rewritten; the backend has the VIP on its loopback and answers directly.
    * ``ipip``: the packet is put into another IP packet, to the backend, which has the VIP and answers directly.
    * ``gue``: the same, inside UDP.
    """

    NAT = "nat"
    FULLNAT = "fullnat"
    DSR = "dsr"
    IPIP = "ipip"
    GUE = "gue"

    @property
    def translates(self) -> bool:
        """Whether addresses are rewritten, and so answers have to come back through the gateway."""
        return self in (Mode.NAT, Mode.FULLNAT)

    @property
    def tunnels(self) -> bool:
        """Whether packets get an outer header."""
        return self in (Mode.IPIP, Mode.GUE)


class Scheduler(enum.StrEnum):
    """How a flow's backend is chosen.

    * ``maglev``: by a hash of the flow, in proportion to the weights.
    * ``source-hash``: by a hash of the client's address, or of the network that it is in.
    * ``round-robin``: each new flow to the next backend, in proportion to the weights.
    * ``least-connections``: each new flow to the backend with the fewest open ones for its weight.
    * ``random``: by chance, in proportion to the weights.
    """

    MAGLEV = "maglev"
    SOURCE_HASH = "source-hash"
    ROUND_ROBIN = "round-robin"
    LEAST_CONNECTIONS = "least-connections"
    RANDOM = "random"

    @property
    def hashes(self) -> bool:
        """Whether the choice can be repeated; if not, each flow is recorded."""
        return self in (Scheduler.MAGLEV, Scheduler.SOURCE_HASH)


class Admin(enum.StrEnum):
    """What the operator wants of a backend; it outranks its health.

    * ``drain``: no new flows, the existing ones stay.
    * ``disabled``: no flows at all; the existing ones are released at once.
    """

    NONE = "none"
    DRAIN = "drain"
    DISABLED = "disabled"


class Via(enum.StrEnum):
    """How probes reach a backend.

    * ``direct``: at its own address.
    * ``dataplane``: at the VIP's, in the way that traffic takes, so that a backend without the VIP is seen down.
    """

    DIRECT = "direct"
    DATAPLANE = "dataplane"


def _order(address: IPAddress) -> tuple[int, int]:
    """A key to sort addresses of both families by, which have no order among them in Python."""
    return address.version, int(address)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port (host byte order); port 0 stands for the one that the client chose."""

    address: IPAddress
    port: int

    def __lt__(self, other: Self) -> bool:
        return (_order(self.address), self.port) < (_order(other.address), other.port)

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}" if self.port else host

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Self:
        """From ``10.0.0.1:80`` or ``[2001:db8::1]:80``; without ``:80`` if there is a default port.

        Raises:
            UsageError: it is neither.
        """
        address, port = _split(text)
        if port is None and default_port is None:
            raise UsageError(f"address {text!r} has no port", f"write it as in {cls(address, 80)}")
        return cls(address, _port(port) if port is not None else default_port or 0)


def _split(text: str) -> tuple[IPAddress, str | None]:
    """An address, and what stands behind its colon."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
    elif text.count(":") > 1:
        raise UsageError(
            f"address {text!r} is not unambiguous", "put an IPv6 address in brackets, as in [2001:db8::1]:80"
        )
    else:
        host, colon, rest = text.partition(":")
        port = rest if colon else None
    if "%" in host:
        raise UsageError(f"address {host!r} is valid on one link only", "leave out the % and what follows it")
    try:
        address = ip_address(host)
    except ValueError:
        raise UsageError(f"{host!r} is no IP address", "write it as in 192.0.2.10:80 or [2001:db8::1]:80") from None
    return address, port


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= MAX_PORT:
        raise UsageError(f"port {text!r} is not between 1 and {MAX_PORT}", "give the port that the service listens on")
    return int(text)


@dataclass(frozen=True, slots=True)
class Service:
    """What clients connect to: an address, the first and the last of its ports, and a protocol."""

    address: IPAddress
    first_port: int
    last_port: int
    protocol: Protocol

    def __str__(self) -> str:
        return f"{self.place}/{self.protocol.label}"

    @property
    def place(self) -> str:
        """Address and ports, as users write them."""
        return f"{Endpoint(self.address, 0)}:{self.ports}"

    @property
    def endpoint(self) -> Endpoint:
        """The address and the first port."""
        return Endpoint(self.address, self.first_port)

    @property
    def ports(self) -> str:
        """As users write them: ``80``, ``8000-8999`` or ``*``."""
        if (self.first_port, self.last_port) == (1, MAX_PORT):
            return "*"
        return str(self.first_port) if self.is_single else f"{self.first_port}-{self.last_port}"

    @property
    def is_single(self) -> bool:
        """Whether it is of one port only."""
        return self.first_port == self.last_port

    def takes(self, endpoint: Endpoint, protocol: Protocol) -> bool:
        """Whether a packet to `endpoint` is for it, unless a narrower one takes it."""
        return (self.address, self.protocol) == (endpoint.address, protocol) and (
            self.first_port <= endpoint.port <= self.last_port
        )

    @property
    def backend_port(self) -> int:
        """The port of backends that say none: the only one there is, or 0 for the one that the client chose."""
        return self.first_port if self.is_single else 0

    @property
    def breadth(self) -> tuple[int, int]:
        """Of those that take a packet, the one with the least gets it."""
        return self.last_port - self.first_port, -self.first_port

    @classmethod
    def parse(cls, text: str, protocol: Protocol) -> Self:
        """From ``192.0.2.1:80``, ``192.0.2.1:8000-8999`` or ``192.0.2.1:*``.

        Raises:
            UsageError: it is none of them.
        """
        address, ports = _split(text)
        if ports is None:
            raise UsageError(f"address {text!r} has no port", f"write it as in {Endpoint(address, 80)}, or :* for all")
        if ports == "*":
            return cls(address, 1, MAX_PORT, protocol)
        range_ = re.fullmatch(r"(\w+)-(\w+)", ports)
        first, last = range_.groups() if range_ else (ports, ports)
        service = cls(address, _port(first), _port(last), protocol)
        if service.last_port < service.first_port:
            raise UsageError(f"ports {ports} end before they begin", "write the lower one first")
        return service

    @classmethod
    def parse_whole(cls, text: str) -> Self:
        """From what :meth:`parse` takes, with ``/tcp`` or ``/udp`` behind it.

        Raises:
            UsageError: it is nothing of the kind.
        """
        place, slash, protocol = text.rpartition("/")
        if not slash:
            raise UsageError(f"VIP address {text!r} has no protocol", f"write it as in {text}/tcp or {text}/udp")
        return cls.parse(place, Protocol.parse(protocol))


@dataclass(frozen=True, slots=True)
class Backend:
    """A server behind a VIP. With weight 0 it gets no flows.

    Attributes:
        priority: its tier: 0 is the first; a lower one is used when too little of the one above is healthy.
        overrides: names and values of :class:`~l4lb.health.rules.HealthRules` that are not the VIP's.
    """

    endpoint: Endpoint
    weight: int = 1
    priority: int = 0
    admin: Admin = Admin.NONE
    overrides: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Vip:
    """A virtual IP: what clients connect to, and the backends that serve it.

    Attributes:
        idle_timeout: seconds that a flow may be silent and still keeps its backend when the backends change.
        sources: of outer headers, and of packets by fullnat; one network per family of the backends at most. Without
            one, the address by which the gateway reaches the backend.
        gue_port: UDP port that the backends take tunnelled packets at.
        mss: the largest segment in bytes that SYNs may announce; 0: any.
        client_prefix: how many bits of a client's address source-hash goes by; 0: all.
        pool: how many connections to each server fullnat has room for; a power of two.
        checks: what is looked for in each backend; all have to pass.
        via: how probes reach backends.
        passive: whether handshakes that backends leave unanswered make them suspected.
        health: how a backend is judged where it says nothing else.
        spread: how flows are spread by health.
    """

    name: str
    service: Service
    mode: Mode = Mode.NAT
    scheduler: Scheduler = Scheduler.MAGLEV
    backends: tuple[Backend, ...] = ()
    idle_timeout: int = 300
    sources: tuple[IPNetwork, ...] = ()
    gue_port: int = GUE_PORT
    mss: int = 0
    client_prefix: int = 0
    pool: int = POOL
    checks: tuple[Check, ...] = ()
    via: Via = Via.DIRECT
    passive: bool = False
    health: HealthRules = HealthRules()  # noqa: RUF009 - it does not change
    spread: VipRules = VipRules()  # noqa: RUF009 - nor does it

    @classmethod
    def bare(cls, name: str, service: Service) -> Self:
        """A VIP of which nothing else is said."""
        return cls(name, service, idle_timeout=service.protocol.idle_timeout)

    @property
    def protocol(self) -> Protocol:
        """The transport protocol."""
        return self.service.protocol

    def __str__(self) -> str:
        return str(self.service)

    def rules_for(self, backend: Backend) -> HealthRules:
        """How a backend is judged."""
        if not backend.overrides:
            return self.health  # of most, and asked for all the time
        return replace(self.health, **dict(backend.overrides))  # type: ignore[arg-type]

    def source_for(self, backend: IPAddress) -> IPNetwork | None:
        """Where packets to a backend come from, if that is configured."""
        return next((source for source in self.sources if source.version == backend.version), None)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that the operator decided. VIPs are in order of their names, backends of their endpoints.

    Attributes:
        seed: keys the tables and the flow hash; gateways with the same seed and VIPs choose the same backends.
    """

    vips: tuple[Vip, ...] = field(default=())
    seed: int = 0

    def vip_for(self, endpoint: Endpoint, protocol: Protocol) -> Vip | None:
        """The VIP that takes packets to `endpoint`: the narrowest."""
        taking = [vip for vip in self.vips if vip.service.takes(endpoint, protocol)]
        return min(taking, key=lambda vip: vip.service.breadth, default=None)
