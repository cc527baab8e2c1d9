"""Connections outlive changes under every scheduler, by nat over IPv6 and by fullnat; and are counted right."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from l4lb.client import Client
from tests.lab.gateway import CLIENTS, Gateway
from tests.lab.shuffle import Shuffle, judge, shuffle, using

CONNECTIONS = 200
CHANGES = 40


@contextmanager
def served(gateway: Gateway, mode: str = "nat", version: int = 4, scheduler: str = "maglev") -> Iterator[Shuffle]:
    """A VIP for as long as the with block runs."""
    yield shuffle(gateway, mode, version, scheduler)
    Client(gateway.daemon.socket).call("vip.remove", name="web")


@pytest.mark.parametrize("scheduler", ["round-robin", "random", "source-hash"])
def test_every_scheduler(wide_running: Gateway, scheduler: str) -> None:
    sources = CLIENTS if scheduler == "source-hash" else ()
    with (
        served(wide_running, scheduler=scheduler) as changes,
        using(wide_running, CONNECTIONS, sources=sources) as in_use,
    ):
        changes.some(CHANGES)
        judge(in_use.report(), changes)


def test_least_connections(wide_running: Gateway) -> None:
    """Nor is the count of the open ones wrong at the end, when they are silent, and when they are closed."""
    with served(wide_running, scheduler="least-connections") as changes:
        with using(wide_running, CONNECTIONS) as in_use:
            changes.some(CHANGES)
            living = judge(in_use.report(), changes)
            # Who outlived the removal of its backend, by not speaking before it was back, is known no more.
            wanted = Counter(fate.backend for fate in living if not changes.explains(fate))
            for name, found in open_connections(wide_running).items():
                assert abs(found - wanted[name]) <= 0.05 * wanted[name], (name, found, wanted)
            in_use.close()
        wide_running.until(lambda: not any(open_connections(wide_running).values()))


def open_connections(gateway: Gateway) -> dict[str, int]:
    """By the servers' names."""
    names = {str(server.address): server.name for server in gateway.lab.servers}
    (vip,) = gateway.daemon.status()["vips"]
    return {names[backend["address"]]: backend["open_connections"] for backend in vip["backends"]}


@pytest.mark.parametrize(("mode", "version"), [("nat", 6), ("fullnat", 4)])
def test_other_ways(wide_running: Gateway, mode: str, version: int) -> None:
    # By fullnat what is left of a connection to a backend that is gone meets silence.
    patience = 2 if mode == "fullnat" else 10
    with (
        served(wide_running, mode, version) as changes,
        using(wide_running, CONNECTIONS, version, patience=patience) as in_use,
    ):
        changes.some(CHANGES)
        judge(in_use.report(), changes)
