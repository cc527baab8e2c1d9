"""Configurations that obey the rules, for Hypothesis: of every mode, scheduler, family and setting."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from hypothesis import strategies as st

from l4lb.health.check import Check
from l4lb.health.rules import (
    INTERVALS,
    MAX_COUNT,
    MAX_JITTER,
    MAX_TIER_SHARE,
    TIMEOUTS,
    HealthRules,
    NoneLeft,
    Panic,
    State,
    VipRules,
)
from l4lb.model import (
    MAX_IDLE_TIMEOUT,
    MAX_PRIORITY,
    MAX_WEIGHT,
    POOL_SIZES,
    Admin,
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
from l4lb.rules import DATAPLANE_KINDS, MAX_CHECKS, problems

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
_CHECKS = [
    Check.parse(text)
    for text in (
        "tcp", "tcp:port=81", "udp", r"udp:payload=\x00,expect=\,,port=53", "http:path=/health,status=200|204",
        "https:header=X-A: 1,header=X-B: 2,sni=www.example.org", "tls:days=14", "dns:name=example.org,tcp=yes", "icmp",
        "grpc:service=a.B", "postgres:user=l4lb", "mysql:user=l4lb,tls=yes", "redis:command=GET a",
        "exec:command=/bin/a check", "agent:port=9000",
    )
]  # fmt: skip
_DATAPLANE_CHECKS = [check for check in _CHECKS if check.kind in DATAPLANE_KINDS and not check.get("port")]


def _seconds(first: float, last: float) -> st.SearchStrategy[float]:
    """To a millisecond."""
    return st.integers(round(1000 * first), round(1000 * last)).map(lambda milliseconds: milliseconds / 1000)


_SHORTEST, _LONGEST = INTERVALS
_RULES: dict[str, st.SearchStrategy[object]] = {
    "rise": st.integers(1, MAX_COUNT),
    "fall": st.integers(1, MAX_COUNT),
    "interval": _seconds(_SHORTEST, _LONGEST),
    "timeout": _seconds(*TIMEOUTS),
    "fast_interval": st.just(0.0) | _seconds(_SHORTEST, _LONGEST),
    "jitter": st.floats(0, MAX_JITTER),
    "initial": st.sampled_from(State),
    "slow_start": st.just(0.0) | _seconds(0.001, _LONGEST),
    "degrade": st.booleans(),
    "floor": st.integers(1, 100),
    "stale_after": st.just(0.0) | _seconds(_SHORTEST, _LONGEST),
    "check_port": st.just(0) | _ports,
}


def _fitting(rules: HealthRules, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with which the intervals of rules still fit to each other."""
    changed = replace(rules, **values)
    fitting = dict(values)
    if changed.fast_interval > changed.interval:
        fitting["fast_interval"] = changed.interval
    if changed.stale_after and changed.stale_after < changed.interval:
        fitting["stale_after"] = changed.interval
    return fitting


@st.composite
def health_rules(draw: st.DrawFn) -> HealthRules:
    """Rules that keep all bounds."""
    return HealthRules(**_fitting(HealthRules(), draw(st.fixed_dictionaries(_RULES))))


vip_rules = st.builds(
    VipRules,
    panic_share=st.integers(0, 100),
    panic=st.sampled_from(Panic),
    tier_share=st.integers(100, MAX_TIER_SHARE),
    none_left=st.sampled_from(NoneLeft),
)


@st.composite
def _backends(draw: st.DrawFn, endpoint: Endpoint, rules: HealthRules) -> Backend:
    """A backend of a VIP with such rules."""
    own = dict(_RULES) if endpoint.port else {**_RULES, "check_port": _ports}
    overrides = _fitting(rules, draw(st.fixed_dictionaries({}, optional=own)))
    return Backend(
        endpoint,
        weight=draw(st.integers(0, MAX_WEIGHT)),
        priority=draw(st.integers(0, MAX_PRIORITY)),
        admin=draw(st.sampled_from(Admin)),
        overrides=tuple(sorted(overrides.items())),
    )


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
    via = Via.DIRECT if mode.translates else draw(st.sampled_from(Via))
    possible = _CHECKS if via is Via.DIRECT else _DATAPLANE_CHECKS
    checks = draw(st.lists(st.sampled_from(possible), max_size=MAX_CHECKS, unique=True))
    rules = draw(health_rules())
    if not own_port and not rules.check_port:
        rules = replace(rules, check_port=draw(_ports))
    return Vip(
        name=draw(_names),
        service=service,
        mode=mode,
        scheduler=scheduler,
        backends=tuple(draw(_backends(endpoint, rules)) for endpoint in sorted(endpoints)),
        idle_timeout=draw(st.integers(1, MAX_IDLE_TIMEOUT)),
        sources=tuple(sources.values()) if mode.tunnels or mode is Mode.FULLNAT else (),
        gue_port=draw(_ports),
        mss=draw(st.just(0) | st.integers(88, 65_495)) if protocol is Protocol.TCP else 0,
        client_prefix=draw(st.integers(0, 32 if family == 4 else 128)) if scheduler is Scheduler.SOURCE_HASH else 0,
        pool=draw(st.sampled_from(POOL_SIZES[:7])),
        checks=tuple(checks),
        via=via,
        passive=draw(st.booleans()) if mode.translates and protocol is Protocol.TCP and checks else False,
        health=rules,
        spread=draw(vip_rules),
    )


configs = st.builds(
    lambda vips, seed: Config(tuple(sorted(vips, key=lambda vip: vip.name)), seed),
    st.lists(_vips(), max_size=4, unique_by=lambda vip: vip.name),
    st.integers(0, 2**64 - 1),
).filter(lambda config: not list(problems(config)))
