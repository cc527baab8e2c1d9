"""Several checks of each backend, made by the daemon, and an agent's advice: from servers to what clients get."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from l4lb.lab.connections import connections
from l4lb.lab.faults import firewalled, frozen, killed
from l4lb.lab.servers import UDP_PORT
from l4lb.lab.topology import Lab, Server
from tests.lab.gateway import VIP, Gateway
from tests.lab.oddities import Port as Odd
from tests.lab.services import DNS, ECHO, advise, start_dns, start_oddities

QUICK = ("--interval", "250ms", "--timeout", "250ms", "--fast-interval", "100ms", "--rise", "2", "--fall", "2")
NOTHING = "no answer within 250 ms"


def everything(folder: Path) -> list[str]:
    return [
        "tcp",
        "http:body=b",
        f"udp:port={UDP_PORT},payload=hello,expect=b",
        "dns:port=53,name=www.example.test,answer=192.0.2.1",
        "icmp",
        f"exec:command={folder}/check",
        f"agent:port={Odd.AGENT}",
    ]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that everybody may read, which tests' own are not, with a program for checks."""
    with tempfile.TemporaryDirectory(prefix="l4lb-exec-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        program = folder / "check"
        program.write_text(f'#!/bin/sh\n[ ! -e "{folder}/$L4LB_ADDRESS" ] || {{ echo lagging; exit 1; }}\n')
        program.chmod(0o755)
        yield folder


@pytest.fixture(scope="module")
def gateway(routed_lab: Any, folder: Path, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    from tests.lab.conftest import _gateway

    for server in routed_lab.servers:
        server.namespace.sysctl(net__ipv4__icmp_ratelimit=0)
        start_dns(routed_lab, server)
        start_oddities(routed_lab, server)
    with _gateway(routed_lab, request) as gateway:
        gateway.daemon.start()
        checks = [word for check in everything(folder) for word in ("--check", check)]
        gateway.add_vip("web", f"{VIP}:80/tcp", options=(*checks, *QUICK))
        gateway.until(lambda: all_up(gateway), 10)
        yield gateway


def shown(gateway: Gateway, number: int = 0) -> Any:
    address = f"{gateway.lab.servers[number].address}:8080"
    return json.loads(gateway.daemon.cli("backend", "show", "web", address, "--json").stdout)


def all_up(gateway: Gateway) -> bool:
    (vip,) = gateway.daemon.status()["vips"]
    return all(backend["state"] == "up" and backend["weight_share"] == 1 for backend in vip["backends"])


def test_all_have_passed(gateway: Gateway, folder: Path) -> None:
    for number in range(3):
        view = shown(gateway, number)
        assert view["health"] == "up"
        assert [check["check"] for check in view["checks"]] == everything(folder)
        for check in view["checks"]:
            last = check["results"][0]
            assert (check["state"], last["ok"], last["reason"]) == ("up", True, "ok")
            assert 0 < last["latency_ms"] < 250
    assert set(gateway.http(60).answers) == {"b1", "b2", "b3"}


@contextmanager
def lagging(folder: Path, server: Server) -> Iterator[None]:
    marker = folder / str(server.address)
    marker.touch()
    try:
        yield
    finally:
        marker.unlink()


@contextmanager
def advising(lab: Lab, server: Server, line: str) -> Iterator[None]:
    """The agent says something, and afterwards that all is as it was."""
    advise(lab, server, line)
    try:
        yield
    finally:
        advise(lab, server, "ready 100%")


def down_checks(gateway: Gateway) -> set[str]:
    """The kinds of the first server's checks that are down."""
    return {check["check"].partition(":")[0] for check in shown(gateway)["checks"] if check["state"] == "down"}


Fault = Callable[[Lab, Server, Path], AbstractContextManager[None]]
FAULTS: dict[str, tuple[Fault, str]] = {
    "http": (
        lambda _lab, server, _: firewalled(server, "tcp sport 8080 meta length > 100 drop", "output"),
        NOTHING,
    ),
    "udp": (lambda lab, server, _: frozen(lab, server, ECHO), NOTHING),
    "dns": (lambda lab, server, _: killed(lab, server, DNS, start_dns), "port unreachable"),
    "icmp": (lambda _lab, server, _: firewalled(server, "icmp type echo-request drop"), NOTHING),
    "exec": (lambda _lab, server, folder: lagging(folder, server), "exit status 1: lagging"),
    "agent": (lambda lab, server, _: advising(lab, server, "down # disk is full"), "agent says down: disk is full"),
}


@pytest.mark.parametrize(("kind", "fault", "why"), [(kind, *what) for kind, what in FAULTS.items()], ids=FAULTS)
def test_one_check_that_fails_is_enough(gateway: Gateway, folder: Path, kind: str, fault: Fault, why: str) -> None:
    gateway.until(lambda: all_up(gateway))
    with fault(gateway.lab, gateway.lab.servers[0], folder):
        gateway.until(lambda: down_checks(gateway) == {kind})
        view = shown(gateway)
        assert view["state"] == "down"
        assert why in view["why"]
        assert view["reason"] == f"down: {view['why']}"
        assert set(gateway.http(30).answers) == {"b2", "b3"}
    gateway.until(lambda: all_up(gateway))
    assert set(gateway.http(60).answers) == {"b1", "b2", "b3"}


def share_of_first(gateway: Gateway) -> float:
    answers = gateway.http(300).answers
    return answers["b1"] / answers.total()


def test_an_agent_drains_its_server(gateway: Gateway) -> None:
    """New connections go elsewhere, those that are there stay, and `up` alone takes nothing back."""
    server = gateway.lab.servers[0]
    with connections(gateway.lab.client, VIP, 80, 30, pause=0.1) as open_ones, advising(gateway.lab, server, "drain"):
        gateway.until(lambda: shown(gateway)["state"] == "draining")
        view = shown(gateway)
        assert (view["health"], view["advice"], view["reason"]) == ("up", "drain", "agent: drain")
        assert view["effective_weight"] == 0
        assert share_of_first(gateway) == 0
        advise(gateway.lab, server, "up")
        seen = shown(gateway)["checks"][-1]["results"][0]["time"]
        gateway.until(lambda: shown(gateway)["checks"][-1]["results"][0]["time"] > seen + 0.3)
        assert shown(gateway)["state"] == "draining"
        fates = open_ones.report()
        assert {fate.backend for fate in fates} == {"b1", "b2", "b3"}
        assert not any(fate.error for fate in fates)
        advise(gateway.lab, server, "up ready")
        gateway.until(lambda: shown(gateway)["state"] == "up")
    gateway.until(lambda: all_up(gateway))


def test_an_agent_takes_its_server_out(gateway: Gateway) -> None:
    with advising(gateway.lab, gateway.lab.servers[0], "maint"):
        gateway.until(lambda: shown(gateway)["state"] == "down")
        view = shown(gateway)
        assert (view["health"], view["advice"], view["reason"]) == ("up", "maint", "agent: maint")
        assert share_of_first(gateway) == 0
    gateway.until(lambda: all_up(gateway))
    assert share_of_first(gateway) > 0.2


def test_an_agent_weighs_its_server(gateway: Gateway) -> None:
    """In eighths; 50 % of one of three is a fifth of all."""
    server = gateway.lab.servers[0]
    with advising(gateway.lab, server, "50%"):
        gateway.until(lambda: shown(gateway)["weight_share"] == 0.5)
        assert shown(gateway)["reason"] == "up, agent: weight 4/8"
        assert 0.1 < share_of_first(gateway) < 0.3
        advise(gateway.lab, server, "0%")
        gateway.until(lambda: shown(gateway)["weight_share"] == 0)
        assert share_of_first(gateway) == 0
        assert shown(gateway)["health"] == "up"
    gateway.until(lambda: all_up(gateway))
