"""The settings of VIPs and backends as plain values: what the wire and the state file carry is what the model has."""

import json
import math
from dataclasses import fields, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest
from hypothesis import given

from l4lb import settings
from l4lb.errors import UsageError
from l4lb.health.check import Check
from l4lb.health.rules import HealthRules, NoneLeft, Panic, State, VipRules
from l4lb.model import Admin, Backend, Config, Endpoint, Mode, Protocol, Scheduler, Service, Via, Vip
from tests.unit.strategies import configs

BARE = Vip("web", Service(IPv4Address("192.0.2.10"), 80, 80, Protocol.TCP))
B1 = Backend(Endpoint(IPv4Address("10.0.0.1"), 80))


def names(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


def test_every_field_that_an_operator_sets_is_a_setting() -> None:
    """One that is forgotten would be lost on a restart."""
    own = names(Vip) - {"name", "service", "backends", "health", "spread"}
    assert sorted(settings.SETTINGS) == sorted([*own, *names(HealthRules), *names(VipRules)]), "each once"
    own = names(Backend) - {"endpoint", "overrides"}
    assert sorted(settings.BACKEND_SETTINGS) == sorted([*own, *names(HealthRules)])


@given(configs)
def test_round_trip_through_json(config: Config) -> None:
    for vip in config.vips:
        plain = json.loads(json.dumps(settings.plain(vip)))
        assert plain.keys() == set(settings.SETTINGS)
        assert settings.changed(Vip(vip.name, vip.service, backends=vip.backends), plain) == vip
        for backend in vip.backends:
            plain = json.loads(json.dumps(settings.plain_backend(backend)))
            assert plain.keys() == {"weight", "priority", "admin", *dict(backend.overrides)}, "only what is set"
            assert settings.changed_backend(Backend(backend.endpoint), plain) == backend


@given(configs)
def test_a_service_is_read_as_it_is_written(config: Config) -> None:
    for vip in config.vips:
        assert Service.parse(vip.service.place, vip.protocol) == vip.service


@given(configs)
def test_what_is_not_given_stays(config: Config) -> None:
    for vip in config.vips:
        changed = settings.changed(vip, {"mss": 5, "rise": 7, "panic_share": 9, "name": "other"})
        expected = replace(vip.health, rise=7), replace(vip.spread, panic_share=9)
        assert changed == replace(vip, mss=5, health=expected[0], spread=expected[1])


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("mode", "ipip", Mode.IPIP),
        ("scheduler", "least-connections", Scheduler.LEAST_CONNECTIONS),
        ("sources", [], ()),
        ("sources", ["10.0.0.1"], (IPv4Network("10.0.0.1/32"),)),
        ("sources", ["fd00::/120", "10.0.0.0/28"], (IPv6Network("fd00::/120"), IPv4Network("10.0.0.0/28"))),
        ("gue_port", 6081, 6081),
        ("checks", [], ()),
        ("checks", ["tcp"] * 64, (Check("tcp"),) * 64),
        ("checks", ["icmp", "http:path=/a"], (Check("icmp"), Check("http", (("path", "/a"),)))),
        ("via", "dataplane", Via.DATAPLANE),
        ("passive", True, True),
    ],
)
def test_values(name: str, value: object, parsed: object) -> None:
    assert settings.changed(BARE, {name: value}) == replace(BARE, **{name: parsed})


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [("interval", 2, 2.0), ("timeout", 0.3, 0.3), ("initial", "down", State.DOWN), ("degrade", True, True)],
)
def test_values_of_how_backends_are_judged(name: str, value: object, parsed: object) -> None:
    """For a VIP, and for one of its backends."""
    changed = settings.changed(BARE, {name: value})
    assert changed == replace(BARE, health=replace(BARE.health, **{name: parsed}))
    assert type(getattr(changed.health, name)) is type(parsed)
    assert settings.changed_backend(B1, {name: value}) == replace(B1, overrides=((name, parsed),))


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [("panic", "refuse", Panic.REFUSE), ("none_left", "reject", NoneLeft.REJECT), ("tier_share", 100, 100)],
)
def test_values_of_how_flows_are_spread(name: str, value: object, parsed: object) -> None:
    assert settings.changed(BARE, {name: value}) == replace(BARE, spread=replace(BARE.spread, **{name: parsed}))


