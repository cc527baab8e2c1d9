"""What surrounds a packet: configuration, interfaces, next hops, routes; and what becomes of it."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from l4lb.balance.flowhash import Constants
from l4lb.datapath.layout import features_of
from l4lb.model import Config, Endpoint, IPAddress, Protocol, Vip

Way = Literal["to_vip", "from_backend"]
Verdict = Literal["pass", "drop", "tx", "redirect"]

_MONOTONIC_COARSE = 6  # uapi/linux/time.h; Python has no name for it


class Port(NamedTuple):
    """An interface of the gateway's.

    Attributes:
        parent: index of the interface that the program runs on; its own if it is no VLAN.
        tags: its VLAN tags, outermost first: numbers, plus ``l4lb.datapath.links.TAG_8021AD``.
    """

    mac: bytes
    mtu: int
    parent: int
    tags: tuple[int, ...] = ()


class Hop(NamedTuple):
    """A next hop.

    Attributes:
        mtu: of the route, in bytes; 0: the interface's.
        source: the gateway's address that the kernel would send from.
        routed: whether it is a router.
    """

    ifindex: int
    mac: bytes
    mtu: int = 0
    source: IPAddress | None = None
    routed: bool = False


def _always() -> bool:
    return True


def _ticks() -> int:
    return time.clock_gettime_ns(_MONOTONIC_COARSE) >> 30


@dataclass(frozen=True)
class World:
    """All that the program knows beside the packet.

    Attributes:
        config: VIPs in the order in which they were made: of several with one server, the first answers where nothing
            is known.
        ports: by interface index.
        next_hops: by backend address; a backend without is not resolved.
        route: the way back to a client, or the reason why there is none: ``pass_resolve_neighbour``, ``pass_local``,
            ``drop_no_route``.
        choose: what the VIP's scheduler gives a packet: (VIP, client, service port, protocol, whether a flow may begin
            with it: a SYN without ACK, or a datagram).
        flow_hash64: of a client and a service port.
        features: those of ``l4lb.datapath.layout.FEATURES`` that are compiled in; None: what `config` needs.
        forwarding: whether the kernel's is on.
        may_answer: whether the limit on answers to what is too long lets another one through.
        now: ticks of 2**30 ns.
        fragment_lines: of the program's table of fragments; 0: it never forgets for want of room.
        constants: of the flow hash; needed for fullnat, and with `fragment_lines`.
        numbers: of the VIPs in the maps, by name; None: in the order of `config`.
    """

    config: Config
    ports: Mapping[int, Port]
    next_hops: Mapping[IPAddress, Hop]
    route: Callable[[IPAddress], Hop | str]
    choose: Callable[[Vip, Endpoint, int, Protocol, bool], Endpoint | None]
    flow_hash64: Callable[[Endpoint, int], int]
    echo: bool = True
    features: Collection[str] | None = None
    forwarding: bool = True
    may_answer: Callable[[], bool] = _always
    now: Callable[[], int] = _ticks
    fragment_lines: int = 0
    constants: Constants = (0, 1, 1, 1)
    numbers: Mapping[str, int] | None = None

    @property
    def switches(self) -> Collection[str]:
        """What is compiled in."""
        if self.features is not None:
            return self.features
        return features_of(self.config, vlans=any(port.tags for port in self.ports.values()))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a packet.

    Attributes:
        reason: by its name in ``enum reason``, in lower case; None: forwarded, and counted by VIP and backend.
        frame: as it leaves; as it came where it is dropped.
        backend, vip, way: on whose account it is forwarded.
        egress: index of the interface that it leaves by, of those that the program runs on.
    """

    verdict: Verdict
    reason: str | None
    frame: bytes
    backend: Endpoint | None = None
    vip: str | None = None
    way: Way | None = None
    egress: int | None = None


def ended(reason: str, frame: bytes, ingress: int | None = None) -> Outcome:
    """A packet that is not forwarded; an answer leaves by where the question came in."""
    kind = reason.partition("_")[0]
    if kind == "answer":
        return Outcome("tx", reason, frame, egress=ingress)
    return Outcome("pass" if kind == "pass" else "drop", reason, frame)
