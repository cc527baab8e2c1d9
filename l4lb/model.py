"""What the operator wants: virtual IPs, their backends, and the rules that every set of them obeys.

The values are immutable. The command line, the wire and the state file all come to the same checks here.
"""

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Self

from l4lb.errors import UsageError

IPAddress = IPv4Address | IPv6Address

MAX_WEIGHT = 65_535
MAX_BACKENDS = 1_024  # per VIP: with 65,537 slots, shares stay within 2 % of their weights
MAX_SEED = 2**64 - 1
MAX_IDLE_TIMEOUT = 7 * 24 * 3600

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


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
    * ``dsr``: only the MAC address is rewritten; the backend has the VIP on its loopback and answers directly.
    """

    NAT = "nat"
    DSR = "dsr"


class Scheduler(enum.StrEnum):
    """How a flow's backend is chosen."""

    MAGLEV = "maglev"


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """An address and a port (host byte order)."""

    address: IPAddress
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Self:
        """From ``10.0.0.1:80`` or ``[2001:db8::1]:80``; without ``:80`` if there is a default port.

        Raises:
            UsageError: it is neither.
        """
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
        try:
            address = ip_address(host)
        except ValueError:
            raise UsageError(f"{host!r} is no IP address", "write it as in 192.0.2.10:80 or [2001:db8::1]:80") from None
        if port is None and default_port is None:
            raise UsageError(f"address {text!r} has no port", f"write it as in {cls(address, 80)}")
        return cls(address, _port(port) if port is not None else default_port or 0)


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= 65_535:
        raise UsageError(f"port {text!r} is not between 1 and 65535", "give the port that the service listens on")
    return int(text)


@dataclass(frozen=True, slots=True)
class Backend:
    """A server behind a VIP. With weight 0 it gets no flows."""

    endpoint: Endpoint
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Vip:
    """A virtual IP: an address, port and protocol that clients use, and the backends that serve it.

    Attributes:
        idle_timeout: seconds that a flow may be silent and still keeps its backend when the backends change.
    """

    name: str
    endpoint: Endpoint
    protocol: Protocol
    mode: Mode = Mode.NAT
    scheduler: Scheduler = Scheduler.MAGLEV
    backends: tuple[Backend, ...] = ()
    idle_timeout: int = 300

    def __str__(self) -> str:
        return f"{self.endpoint}/{self.protocol.label}"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that the operator decided. VIPs are in order of their names, backends of their endpoints.

    Attributes:
        seed: keys the tables and the flow hash; gateways with the same seed and VIPs choose the same backends.
    """

    vips: tuple[Vip, ...] = field(default=())
    seed: int = 0


def check(config: Config) -> None:
    """Makes sure that a configuration obeys the rules.

    Raises:
        UsageError: the first rule that it breaks.
    """
    for problem in problems(config):
        raise problem


def problems(config: Config) -> Iterator[UsageError]:
    """Every rule that a configuration breaks."""
    if not 0 <= config.seed <= MAX_SEED:
        yield UsageError(f"seed {config.seed} does not fit into 64 bits", f"use 0 to {MAX_SEED}")
    names: set[str] = set()
    listening: dict[tuple[Endpoint, Protocol], Vip] = {}
    answering: dict[tuple[Endpoint, Protocol], Vip] = {}
    for vip in config.vips:
        if not _NAME.fullmatch(vip.name):
            yield UsageError(
                f"VIP name {vip.name!r} is not allowed",
                "use up to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first",
            )
        if vip.name in names:
            yield UsageError(
                f"VIP {vip.name} exists already", f"choose another name, or change it with `l4lb vip set {vip.name}`"
            )
        names.add(vip.name)
        yield from _address_problems("VIP", vip.endpoint.address)
        if not 1 <= vip.idle_timeout <= MAX_IDLE_TIMEOUT:
            yield UsageError(
                f"idle timeout {vip.idle_timeout} of VIP {vip.name} is not between 1 and {MAX_IDLE_TIMEOUT} seconds",
                "leave it out where nothing is known of the service",
            )
        other = listening.setdefault((vip.endpoint, vip.protocol), vip)
        if other is not vip:
            yield UsageError(
                f"VIPs {other.name} and {vip.name} would have the same address {vip}",
                "choose another address, port or protocol",
            )
        yield from _backend_problems(vip)
    for vip in config.vips:
        for backend in vip.backends if vip.mode is Mode.NAT else ():
            served = answering.setdefault((backend.endpoint, vip.protocol), vip)
            if served is not vip:
                yield UsageError(
                    f"backend {backend.endpoint}/{vip.protocol.label} would serve VIPs {served.name} and {vip.name}"
                    " by nat",
                    "answers are told apart by their source: use another port on the backend, or mode dsr",
                )
            if (backend.endpoint, vip.protocol) in listening:
                yield UsageError(
                    f"backend {backend.endpoint} of VIP {vip.name} is a VIP itself", "give the server's own address"
                )


def _backend_problems(vip: Vip) -> Iterator[UsageError]:
    if len(vip.backends) > MAX_BACKENDS:
        yield UsageError(f"VIP {vip.name} has more than {MAX_BACKENDS:,} backends", "spread them over several VIPs")
    seen: set[Endpoint] = set()
    for backend in vip.backends:
        if backend.endpoint in seen:
            yield UsageError(
                f"backend {backend.endpoint} of VIP {vip.name} exists already",
                f"change it with `l4lb backend set {vip.name} {backend.endpoint} --weight N`",
            )
        seen.add(backend.endpoint)
        yield from _address_problems("backend", backend.endpoint.address)
        if backend.endpoint.address == vip.endpoint.address:
            yield UsageError(
                f"backend {backend.endpoint} has the address of its VIP {vip.name}", "give the server's own address"
            )
        if vip.mode is Mode.DSR and backend.endpoint.port != vip.endpoint.port:
            yield UsageError(
                f"backend {backend.endpoint} of VIP {vip.name} has another port than the VIP",
                f"mode dsr keeps the port: use {vip.endpoint.port}, or mode nat",
            )
        if not 0 <= backend.weight <= MAX_WEIGHT:
            yield UsageError(
                f"weight {backend.weight} is not between 0 and {MAX_WEIGHT}", "use 0 for no flows, 1 for an equal share"
            )


def _address_problems(what: str, address: IPAddress) -> Iterator[UsageError]:
    if address.version == 6:
        yield UsageError(f"{what} address {address} is IPv6", "this version balances IPv4: give an IPv4 address")
    elif (
        address.is_unspecified
        or address.is_multicast
        or address.is_loopback
        or address == IPv4Address("255.255.255.255")
    ):
        yield UsageError(
            f"{what} address {address} is no address of a single host on the network", "give a unicast address"
        )
