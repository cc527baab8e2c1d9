"""The configurations that packets are sent to, by number: what the operator wants, and what surrounds it."""

from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any

from l4lb.datapath.layout import EXTRAS, FEATURES, MODES, Features
from l4lb.health.rules import NoneLeft, VipRules
from l4lb.lab.testbed import SOURCES
from l4lb.model import Backend, Endpoint, IPAddress, Mode, Protocol, Scheduler, Service, Vip
from l4lb.plan.limits import Limits
from tests.packet.harness import LIMITS

TCP, UDP = Protocol.TCP, Protocol.UDP
REJECT = VipRules(none_left=NoneLeft.REJECT)
EVERYTHING: Features = frozenset(FEATURES)

_TUNNEL_SOURCES = (ip_network("198.18.0.0/24"), ip_network("fd09::/96"))
_MSS = 1_200


@dataclass(frozen=True)
class World:
    """One of them.

    Attributes:
        features: what the program is compiled with.
        vips: in order of their names.
        before: what was configured before them; flows may still be where that had them.
        lost: backends that are not resolved.
        small: backends behind a route of 1,300 bytes.
        routed: backends behind a router.
        leaves_by: "wan", "vlan", "stacked" or "nowhere", by backend; the others are where packets come in.
        forwarding: whether the kernel's is on.
        client_ports: how many ports clients have, 0 for a handful.
    """

    name: str
    features: Features
    vips: tuple[Vip, ...]
    before: tuple[Vip, ...] = ()
    lost: frozenset[IPAddress] = frozenset()
    small: frozenset[IPAddress] = frozenset()
    routed: frozenset[IPAddress] = frozenset()
    leaves_by: dict[IPAddress, str] = field(default_factory=dict)
    forwarding: bool = True
    client_ports: int = 0
    limits: Limits = LIMITS

    def gateway(self, version: int) -> IPAddress:
        """The address that it sends from, of an IP version."""
        return SOURCES[version]


def _vip(
    name: str,
    service: str,
    mode: Mode,
    *backends: str,
    protocol: Protocol = TCP,
    weights: tuple[int, ...] = (),
    **more: Any,
) -> Vip:
    """From texts; a backend without a port has the VIP's, or keeps the one that the client chose."""
    wanted = Service.parse(service, protocol)
    port = wanted.first_port if wanted.is_single else 0
    endpoints = [Endpoint.parse(text, port) for text in backends]
    members = tuple(map(Backend, endpoints, weights or (1,) * len(endpoints)))
    sources = tuple(map(ip_network, more.pop("sources", ())))
    return replace(Vip(name, wanted, mode), backends=members, sources=sources, **more)


def _sorted(*vips: Vip) -> tuple[Vip, ...]:
    return tuple(sorted(vips, key=lambda vip: vip.name))


def _addresses(*texts: str) -> frozenset[IPAddress]:
    return frozenset(map(ip_address, texts))


def _every_mode() -> World:
    """All modes, families and protocols; every other one sends from a network of its own."""
    vips = []
    combinations = [
        (protocol, mode, version, outer)
        for protocol in Protocol
        for mode in Mode
        for version in (4, 6)
        for outer in (4, 6)
        if outer == version or mode.tunnels
    ]
    for number, (protocol, mode, version, outer) in enumerate(combinations, start=0x10):
        address = ip_address("192.0.2.0" if version == 4 else "2001:db8::") + number
        servers = [ip_address("10.2.0.0" if outer == 4 else "fd02::") + number + 64 * n for n in range(2)]
        port = 8_000 + number if mode.translates else 80
        vips.append(
            replace(
                Vip(f"{mode}-{version}in{outer}-{protocol.label}", Service(address, 80, 80, protocol), mode),
                backends=tuple(Backend(Endpoint(server, port)) for server in servers),
                sources=_TUNNEL_SOURCES if mode.tunnels and number % 2 else (),
                pool=256,
                mss=_MSS if protocol is TCP and number % 3 else 0,
            )
        )
    return World("every mode", EVERYTHING, _sorted(*vips))


