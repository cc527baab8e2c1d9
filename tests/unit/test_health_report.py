"""Health as it is shown: one word for what a backend is, and what came of each check."""

import json
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from l4lb.health.advice import Advice, Wish
from l4lb.health.check import Check
from l4lb.health.machine import CheckHealth, Health, Seen, Suspicion
from l4lb.health.report import Clocks, in_full, in_short, state_of
from l4lb.health.rules import HealthRules, State
from l4lb.health.weights import Member, picture
from l4lb.model import Admin, Backend, Endpoint, Protocol, Service, Via, Vip

B1 = Backend(Endpoint(IPv4Address("10.0.0.1"), 80), weight=2)
CHECKS = (Check("tcp"), Check("agent", (("port", "9"),)))
WEB = Vip("web", Service(IPv4Address("192.0.2.10"), 80, 80, Protocol.TCP), backends=(B1,), checks=CHECKS)
NOW = Clocks(monotonic=500.0, wall=1_700_000_000.0)


def health(state: State, wish: Wish = Wish.NONE, **more: object) -> Health:
    checks = (CheckHealth(state), CheckHealth(state, advice=Advice(wish)))
    return replace(Health(checks, state, since=400.0, why="passed", began=100.0), **more)  # type: ignore[arg-type]


UNKNOWN, UP, DOWN = State


@pytest.mark.parametrize(
    ("admin", "wish", "state", "shown"),
    [
        (Admin.NONE, Wish.NONE, UNKNOWN, "unknown"),
        (Admin.NONE, Wish.NONE, UP, "up"),
        (Admin.NONE, Wish.NONE, DOWN, "down"),
        (Admin.NONE, Wish.DRAIN, UNKNOWN, "draining"),
        (Admin.NONE, Wish.DRAIN, UP, "draining"),
        (Admin.NONE, Wish.DRAIN, DOWN, "down"),
        (Admin.NONE, Wish.MAINT, UNKNOWN, "down"),
        (Admin.NONE, Wish.MAINT, UP, "down"),
        (Admin.NONE, Wish.MAINT, DOWN, "down"),
        *((Admin.DRAIN, wish, state, "draining") for wish in Wish for state in State),
        *((Admin.DISABLED, wish, state, "disabled") for wish in Wish for state in State),
    ],
)
def test_state_of(admin: Admin, wish: Wish, state: State, shown: str) -> None:
    """The operator is asked first, then health, then the agent, whose maintenance is as good as down."""
    backend = replace(B1, admin=admin)
    assert state_of(backend, health(state, wish)) == shown
    (effective,) = picture([Member(2, health(state, wish), admin)], WEB.spread, 500.0).backends
    assert (effective.weight > 0) == (shown in ("up", "unknown")), "who is shown so takes flows, and nobody else"
    assert effective.usable == (shown not in ("down", "disabled"))


def test_times_are_those_of_the_wall() -> None:
    assert NOW.wall_time(500.0) == 1_700_000_000.0
    assert NOW.wall_time(499.87654) == 1_699_999_999.877, "to a millisecond"


def test_in_short() -> None:
    found = health(UP, began=499.0)
    (effective,) = picture([Member(2, found)], WEB.spread, 500.0).backends
    assert in_short(WEB, B1, found, effective, NOW) == {
        "state": "up", "reason": "up", "since": 1_699_999_900.0, "effective_weight": 1, "weight_share": 1.0,
        "stale": False,
    }  # fmt: skip
    stale = replace(found, checks=(replace(found.checks[0], stale=True), found.checks[1]))
    assert in_short(WEB, B1, stale, effective, NOW)["stale"] is True
    impatient = replace(WEB, health=replace(WEB.health, stale_after=2.0, interval=0.5))
    assert in_short(impatient, B1, found, effective, NOW)["stale"] is False
    late = replace(found, began=497.9)
    assert in_short(WEB, B1, late, effective, NOW)["stale"] is False
    assert in_short(impatient, B1, late, effective, NOW)["stale"] is True, "no result for longer than --stale-after"
    growing = health(UP, recovered=480.0)
    members = [Member(2, growing, slow_start=70.0), Member(1, health(UP))]
    effective = picture(members, WEB.spread, 500.0).backends[0]
    shown = in_short(WEB, B1, growing, effective, NOW)
    assert (shown["weight_share"], shown["effective_weight"], shown["reason"]) == (3 / 8, 3, "up, slow start 3/8")


def test_in_full() -> None:
    seen = (Seen(498.0, True, "HTTP 200", 0.0123456), Seen(499.5, False, "HTTP 503", 0.25))
    found = replace(
        health(UP, Wish.DRAIN),
        checks=(CheckHealth(UP, "passed", -1, seen), CheckHealth(UP, advice=Advice(Wish.DRAIN, 6))),
        suspicion=Suspicion("unanswered", 499.0, 499.0),
    )
    vip = replace(WEB, via=Via.DATAPLANE, health=HealthRules(interval=4.0, rise=7))
    backend = replace(B1, overrides=(("fall", 9), ("timeout", 0.25)))
    assert in_full(vip, backend, found, NOW) == {
        "health": "up", "why": "passed", "suspected": "unanswered", "advice": "drain, weight 6/8",
        "interval": 4.0, "timeout": 0.25, "rise": 7, "fall": 9, "via": "dataplane",
        "checks": [
            {
                "check": "tcp", "state": "up", "why": "passed", "in_a_row": -1,
                "results": [
                    {"time": 1_699_999_999.5, "ok": False, "reason": "HTTP 503", "latency_ms": 250.0},
                    {"time": 1_699_999_998.0, "ok": True, "reason": "HTTP 200", "latency_ms": 12.346},
                ],
            },
            {"check": "agent:port=9", "state": "up", "why": "", "in_a_row": 0, "results": []},
        ],
    }  # fmt: skip
    assert json.dumps(in_full(vip, backend, found, NOW))


def test_who_has_no_agent_has_no_advice() -> None:
    vip = replace(WEB, checks=CHECKS[:1])
    found = replace(health(UP), checks=(CheckHealth(UP),))
    shown = in_full(vip, B1, found, NOW)
    assert (shown["advice"], shown["suspected"]) == (None, None)
    ready = replace(found, checks=(CheckHealth(UP, advice=Advice()),))
    assert in_full(vip, B1, ready, NOW)["advice"] == "ready", "an agent that wants nothing said so"
