"""The rules that every configuration obeys. The command line, the wire and the state file all come to them here."""

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address

from l4lb.errors import UsageError
from l4lb.health import rules as health
from l4lb.model import (
    MAX_IDLE_TIMEOUT,
    MAX_PRIORITY,
    MAX_SEED,
    MAX_WEIGHT,
    POOL_SIZES,
    Backend,
    Config,
    Endpoint,
    IPAddress,
    IPNetwork,
    Mode,
    Protocol,
    Scheduler,
    Service,
    Via,
    Vip,
)
from l4lb.ports import MAX_PORT

MAX_CHECKS = 8  # per VIP
DATAPLANE_KINDS = ("tcp", "udp")  # that can be made by way of the dataplane
MAX_BACKENDS = 1_024  # per VIP: with 65,537 slots, shares stay within 2 % of their weights
MSS_RANGE = (88, 65_495)  # what an IPv4 header leaves of 128 bytes, and of the longest packet
MAX_POOL_ADDRESSES = 64
POOL_PORTS = 16_384  # that fullnat sends from, per address: POOL_PORTS in bpf/abi.h

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

_Server = tuple[IPAddress, int, Protocol]  # where a backend answers from


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
    listening: dict[Service, Vip] = {}
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
        yield from address_problems("VIP", vip.service.address)
        yield from _option_problems(vip)
        other = listening.setdefault(vip.service, vip)
        if other is not vip:
            yield UsageError(
                f"VIPs {other.name} and {vip.name} would have the same address {vip}",
                "choose another address, port or protocol",
            )
        yield from _backend_problems(vip)
    yield from _answer_problems(config, listening)


def _option_problems(vip: Vip) -> Iterator[UsageError]:
    if not 1 <= vip.idle_timeout <= MAX_IDLE_TIMEOUT:
        yield UsageError(
            f"idle timeout {vip.idle_timeout} of VIP {vip.name} is not between 1 and {MAX_IDLE_TIMEOUT} seconds",
            "leave it out where nothing is known of the service",
        )
    if not 1 <= vip.gue_port <= MAX_PORT:
        yield UsageError(
            f"GUE port {vip.gue_port} of VIP {vip.name} is not between 1 and {MAX_PORT}", "leave it out for 6080"
        )
    if vip.mss and not MSS_RANGE[0] <= vip.mss <= MSS_RANGE[1]:
        yield UsageError(
            f"MSS {vip.mss} of VIP {vip.name} is not between {MSS_RANGE[0]} and {MSS_RANGE[1]} bytes",
            "use 0 to leave SYNs as they are",
        )
    if vip.mss and vip.protocol is not Protocol.TCP:
        yield UsageError(f"VIP {vip.name} is no TCP service, and has no MSS", "leave --mss out or set it to 0")
    bits = vip.service.address.max_prefixlen
    if not 0 <= vip.client_prefix <= bits:
        yield UsageError(
            f"client prefix {vip.client_prefix} of VIP {vip.name} is not between 1 and {bits} bits",
            f"use {24 if bits == 32 else 64} for a usual network, 0 for whole addresses",
        )
    if vip.client_prefix and vip.scheduler is not Scheduler.SOURCE_HASH:
        yield UsageError(
            f"VIP {vip.name} goes by no client prefix, as its scheduler is {vip.scheduler}",
            "leave --client-prefix out or set it to 0, or use --scheduler source-hash",
        )
    if vip.pool not in POOL_SIZES:
        yield UsageError(
            f"pool {vip.pool} of VIP {vip.name} is no power of two between {POOL_SIZES[0]} and {POOL_SIZES[-1]:,}",
            "use 4096, or more for servers with more connections at once",
        )
    yield from _source_problems(vip)
    yield from _health_problems(vip)