def _servers() -> World:
    """Ranges of ports, servers of several VIPs, and servers that cannot be reached as they ought to."""
    nat, dsr, ipip, gue, fullnat = Mode.NAT, Mode.DSR, Mode.IPIP, Mode.GUE, Mode.FULLNAT
    vips = _sorted(
        _vip("wide", "192.0.2.100:8000-8999", nat, "10.2.0.100"),
        _vip("narrower", "192.0.2.100:8500-8600", gue, "10.2.0.101", sources=("198.18.0.0/24",)),
        _vip("one", "192.0.2.100:8550", nat, "10.2.0.102:80"),
        _vip("all", "[2001:db8::100]:*", fullnat, "[fd02::101]", protocol=UDP, pool=256),
        _vip("all-tcp", "[2001:db8::100]:*", nat, "[fd02::102]", protocol=TCP),
        _vip("merged", "192.0.2.105:100-200", nat, "10.2.0.105:80", pool=256),
        _vip("merged6", "[2001:db8::105]:100-200", nat, "[fd02::105]:80", protocol=UDP, pool=256),
        _vip("fullmerged", "192.0.2.106:100-200", fullnat, "10.2.0.106:80", pool=256, mss=_MSS),
        _vip("shared-a", "192.0.2.110:80", nat, "10.2.0.110:80", pool=256),
        _vip("shared-b", "192.0.2.111:80", nat, "10.2.0.110:80", pool=256),
        _vip("shared-c", "[2001:db8::110]:53", nat, "[fd02::110]:53", protocol=UDP, pool=256),
        _vip("shared-d", "[2001:db8::111]:53", nat, "[fd02::110]:53", protocol=UDP, pool=512, idle_timeout=5),
        _vip("full-a", "192.0.2.112:53", fullnat, "10.2.0.112:53", protocol=UDP, pool=256),
        _vip("full-b", "192.0.2.113:53", fullnat, "10.2.0.112:53", protocol=UDP, pool=256, idle_timeout=3),
        _vip("empty", "192.0.2.120:80", nat),
        _vip("refusing", "192.0.2.131:80", nat, spread=REJECT),
        _vip("refusing-udp", "192.0.2.131:53", ipip, "10.2.0.131", weights=(0,), protocol=UDP, spread=REJECT),
        _vip("refusing6", "[2001:db8::131]:80-99", dsr, spread=REJECT),
        _vip("refusing6-udp", "[2001:db8::131]:53", nat, protocol=UDP, spread=REJECT),
        _vip("weightless", "192.0.2.119:80", nat, "10.2.0.119:80", weights=(0,)),
        _vip("lost", "192.0.2.121:80", nat, "10.2.0.121:80"),
        _vip("small", "192.0.2.122:80", nat, "10.2.0.122:80"),
        _vip("small-dsr", "[2001:db8::121]:80", dsr, "[fd02::121]:80"),
        _vip("small-fullnat", "192.0.2.126:53", fullnat, "10.2.0.126:53", protocol=UDP, pool=256),
        _vip("small-ipip", "[2001:db8::122]:80", ipip, "[fd02::122]:80", mss=_MSS),
        _vip("tagged", "192.0.2.123:80", nat, "10.2.0.123:80"),
        _vip("stacked", "192.0.2.124:80", ipip, "10.2.0.124:80"),
        _vip("stacked6", "[2001:db8::124]:53", gue, "[fd02::124]:53", protocol=UDP),
        _vip("tagged-dsr", "192.0.2.127:80", dsr, "10.2.0.127"),
        _vip("astray", "192.0.2.125:80", nat, "10.2.0.125:80"),
        _vip("routed-dsr", "192.0.2.128:80", dsr, "10.2.0.128"),
        _vip("routed", "192.0.2.129:53", ipip, "10.2.0.129", protocol=UDP),
        _vip("elsewhere", "192.0.2.130:80", gue, "10.2.0.130", gue_port=7_000),
        _vip("elsewhere6", "[2001:db8::130]:80", nat, "[fd02::130]:8080"),
    )  # fmt: skip
    leaves_by = {
        "10.2.0.123": "vlan",
        "10.2.0.124": "stacked",
        "fd02::124": "stacked",
        "10.2.0.127": "vlan",
        "10.2.0.125": "nowhere",
        "10.2.0.130": "wan",
        "fd02::130": "wan",
    }
    return World(
        "servers",
        EVERYTHING,
        vips,
        lost=_addresses("10.2.0.121"),
        small=_addresses("10.2.0.122", "10.2.0.126", "fd02::121", "fd02::122"),
        routed=_addresses("10.2.0.128", "10.2.0.129"),
        leaves_by={ip_address(text): way for text, way in leaves_by.items()},
    )


def _schedulers() -> World:
    """Each of them, with servers of different weights, one of them 0; by modes that need a connection, and others."""
    vips = []
    for number, scheduler in enumerate(Scheduler):
        more: dict[str, Any] = {"scheduler": scheduler, "weights": (1, 3, 0)}
        hashed = scheduler is Scheduler.SOURCE_HASH
        servers = [f"10.2.{number}.{n}:8080" for n in range(1, 4)]
        servers6 = [f"[fd02::{number}:{n}]:5353" for n in range(1, 4)]
        vips += [
            _vip(f"nat-{scheduler}", f"192.0.2.{10 + number}:80", Mode.NAT, *servers,
                 client_prefix=24 * hashed, **more),
            _vip(f"gue-{scheduler}", f"192.0.2.{30 + number}:100-120", Mode.GUE,
                 *(f"[fd02:1::{number}:{n}]" for n in range(3)), **more),
            _vip(f"fullnat-{scheduler}", f"[2001:db8::{10 + number}]:53", Mode.FULLNAT, *servers6, protocol=UDP,
                 client_prefix=64 * hashed, pool=256, **more),
            _vip(f"dsr-{scheduler}", f"[2001:db8::{30 + number}]:80", Mode.DSR,
                 *(f"[fd02:2::{number}:{n}]" for n in range(3)), **more),
        ]  # fmt: skip
    return World("schedulers", EVERYTHING, _sorted(*vips), client_ports=40)


