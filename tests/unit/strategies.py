"""Configurations that obey the rules, for Hypothesis: of every mode, scheduler, family and setting."""

from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import strategies as st

from l4lb.health.rules import NoneLeft
from l4lb.model import (
    MAX_IDLE_TIMEOUT,
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
    Vip,
)
from l4lb.ports import MAX_PORT
from l4lb.rules import problems

_names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}", fullmatch=True)
_ports = st.integers(1, MAX_PORT)
_ranges = st.one_of(
    _ports.map(lambda port: (port, port)),
    st.tuples(_ports, _ports).map(lambda ports: (min(ports), max(ports))),
    st.just((1, MAX_PORT)),
)
_VIPS: dict[int, IPAddress] = {4: IPv4Address("192.0.2.0"), 6: IPv6Address("2001:db8:1::")}
_BACKENDS: dict[int, IPAddress] = {4: IPv4Address("10.0.0.0"), 6: IPv6Address("2001:db8:2::")}
_SOURCES: dict[int, list[IPNetwork]] = {
    4: [ip_network("198.51.100.0/26"), ip_network("198.51.100.7/32")],
    6: [ip_network("fd00::100/122"), ip_network("fd00::7/128")],
}


@st.composite
def _vips(draw: st.DrawFn) -> Vip:
    mode, scheduler = draw(st.sampled_from(Mode)), draw(st.sampled_from(Scheduler))
    protocol = draw(st.sampled_from(Protocol))
    family = draw(st.sampled_from([4, 6]))
    first, last = draw(_ranges)
    own_port = first if first == last else 0
    service = Service(_VIPS[family] + draw(st.integers(1, 250)), first, last, protocol)
    sources = {
        version: draw(st.sampled_from(_SOURCES[version]))
        for version in draw(st.lists(st.sampled_from([4, 6]), unique=True))
    }
    endpoints = set()
    for place in draw(st.lists(st.integers(1, 250), max_size=4, unique=True)):
        base = _BACKENDS[draw(st.sampled_from([4, 6])) if mode.tunnels else family]
        endpoints.add(Endpoint(base + place, draw(_ports) if mode.translates and draw(st.booleans()) else own_port))
    return Vip(
        name=draw(_names),
        service=service,
        mode=mode,
        scheduler=scheduler,
        backends=tuple(Backend(endpoint, draw(st.integers(0, 65_535))) for endpoint in sorted(endpoints)),
        idle_timeout=draw(st.integers(1, MAX_IDLE_TIMEOUT)),
        sources=tuple(sources.values()) if mode.tunnels or mode is Mode.FULLNAT else (),
        gue_port=draw(_ports),
        mss=draw(st.just(0) | st.integers(88, 65_495)) if protocol is Protocol.TCP else 0,
        client_prefix=draw(st.integers(0, 32 if family == 4 else 128)) if scheduler is Scheduler.SOURCE_HASH else 0,
        pool=draw(st.sampled_from(POOL_SIZES[:7])),
        none_left=draw(st.sampled_from(NoneLeft)),
    )


configs = st.builds(
    lambda vips, seed: Config(tuple(sorted(vips, key=lambda vip: vip.name)), seed),
    st.lists(_vips(), max_size=4, unique_by=lambda vip: vip.name),
    st.integers(0, 2**64 - 1),
).filter(lambda config: not list(problems(config)))
