"""What reading commands show: configuration and live figures as plain lists and dictionaries, whose keys are stable."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from l4lb import settings
from l4lb.changes import find_vip
from l4lb.model import Config, Endpoint, Vip

View = dict[str, object]

NO_TRANSMIT = (
    "{} takes no packets from other interfaces: its driver has no XDP transmit"
    " (a veth has it when GRO is on at its other end)"
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Packets and bytes (of whole frames), towards backends and back through this gateway."""

    packets: int = 0
    bytes: int = 0
    packets_back: int = 0
    bytes_back: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.packets + other.packets,
            self.bytes + other.bytes,
            self.packets_back + other.packets_back,
            self.bytes_back + other.bytes_back,
        )

    def view(self) -> View:
        """As it is shown."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Interface:
    """One of the gateway's; `xdp_transmit` tells whether its driver takes packets from others, None if unknown."""

    name: str
    xdp_mode: str
    xdp_transmit: bool | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """What changes by itself.

    Attributes:
        health: by VIP name and backend, as :func:`l4lb.health.report.in_short` has it.
        verdicts: by VIP name, whether it can take flows, and why not.
        traffic: by VIP name and backend.
        retired: by VIP name, what backends carried that are gone.
        next_hops: for a reader, by VIP name and backend.
        open_connections: by VIP name and backend, where the scheduler counts them.
        settling: VIPs of which flows may still be at other backends than their slots'.
        flows: what happened to records of flows.
        reasons: packets by the names of their fates.
    """

    version: str
    uptime_seconds: float
    health: Mapping[tuple[str, Endpoint], View]
    verdicts: Mapping[str, View]
    interfaces: tuple[Interface, ...] = ()
    traffic: Mapping[tuple[str, Endpoint], Traffic] = field(default_factory=dict)
    retired: Mapping[str, Traffic] = field(default_factory=dict)
    next_hops: Mapping[tuple[str, Endpoint], str] = field(default_factory=dict)
    open_connections: Mapping[tuple[str, Endpoint], int] = field(default_factory=dict)
    settling: frozenset[str] = frozenset()
    flows: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)


def status_view(config: Config, live: Live) -> View:
    """Everything."""
    return {
        "version": live.version,
        "uptime_seconds": round(live.uptime_seconds, 3),
        "interfaces": [asdict(interface) for interface in live.interfaces],
        "vips": vip_list_view(config, live),
        "flows": dict(live.flows),
        "reasons": dict(live.reasons),
    }


def vip_list_view(config: Config, live: Live) -> list[View]:
    """All VIPs with their backends."""
    return [_vip_view(vip, live) for vip in config.vips]


def backend_list_view(config: Config, live: Live, name: str) -> list[View]:
    """The backends of one VIP."""
    return _backend_views(find_vip(config, name), live)


def explain_view(vip: Vip, backend: Endpoint | None, why: str, next_hop: str | None) -> View:
    """What becomes of a packet for a VIP."""
    return {"vip": vip.name, "backend": str(backend) if backend else None, "why": str(why), "next_hop": next_hop}


def _vip_view(vip: Vip, live: Live) -> View:
    total = live.retired.get(vip.name, Traffic())
    for backend in vip.backends:
        total += live.traffic.get((vip.name, backend.endpoint), Traffic())
    return {
        "name": vip.name,
        "address": str(vip.service.address),
        "port": vip.service.first_port,
        **({} if vip.service.is_single else {"last_port": vip.service.last_port}),
        "protocol": vip.protocol.label,
        **settings.plain(vip),
        "settling": vip.name in live.settling,
        **live.verdicts[vip.name],
        **total.view(),
        "backends": _backend_views(vip, live),
    }


def _backend_views(vip: Vip, live: Live) -> list[View]:
    return [
        {
            "address": str(backend.endpoint.address),
            "port": backend.endpoint.port or None,  # None: the one that the client chose
            **settings.plain_backend(backend),
            **live.health[key],
            "next_hop": live.next_hops.get(key, "unresolved"),
            **({"open_connections": live.open_connections[key]} if key in live.open_connections else {}),
            **live.traffic.get(key, Traffic()).view(),
        }
        for backend in vip.backends
        for key in ((vip.name, backend.endpoint),)
    ]