def _changed() -> World:
    """Servers have come and gone while flows were open: some slots are unsettled."""
    before, after = [], []
    for number, (mode, scheduler) in enumerate(
        [
            (Mode.NAT, Scheduler.MAGLEV),
            (Mode.FULLNAT, Scheduler.MAGLEV),
            (Mode.IPIP, Scheduler.SOURCE_HASH),
            (Mode.GUE, Scheduler.MAGLEV),
            (Mode.DSR, Scheduler.ROUND_ROBIN),
        ]
    ):
        for protocol in Protocol:
            for version in (4, 6):
                place = 4 * number + 2 * (version == 6) + (protocol is UDP)
                service = f"192.0.2.{10 + place}:80" if version == 4 else f"[2001:db8::{10 + place}]:80"
                servers = [f"10.2.{place}.{n}" if version == 4 else f"[fd02::{place}:{n}]" for n in range(1, 5)]
                name = f"{mode}{version}-{protocol.label}"
                more: dict[str, Any] = {"protocol": protocol, "scheduler": scheduler, "pool": 256}
                before.append(_vip(name, service, mode, *servers[:3], **more))
                after.append(_vip(name, service, mode, *servers, weights=(1, 0, 2, 1), **more))
    return World("changed", EVERYTHING, _sorted(*after), before=_sorted(*before), client_ports=40)


def _crowded() -> World:
    """More clients than there are places for."""
    vips = _sorted(
        _vip("full", "192.0.2.10:53", Mode.FULLNAT, "10.2.0.10:53", protocol=UDP, pool=256),
        _vip("full6", "[2001:db8::10]:80", Mode.FULLNAT, "[fd02::10]:80", pool=256),
        _vip("shared-a", "192.0.2.11:80", Mode.NAT, "10.2.0.11:80", pool=256),
        _vip("shared-b", "192.0.2.12:80", Mode.NAT, "10.2.0.11:80", pool=256),
    )
    return World("crowded", EVERYTHING, vips, client_ports=300)


def _nat_only() -> World:
    """What is not configured is left out: no IPv6, no VLANs, no pings."""
    vips = _sorted(
        _vip("tcp", "192.0.2.10:80", Mode.NAT, "10.2.0.10:8080", "10.2.0.11:8080"),
        _vip("udp", "192.0.2.10:53", Mode.NAT, "10.2.0.10:53", protocol=UDP),
    )
    return World("nat only", frozenset({"NAT"}), vips)


def _not_forwarding() -> World:
    """The same, on a machine that is no router."""
    return replace(_nat_only(), name="not forwarding", forwarding=False)


def _tunnels_only() -> World:
    vips = _sorted(
        _vip("ipip", "192.0.2.10:80", Mode.IPIP, "10.2.0.10", "[fd02::10]"),
        _vip("ipip6", "[2001:db8::10]:80", Mode.IPIP, "10.2.0.11", "[fd02::11]", sources=_TUNNEL_SOURCES),
        _vip("gue", "192.0.2.11:53", Mode.GUE, "10.2.0.12", "[fd02::12]", protocol=UDP),
        _vip("gue6", "[2001:db8::11]:53", Mode.GUE, "[fd02::13]", protocol=UDP, sources=_TUNNEL_SOURCES),
    )
    return World("tunnels only", frozenset({"IPIP", "GUE", "IPV6"}), vips)


def _pools() -> World:
    """Fullnat from several addresses, beside nat, without any other feature but what is seldom together with it."""
    sources = ("198.18.0.2/31", "fd09::2/127")
    vips = _sorted(
        _vip("full", "192.0.2.10:80", Mode.FULLNAT, "10.2.0.10:80", sources=sources, pool=32_768),
        _vip("full6", "[2001:db8::10]:53", Mode.FULLNAT, "[fd02::10]:53", protocol=UDP, sources=sources, pool=32_768),
        _vip("full-b", "192.0.2.11:80", Mode.FULLNAT, "10.2.0.10:80", sources=sources, pool=32_768),
        _vip("nat6", "[2001:db8::11]:80", Mode.NAT, "[fd02::11]:80"),
    )
    limits = replace(LIMITS, max_connections=131_072)
    return World("pools", frozenset({*MODES, "IPV6", "VLAN"}), vips, limits=limits)


def _dsr_only() -> World:
    vips = _sorted(
        _vip("all", "192.0.2.10:*", Mode.DSR, "10.2.0.10", "10.2.0.11", scheduler=Scheduler.RANDOM),
        _vip("one", "192.0.2.10:80", Mode.DSR, "10.2.0.12", mss=_MSS),
        _vip("udp", "192.0.2.10:53", Mode.DSR, "10.2.0.12", protocol=UDP),
    )
    return World("dsr only", frozenset({"DSR", *EXTRAS}), vips)


# The first ones have the program with everything in it; those of one program follow each other.
WORLDS = (
    *(_every_mode(), _servers(), _schedulers(), _changed(), _crowded()),
    *(_nat_only(), _not_forwarding(), _tunnels_only(), _pools(), _dsr_only()),
)