def _health_problems(vip: Vip) -> Iterator[UsageError]:
    for problem in (*health.problems(vip.health), *health.vip_problems(vip.spread)):
        yield UsageError(f"VIP {vip.name}: {problem.message}", problem.hint)
    if len(vip.checks) > MAX_CHECKS:
        yield UsageError(
            f"VIP {vip.name} has more than {MAX_CHECKS} checks", "use an exec check for what belongs together"
        )
    if len(set(vip.checks)) < len(vip.checks):
        yield UsageError(f"VIP {vip.name} has a check twice", "leave one of them out")
    if vip.via is Via.DATAPLANE and vip.mode.translates:
        yield UsageError(
            f"mode {vip.mode} of VIP {vip.name} has no way of its own to a backend that a probe could take",
            "use --via direct, or mode dsr, ipip or gue",
        )
    for check in vip.checks if vip.via is Via.DATAPLANE else ():
        if check.kind not in DATAPLANE_KINDS or check.get("port"):
            yield UsageError(
                f"check {check} of VIP {vip.name} cannot be made by way of the dataplane",
                f"use {' or '.join(DATAPLANE_KINDS)} without a port of its own, or --via direct",
            )
    if vip.passive and not (vip.mode.translates and vip.protocol is Protocol.TCP):
        yield UsageError(
            f"the gateway does not see the handshakes of VIP {vip.name}",
            "use --no-passive, or TCP with mode nat or fullnat",
        )
    if vip.passive and not vip.checks:
        yield UsageError(
            f"VIP {vip.name} has no check that could confirm what handshakes make suspected",
            "give it one, as --check tcp, or use --no-passive",
        )


def _source_problems(vip: Vip) -> Iterator[UsageError]:
    if vip.sources and not (vip.mode.tunnels or vip.mode is Mode.FULLNAT):
        yield UsageError(
            f"mode {vip.mode} of VIP {vip.name} keeps the client's address as source",
            "leave --source out (`l4lb vip set` takes it back by --no-source), or use mode fullnat, ipip or gue",
        )
    versions = [source.version for source in vip.sources]
    if len(versions) != len(set(versions)):
        yield UsageError(f"VIP {vip.name} has two sources of one family", "give one for IPv4 and one for IPv6 at most")
    for source in vip.sources:
        yield from address_problems("source", source.network_address)
        if source.version == 6 and source.prefixlen < 96:
            yield UsageError(
                f"source {source} of VIP {vip.name} is too wide: sources differ in the last 32 bits",
                f"use a part of it, as {source.network_address}/96",
            )
        if vip.mode is Mode.FULLNAT and source.num_addresses > MAX_POOL_ADDRESSES:
            yield UsageError(
                f"source {source} of VIP {vip.name} has more than {MAX_POOL_ADDRESSES} addresses",
                "fullnat makes them the gateway's own: use a part of it",
            )
    own = vip.source_for(vip.service.address)
    addresses = own.num_addresses if own is not None else 1
    if vip.mode is Mode.FULLNAT and vip.pool > POOL_PORTS * addresses:
        yield UsageError(
            f"pool {vip.pool} of VIP {vip.name} is larger than the {POOL_PORTS * addresses} ports"
            f" of {own or 'the one address that the gateway sends from'}",
            f"use --pool {POOL_PORTS * addresses}, or a --source of {-(-vip.pool // POOL_PORTS)} addresses",
        )


def _answer_problems(config: Config, listening: Mapping[Service, Vip]) -> Iterator[UsageError]:
    """Answers of translated backends are told apart by their source."""
    services: dict[tuple[IPAddress, Protocol], list[Service]] = {}
    for service in listening:
        services.setdefault((service.address, service.protocol), []).append(service)
    exact: dict[_Server, Vip] = {}
    wide: dict[tuple[IPAddress, Protocol], Vip] = {}
    for vip in config.vips:
        for backend in vip.backends if vip.mode.translates else ():
            address, port = backend.endpoint.address, backend.endpoint.port
            if port:
                other = exact.setdefault((address, port, vip.protocol), vip)
                if vip.mode is not other.mode:
                    yield _twice(backend, vip, other, "use the same mode for both, or another port on the backend")
                elif vip.mode is Mode.FULLNAT and _pool(vip, address) != _pool(other, address):
                    yield UsageError(
                        f"backend {backend.endpoint}/{vip.protocol.label} would serve VIPs {other.name} and {vip.name}"
                        " by fullnat from different sources or pools, though a server has one pool of connections",
                        "give both VIPs the same --source and --pool, or use another port on the backend",
                    )
            else:
                other = wide.setdefault((address, vip.protocol), vip)
                if other is not vip:
                    yield _twice(backend, vip, other, "each takes a range of its ports: give one of them a single port")
            first, last = (port, port) if port else (vip.service.first_port, vip.service.last_port)
            if any(
                service.first_port <= last and first <= service.last_port
                for service in services.get((address, vip.protocol), ())
            ):
                yield UsageError(
                    f"backend {backend.endpoint} of VIP {vip.name} is a VIP itself", "give the server's own address"
                )
    for (address, port, protocol), vip in exact.items():
        other_vip = wide.get((address, protocol))
        if other_vip is not None and other_vip.service.first_port <= port <= other_vip.service.last_port:
            yield _twice(Backend(Endpoint(address, port)), vip, other_vip, "use a port outside of the other's range")


