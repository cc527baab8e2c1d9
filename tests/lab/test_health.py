"""Health in the lab: real servers that are frozen, killed and cut off, seen down and up again, while requests go on."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from l4lb.lab.connections import connections
from l4lb.lab.faults import blackholed, frozen, killed, slow
from l4lb.lab.topology import Lab, Server
from l4lb.lab.traffic import going_on
from tests.lab.gateway import VIP, Gateway

NAMES = {"b1", "b2", "b3"}
QUICK = ("--check", "http:path=/", "--interval", "200ms", "--timeout", "150ms", "--rise", "2", "--fall", "2",
    "--fast-interval", "0",
)  # fmt: skip


@pytest.fixture(scope="module")
def health(routed_lab: Any, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """One daemon for the tests of this module, each of which leaves a VIP with three servers that are up."""
    from tests.lab.conftest import _gateway

    with _gateway(routed_lab, request) as gateway:
        gateway.daemon.start()
        gateway.add_vip("web", f"{VIP}:80/tcp", options=QUICK)
        yield gateway


@pytest.fixture
def web(health: Gateway) -> Gateway:
    health.daemon.cli("vip", "set", "web", *QUICK, "--slow-start", "0", "--none-left", "drop")
    everyone_up(health)
    return health


def states(gateway: Gateway) -> dict[str, str]:
    """By the server's name."""
    names = {str(server.address): server.name for server in gateway.lab.servers}
    (vip,) = gateway.daemon.status()["vips"]
    return {names[backend["address"]]: backend["state"] for backend in vip["backends"]}


def everyone_up(gateway: Gateway) -> None:
    gateway.until(lambda: set(states(gateway).values()) == {"up"})


def events(gateway: Gateway) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.daemon.cli("events", "--json").stdout.splitlines()]


def shown(gateway: Gateway, number: int) -> Any:
    address = f"{gateway.lab.servers[number].address}:8080"
    return json.loads(gateway.daemon.cli("backend", "show", "web", address, "--json").stdout)


