"""Real connections through changes of backends and weights."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.lab.gateway import VIP, Gateway

CONNECTIONS = 300
CHANGES = 40


def connections(gateway: Gateway, count: int) -> "subprocess.Popen[bytes]":
    """Connections that are opened at once, and each used many times a second until a line comes in."""
    return subprocess.Popen(
        gateway.lab.client.command(sys.executable, "-m", "l4lb.lab.connections", str(VIP), "80", str(count)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def results(process: "subprocess.Popen[bytes]") -> list[dict[str, str]]:
    output, _ = process.communicate(b"\n", timeout=60)
    found: list[dict[str, str]] = json.loads(output)
    return found


@pytest.fixture
def serving(routed: Gateway) -> Gateway:
    routed.daemon.start()
    routed.add_vip("web", f"{VIP}:80/tcp")
    return routed


def test_connections_outlive_changes(serving: Gateway) -> None:
    """None of 300 connections is reset by 40 random changes that leave its backend there."""
    servers = [f"{server.address}:8080" for server in serving.lab.servers]
    numbers = random.Random(3)
    with connections(serving, CONNECTIONS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        for _ in range(CHANGES):
            weight = numbers.randrange(5)
            serving.daemon.cli("backend", "set", "web", numbers.choice(servers), "--weight", str(weight))
        serving.daemon.end(signal.SIGKILL)
        serving.daemon.start()
        for server in servers:
            serving.daemon.cli("backend", "set", "web", server, "--weight", "1")
        found = results(process)
    assert len(found) == CONNECTIONS
    assert [connection for connection in found if connection["error"]] == []
    assert {connection["backend"] for connection in found} == {"b1", "b2", "b3"}


def test_only_connections_to_a_removed_backend_end(serving: Gateway) -> None:
    servers = [f"{server.address}:8080" for server in serving.lab.servers]
    with connections(serving, CONNECTIONS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        serving.daemon.cli("backend", "remove", "web", servers[1])
        serving.daemon.cli("backend", "add", "web", servers[1])
        time.sleep(0.5)
        found = results(process)
    assert {connection["backend"] for connection in found if not connection["error"]} >= {"b1", "b3"}
    assert {connection["backend"] for connection in found if connection["error"]} == {"b2"}


def test_slots_settle(serving: Gateway) -> None:
    """When what was before a change has been silent for the idle timeout, nothing is remembered of it."""
    assert serving.http(20).answers.total() == 20
    serving.daemon.cli("vip", "set", "web", "--idle-timeout", "1")
    serving.daemon.cli("backend", "set", "web", f"{serving.lab.servers[0].address}:8080", "--weight", "3")
    assert serving.daemon.status()["vips"][0]["settling"]
    serving.until(lambda: not serving.daemon.status()["vips"][0]["settling"])
    before = serving.daemon.status()["flows"]["flow_recorded"]
    assert serving.http(100).answers.total() == 100
    assert serving.daemon.status()["flows"]["flow_recorded"] == before


def test_backends_of_a_new_vip_serve_at_once(serving: Gateway) -> None:
    """Before its first packet there is no flow that a change could break."""
    assert not serving.daemon.status()["vips"][0]["settling"]