def _pool(vip: Vip, backend: IPAddress) -> tuple[IPNetwork | None, int]:
    """What the connections to a backend are made from."""
    return vip.source_for(backend), vip.pool


def _twice(backend: Backend, vip: Vip, other: Vip, way_out: str) -> UsageError:
    return UsageError(
        f"backend {backend.endpoint}/{vip.protocol.label} would serve VIP {other.name} by {other.mode}"
        f" and VIP {vip.name} by {vip.mode}, so its answers could not be told apart",
        way_out,
    )


def _backend_problems(vip: Vip) -> Iterator[UsageError]:
    if len(vip.backends) > MAX_BACKENDS:
        yield UsageError(f"VIP {vip.name} has more than {MAX_BACKENDS:,} backends", "spread them over several VIPs")
    seen: set[Endpoint] = set()
    port = vip.service.backend_port
    for backend in vip.backends:
        if backend.endpoint in seen:
            yield UsageError(
                f"backend {backend.endpoint} of VIP {vip.name} exists already",
                f"change it with `l4lb backend set {vip.name} {backend.endpoint} --weight N`",
            )
        seen.add(backend.endpoint)
        yield from address_problems("backend", backend.endpoint.address)
        yield from _judgement_problems(vip, backend)
        if backend.endpoint.address == vip.service.address:
            yield UsageError(
                f"backend {backend.endpoint} has the address of its VIP {vip.name}", "give the server's own address"
            )
        if backend.endpoint.address.version != vip.service.address.version and not vip.mode.tunnels:
            yield UsageError(
                f"backend {backend.endpoint} of VIP {vip.name} is of another family than the VIP",
                "use mode ipip or gue, which take either, or an address of the VIP's family",
            )
        if not vip.mode.translates and backend.endpoint.port != port:
            yield UsageError(
                f"backend {backend.endpoint} of VIP {vip.name} has another port than the VIP",
                f"mode {vip.mode} keeps the port: leave it out, or use mode nat",
            )
        if not backend.endpoint.port and vip.service.is_single:
            yield UsageError(f"backend {backend.endpoint} of VIP {vip.name} has no port", f"use port {port}")
        if not 0 <= backend.weight <= MAX_WEIGHT:
            yield UsageError(
                f"weight {backend.weight} is not between 0 and {MAX_WEIGHT}", "use 0 for no flows, 1 for an equal share"
            )


def _judgement_problems(vip: Vip, backend: Backend) -> Iterator[UsageError]:
    """What is wrong with how a backend is judged."""
    if not 0 <= backend.priority <= MAX_PRIORITY:
        yield UsageError(
            f"priority {backend.priority} is not between 0 and {MAX_PRIORITY}",
            "use 0 for the backends that serve first",
        )
    rules = vip.rules_for(backend)
    if backend.overrides:
        for problem in health.problems(rules):
            yield UsageError(
                f"backend {backend.endpoint} of VIP {vip.name}: {problem.message}",
                f"{problem.hint}; `l4lb backend set` takes back what is not the VIP's by --inherit",
            )
    for check in vip.checks:
        if check.needs_port and not rules.check_port and not backend.endpoint.port:
            yield UsageError(
                f"backend {backend.endpoint} of VIP {vip.name} takes several ports, and check {check} says none",
                "give --check-port" + ("" if vip.via is Via.DATAPLANE else ", or the check an option port"),
            )


def address_problems(what: str, address: IPAddress) -> Iterator[UsageError]:
    """Why an address can be nobody's to serve at; `what` says whose it is."""
    mapped = None if isinstance(address, IPv4Address) else address.ipv4_mapped
    if mapped is not None:
        yield UsageError(f"{what} address {address} is an IPv4 address in disguise", f"write it as {mapped}")
    elif address.version == 6 and address.is_link_local:
        yield UsageError(
            f"{what} address {address} is valid on one link only", "give a global or unique local (fd00::/8) address"
        )
    elif (
        address.is_unspecified
        or address.is_multicast
        or address.is_loopback
        or address == IPv4Address("255.255.255.255")
    ):
        yield UsageError(
            f"{what} address {address} is no address of a single host on the network", "give a unicast address"
        )
