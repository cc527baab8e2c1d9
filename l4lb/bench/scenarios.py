"""What is measured: configurations, and for each the kinds of packets that are sent through the program."""

from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address

from l4lb.bench.frames import ACK, SYN, tcp_frame, to_vips
from l4lb.datapath.layout import FEATURES, Features
from l4lb.lab.testbed import CLIENT, CLIENT6, LOOPBACK, Testbed, hop
from l4lb.model import Backend, Config, Endpoint, IPAddress, Mode, Protocol, Service, Vip

BACKEND_MAC = "02:00:00:00:00:04"
XDP_TX, XDP_PASS, XDP_REDIRECT = 3, 2, 4
ONE, SOME, MANY = 1, 1 << 14, 1 << 20
PORT, BACKEND_PORT = 80, 8080

_VIPS: dict[int, IPAddress] = {4: IPv4Address("192.168.0.0"), 6: IPv6Address("fd02::")}
_BACKENDS: dict[int, IPAddress] = {4: IPv4Address("10.2.0.1"), 6: IPv6Address("fd03::1")}
_STRANGERS: dict[int, IPAddress] = {4: IPv4Address("192.0.2.99"), 6: IPv6Address("2001:db8::99")}
_CLIENTS: dict[int, IPAddress] = {4: IPv4Address(CLIENT), 6: IPv6Address(CLIENT6)}
_FULLNAT_POOL = 4_096


@dataclass(frozen=True)
class Row:
    """One kind of packet and how many flows it is of.

    Attributes:
        kind: ``settled``, ``new`` (SYN to a settled slot), ``unsettled`` (of a flow with a record), ``begins`` (SYN to
            an unsettled slot), ``back`` (a backend's answer), ``no VIP``.
    """

    kind: str
    flows: int


@dataclass(frozen=True)
class Scenario:
    """A configuration.

    Attributes:
        mode: of all its VIPs.
        version: of IP, of VIPs and clients.
        backend_version: of IP, of the backends.
        vips: how many.
        backends: how many for each VIP.
        extra: switches that are not due to the configuration.
    """

    name: str
    mode: Mode
    version: int
    rows: tuple[Row, ...]
    backend_version: int = 0
    vips: int = 1
    backends: int = 100
    extra: Features = frozenset()

    @property
    def features(self) -> Features:
        """What the program is compiled with: what a gateway with this configuration has."""
        ipv6 = {"IPV6"} if 6 in (self.version, self.backend_version) else set()
        return frozenset({self.mode.name, *ipv6}) | self.extra

    @cached_property
    def addresses(self) -> list[IPAddress]:
        """The VIPs'."""
        return [_VIPS[self.version] + number for number in range(1, self.vips + 1)]

    def config(self, turn: int | None = None) -> Config:
        """With all backends at equal weights; with a turn, 0 or 1, only every other one gets flows."""
        port = BACKEND_PORT if self.mode.translates else PORT
        base = _BACKENDS[self.backend_version or self.version]
        weights = [1 if turn is None else int(number % 2 == turn) for number in range(self.backends)]
        vips = []
        for number, address in enumerate(self.addresses):
            backends = (
                Backend(Endpoint(base + number * self.backends + place, port), weight)
                for place, weight in enumerate(weights)
            )
            service = Service(address, PORT, PORT, Protocol.TCP)
            vips.append(Vip(f"v{number}", service, self.mode, backends=tuple(backends), pool=_FULLNAT_POOL))
        return Config(tuple(vips))

    def configure(self, bed: Testbed, turn: int | None = None) -> None:
        """Makes the maps hold it."""
        config = self.config(turn)
        next_hop = hop(LOOPBACK, BACKEND_MAC, version=self.backend_version or self.version)
        addresses = {backend.endpoint.address for vip in config.vips for backend in vip.backends}
        bed.configure(config, dict.fromkeys(addresses, next_hop))

    def frames(self, row: Row, order: int = 3) -> bytes:
        """One frame of each flow."""
        match row.kind:
            case "settled" | "unsettled":
                return to_vips(row.flows, self.addresses, PORT, ACK, order)
            case "new" | "begins":
                return to_vips(row.flows, self.addresses, PORT, SYN, order)
            case "back":
                backends = self.config().vips[0].backends
                client = _CLIENTS[self.version]
                return b"".join(
                    tcp_frame(backends[number % len(backends)].endpoint, Endpoint(client, 1024 + number))
                    for number in range(row.flows)
                )
            case _:
                return to_vips(row.flows, [_STRANGERS[self.version]], PORT, ACK, order)

    def verdict(self, row: Row) -> int:
        """What the program has to answer."""
        return XDP_PASS if row.kind == "no VIP" else XDP_REDIRECT if row.kind == "back" else XDP_TX


def _rows(*kinds: str, flows: tuple[int, ...] = (ONE, SOME, MANY)) -> tuple[Row, ...]:
    return tuple(Row(kind, count) for kind in kinds for count in flows)


TUNNEL_ROWS = _rows("settled", "new", "unsettled", "begins", "no VIP")


def scenarios() -> list[Scenario]:
    """All that ``scripts/bench packet`` measures."""
    found = [Scenario("ipip", Mode.IPIP, version, TUNNEL_ROWS) for version in (4, 6)]
    found += [Scenario("ipip IPv6 in IPv4", Mode.IPIP, 6, _rows("settled"), backend_version=4)]
    found += [Scenario("gue", Mode.GUE, version, _rows("settled", "new")) for version in (4, 6)]
    found += [Scenario("dsr", Mode.DSR, version, _rows("settled", "new")) for version in (4, 6)]
    for version in (4, 6):
        back = _rows("back", flows=(ONE, SOME))
        found.append(Scenario("nat", Mode.NAT, version, _rows("settled", "new") + back))
        found.append(Scenario("fullnat", Mode.FULLNAT, version, _rows("settled", flows=(ONE, SOME))))
    for vips, backends in ((1_000, 10), (10_000, 2)):
        found += [
            Scenario(
                f"ipip, {vips:,} VIPs", Mode.IPIP, version, _rows("settled", "no VIP"), vips=vips, backends=backends
            )
            for version in (4, 6)
        ]
    everything = frozenset(FEATURES)
    found.append(Scenario("ipip, all compiled in", Mode.IPIP, 4, _rows("settled", "no VIP"), extra=everything))
    found.append(Scenario("ipip, LRU of flows", Mode.IPIP, 4, _rows("settled", "new"), extra=frozenset({"LRU"})))
    return found