FAULTS: list[tuple[Callable[[Lab, Server], Any], str]] = [
    (frozen, "no answer within 150 ms"),
    (blackholed, "no answer within 150 ms"),
    (killed, "connection refused"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS, ids=["frozen", "blackholed", "killed"])
def test_a_server_that_fails_is_left_out_and_comes_back(
    web: Gateway, fault: Callable[[Lab, Server], Any], reason: str
) -> None:
    before = len(events(web))
    with fault(web.lab, web.lab.servers[0]):
        web.until(lambda: states(web)["b1"] == "down")
        view = shown(web, 0)
        assert view["why"] == f"{reason} ×2"  # noqa: RUF001
        results = [result["ok"] for result in view["checks"][0]["results"]]
        assert results[:2] == [False, False]
        assert set(web.http(30).answers) == {"b2", "b3"}
    web.until(lambda: states(web)["b1"] == "up")
    assert set(web.http(60).answers) == NAMES
    news = [(event["backend"], event["what"]) for event in events(web)[before:]]
    address = f"{web.lab.servers[0].address}:8080"
    assert news == [(address, "down"), (address, "up")]
    assert "slots moved" in events(web)[before]["effect"]


@pytest.mark.parametrize("mode", ["nat", "fullnat"])
def test_connections_to_a_server_that_is_down_are_released_at_once(web: Gateway, mode: str) -> None:
    """Their clients are told by a reset, and need not wait until they lose patience."""
    web.daemon.cli("vip", "set", "web", "--mode", mode)
    try:
        everyone_up(web)
        with (
            connections(web.lab.client, VIP, 80, 60, pause=0.1) as in_use,
            blackholed(web.lab, web.lab.servers[0]),
        ):
            began = time.monotonic()
            web.until(lambda: states(web)["b1"] == "down")
            time.sleep(1)
            fates = in_use.report()
        ended = {fate.backend: fate.error for fate in fates if fate.error}
        assert ended.keys() == {"b1"}
        assert "reset" in ended["b1"].lower()
        assert time.monotonic() - began < 4
    finally:
        web.daemon.cli("vip", "set", "web", "--mode", "nat")


def test_a_server_that_comes_back_begins_slowly(web: Gateway) -> None:
    web.daemon.cli("vip", "set", "web", "--slow-start", "3s")
    with blackholed(web.lab, web.lab.servers[0]):
        web.until(lambda: states(web)["b1"] == "down")
    web.until(lambda: states(web)["b1"] == "up")
    assert 0 < shown(web, 0)["weight_share"] < 0.5
    assert "slow start" in shown(web, 0)["reason"]
    web.until(lambda: shown(web, 0)["weight_share"] == 1)


def test_a_lower_tier_helps(web: Gateway) -> None:
    third = f"{web.lab.servers[2].address}:8080"
    web.daemon.cli("backend", "set", "web", third, "--priority", "1")
    try:
        assert set(web.http(40).answers) == {"b1", "b2"}
        with blackholed(web.lab, web.lab.servers[0]):
            web.until(lambda: states(web)["b1"] == "down")
            assert set(web.http(60).answers) == {"b2", "b3"}
            assert "OVERFLOW" in web.daemon.cli("status").stdout
    finally:
        web.daemon.cli("backend", "set", "web", third, "--priority", "0")


def test_panic(web: Gateway) -> None:
    """With too few that are healthy, flows go to all; or to nobody, if that is wanted."""
    web.daemon.cli("vip", "set", "web", "--panic-share", "50", "--none-left", "reject")
    try:
        with frozen(web.lab, web.lab.servers[0]), frozen(web.lab, web.lab.servers[1]):
            web.until(lambda: list(states(web).values()).count("down") == 2)
            shares = [backend["effective_weight"] for backend in web.daemon.status()["vips"][0]["backends"]]
            assert shares == [1, 1, 1]
            web.daemon.cli("vip", "set", "web", "--panic", "refuse")
            assert web.curl(f"http://{VIP}/", check=False).returncode == 7
    finally:
        web.daemon.cli("vip", "set", "web", "--panic-share", "0", "--panic", "spread")


def test_drain_disable_and_resume_outrank_health(web: Gateway) -> None:
    address = f"{web.lab.servers[0].address}:8080"
    for verb, state in (("drain", "draining"), ("disable", "disabled")):
        web.daemon.cli("backend", verb, "web", address)
        assert states(web)["b1"] == state
        assert set(web.http(30).answers) == {"b2", "b3"}
    web.daemon.cli("backend", "resume", "web", address)
    assert states(web)["b1"] == "up"
    assert set(web.http(60).answers) == NAMES


def test_nobody_left_is_loud_and_told_to_clients(web: Gateway) -> None:
    web.daemon.cli("vip", "set", "web", "--none-left", "reject")
    for server in web.lab.servers:
        web.daemon.cli("backend", "disable", "web", f"{server.address}:8080")
    try:
        began = time.monotonic()
        refused = web.curl(f"http://{VIP}/", check=False)
        assert refused.returncode == 7, "could not connect"
        assert time.monotonic() - began < 1
        assert "NONE: no backend can take a flow" in web.daemon.cli("status").stdout
        assert events(web)[-1]["what"] == "none"
    finally:
        for server in web.lab.servers:
            web.daemon.cli("backend", "resume", "web", f"{server.address}:8080")
    assert web.http(10).answers.total() == 10


def test_a_restart_begins_with_what_was_known(web: Gateway) -> None:
    """And keeps new flows from a server that is known to be down, from the first packet on."""
    with frozen(web.lab, web.lab.servers[1]):
        web.until(lambda: states(web)["b2"] == "down")
        web.daemon.end(signal.SIGTERM)
        with going_on(web.lab.client, "http", str(VIP), 80, 300, seconds=1.5) as outcome:
            web.daemon.start()
            assert states(web)["b2"] == "down"
        assert outcome.failures == []
        assert set(outcome.answers) == {"b1", "b3"}
    everyone_up(web)


@pytest.mark.parametrize("fault", [frozen, blackholed, killed], ids=["frozen", "blackholed", "killed"])
def test_connections_tell_of_a_fault_before_the_next_check_does(
    web: Gateway, fault: Callable[[Lab, Server], Any]
) -> None:
    web.daemon.cli("vip", "set", "web", "--passive", "--interval", "30s", "--fast-interval", "200ms")
    try:
        with going_on(web.lab.client, "http", str(VIP), 80, 1500, seconds=4) as outcome:
            time.sleep(0.5)
            with fault(web.lab, web.lab.servers[0]):
                began = time.time()
                web.until(lambda: states(web)["b1"] == "down", 3)
                event = events(web)[-1]
                time.sleep(0.5)
            assert event["what"] == "down"
            assert "suspected: " in event["why"]
            assert event["time"] - began < 2, "and the next check would have come after 30 s"
        assert len(outcome.failures) < 200
    finally:
        web.daemon.cli("vip", "set", "web", "--no-passive", *QUICK)


def test_a_minute_of_flapping_costs_the_others_nothing(web: Gateway) -> None:
    """A server that fails and comes back every second, while connections are open and others are made."""
    with connections(web.lab.client, VIP, 80, 150, pause=0.1, reopen=True) as in_use:
        over = time.monotonic() + 60
        while time.monotonic() < over:
            with blackholed(web.lab, web.lab.servers[2]):
                time.sleep(0.6)
            time.sleep(0.4)
        fates = in_use.report()
    assert {fate.backend for fate in fates if not fate.error} >= {"b1", "b2"}
    assert not {fate.backend for fate in fates if fate.error} & {"b1", "b2"}
    assert len(fates) > 150, "those to the third server broke, and others were made"
    downs = [event for event in events(web) if event["what"] == "down"]
    assert downs
    everyone_up(web)


def test_a_slow_server_gets_less_and_its_weight_back(web: Gateway) -> None:
    """One that answers, but later than the others."""
    web.daemon.cli("vip", "set", "web", "--degrade", "--interval", "100ms", "--timeout", "90ms")
    try:
        with slow(web.lab, web.lab.servers[0]):
            web.until(lambda: shown(web, 0)["weight_share"] <= 0.75, 20)
            view = shown(web, 0)
            assert view["state"] == "up"
            assert "probes take" in view["reason"]
            left = view["weight_share"]
        web.until(lambda: shown(web, 0)["weight_share"] > left, 20)
    finally:
        web.daemon.cli("vip", "set", "web", "--no-degrade", *QUICK)
