"""The settings of a VIP as plain values: what the wire and the state file carry is what the model has."""

import json
from dataclasses import fields
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given

from l4lb import settings
from l4lb.errors import UsageError
from l4lb.model import Config, Mode, Scheduler, Service, Vip
from tests.unit.strategies import configs


def test_every_field_of_a_vip_that_an_operator_sets_is_a_setting() -> None:
    """One that is forgotten would be lost on a restart."""
    assert set(settings.SETTINGS) == {each.name for each in fields(Vip)} - {"name", "service", "backends"}


@given(configs)
def test_round_trip_through_json(config: Config) -> None:
    for vip in config.vips:
        plain = json.loads(json.dumps(settings.plain(vip)))
        assert settings.parse(plain, plain) == {name: getattr(vip, name) for name in settings.SETTINGS}


@given(configs)
def test_a_service_is_read_as_it_is_written(config: Config) -> None:
    for vip in config.vips:
        assert Service.parse(vip.service.place, vip.protocol) == vip.service


def test_what_is_not_given_is_not_set() -> None:
    assert settings.parse({"mode": "gue", "mss": 5, "name": "web"}, ["mode", "name"]) == {"mode": Mode.GUE}


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("mode", "ipip", Mode.IPIP),
        ("scheduler", "least-connections", Scheduler.LEAST_CONNECTIONS),
        ("sources", [], ()),
        ("sources", ["10.0.0.1"], (IPv4Network("10.0.0.1/32"),)),
        ("sources", ["fd00::/120", "10.0.0.0/28"], (IPv6Network("fd00::/120"), IPv4Network("10.0.0.0/28"))),
        ("gue_port", 6081, 6081),
    ],
)
def test_values(name: str, value: object, parsed: object) -> None:
    assert settings.parse({name: value}, [name]) == {name: parsed}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("mode", "NAT", "mode 'NAT' is not known: use nat or fullnat or dsr or ipip or gue"),
        ("mode", 1, "mode is missing or no text: give mode"),
        ("scheduler", "", "scheduler '' is not known: use maglev or source-hash"),
        ("sources", {"10.0.0.0/28": 1}, "sources is missing or no list"),
        ("sources", ["10.0.0.1/28"], "'10.0.0.1/28' is no network (10.0.0.1/28 has host bits set)"),
        ("sources", ["fd00::1%eth0"], "network 'fd00::1%eth0' is valid on one link only"),
        ("sources", [None], "'None' is no network"),
        ("mss", 1400.0, "mss is missing or no whole number"),
        ("client_prefix", False, "client_prefix is missing or no whole number"),
        ("pool", "4096", "pool is missing or no whole number"),
    ],
)
def test_refused(name: str, value: object, says: str) -> None:
    with pytest.raises(UsageError) as refusal:
        settings.parse({name: value}, [name])
    assert says in str(refusal.value)
    assert refusal.value.hint