REFUSED: list[tuple[str, object, str]] = [
    ("mode", "NAT", "mode 'NAT' is not known: use nat or fullnat or dsr or ipip or gue"),
    ("mode", 1, "mode 1 is no text"),
    ("scheduler", "", "scheduler '' is not known: use maglev or source-hash"),
    ("sources", {"10.0.0.0/28": 1}, "sources {'10.0.0.0/28': 1} is no list"),
    ("sources", ["10.0.0.1/28"], "'10.0.0.1/28' is no network (10.0.0.1/28 has host bits set)"),
    ("sources", ["fd00::1%eth0"], "network 'fd00::1%eth0' is valid on one link only"),
    ("sources", [None], "'None' is no network"),
    ("mss", 1400.0, "mss 1400.0 is no whole number"),
    ("client_prefix", False, "client_prefix False is no whole number"),
    ("pool", "4096", "pool '4096' is no whole number"),
    ("checks", "tcp", "checks 'tcp' is no list"),
    ("checks", ["tpc"], "check kind 'tpc' is not known: did you mean tcp"),
    ("checks", [5], "check kind '5' is not known: use tcp, http"),
    ("checks", ["tcp"] * 65, "checks are 65, and more than 64 are never possible: give fewer"),
    ("sources", ["10.0.0.0/28"] * 250_000, "sources are 250,000, and more than 64 are never possible"),
    ("via", "vip", "via 'vip' is not known: use direct or dataplane"),
    ("passive", 1, "passive 1 is neither true nor false"),
    ("passive", None, "passive None is neither true nor false"),
    ("panic", "calm", "panic 'calm' is not known: use spread or refuse"),
    ("panic_share", 50.0, "panic_share 50.0 is no whole number"),
    ("none_left", True, "none_left True is no text"),
]
REFUSED_OF_BOTH: list[tuple[str, object, str]] = [
    ("interval", "2s", "interval '2s' is no finite number"),
    ("interval", True, "interval True is no finite number"),
    ("timeout", math.nan, "timeout nan is no finite number"),
    ("slow_start", 10**400, "slow_start 100000000000000000...0000000000000000000 is no finite number"),
    ("jitter", -math.inf, "jitter -inf is no finite number"),
    ("rise", 2.0, "rise 2.0 is no whole number"),
    ("fall", True, "fall True is no whole number"),
    ("degrade", "yes", "degrade 'yes' is neither true nor false"),
    ("initial", "dead", "initial 'dead' is not known: use unknown or up or down"),
    ("initial", ["up"], "initial ['up'] is no text"),
]


@pytest.mark.parametrize(("name", "value", "says"), [*REFUSED, *REFUSED_OF_BOTH])
def test_refused(name: str, value: object, says: str) -> None:
    with pytest.raises(UsageError) as refusal:
        settings.changed(BARE, {name: value})
    assert says in str(refusal.value)
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        *REFUSED_OF_BOTH,
        ("weight", None, "weight None is no whole number"),
        ("weight", "1", "weight '1' is no whole number"),
        ("priority", 1.0, "priority 1.0 is no whole number"),
        ("admin", "disable", "admin 'disable' is not known: use none or drain or disabled"),
        ("admin", None, "admin None is no text"),
    ],
)
def test_refused_of_backends(name: str, value: object, says: str) -> None:
    with pytest.raises(UsageError) as refusal:
        settings.changed_backend(B1, {name: value})
    assert says in str(refusal.value)
    assert refusal.value.hint


def test_a_backend_takes_back_what_is_not_the_vips() -> None:
    own = settings.changed_backend(B1, {"weight": 3, "rise": 5, "interval": 1, "admin": "drain", "check_port": 81})
    assert own == replace(
        B1, weight=3, admin=Admin.DRAIN, overrides=(("check_port", 81), ("interval", 1.0), ("rise", 5))
    )
    assert settings.changed_backend(own, {"priority": 2}) == replace(own, priority=2), "the others stay"
    less = settings.changed_backend(own, {"rise": None, "interval": 2, "slow_start": None})
    assert less.overrides == (("check_port", 81), ("interval", 2.0)), "what was not set is none to take back"
    vip = replace(BARE, health=HealthRules(rise=9, fall=8, interval=4.0))
    assert vip.rules_for(less) == HealthRules(rise=9, fall=8, interval=2.0, check_port=81)


def test_what_is_the_vips_by_chance_is_the_backends_own() -> None:
    """It stays when the VIP's is changed."""
    own = settings.changed_backend(B1, {"rise": BARE.health.rise})
    assert settings.changed(BARE, {"rise": 9}).rules_for(own).rise == BARE.health.rise
