"""Real connections through changes of backends and weights."""

import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from l4lb.client import Client
from l4lb.lab.connections import Connections, Fate, connections
from l4lb.model import Endpoint, IPAddress
from tests.lab.gateway import CLIENTS, VIP, VIPS, Gateway
from tests.lab.shuffle import Shuffle

REMOVABLE = ("b4", "b5", "b6")


def shuffle(
    gateway: Gateway, mode: str = "nat", version: int = 4, scheduler: str = "maglev", idle: int = 300
) -> Shuffle:
    """A daemon with a VIP that has all the lab's servers, and what changes it."""
    gateway.daemon.start()
    client = Client(gateway.daemon.socket)
    client.call(
        "vip.add", name="web", address=str(Endpoint(VIPS[version], 80)), protocol="tcp", mode=mode, scheduler=scheduler,
        idle_timeout=idle,
    )  # fmt: skip
    port = 80 if mode == "dsr" else 8080
    backends = {server.name: Endpoint(server.address_of(version), port) for server in gateway.lab.servers}
    for backend in backends.values():
        client.call("backend.add", vip="web", address=str(backend))
    return Shuffle(client, "web", backends, REMOVABLE)


@contextmanager
def using(
    gateway: Gateway,
    count: int,
    version: int = 4,
    sources: Sequence[IPAddress] = (),
    pause: float = 0,
    patience: float = 10,
) -> Iterator[Connections]:
    """Connections to the VIP; for each that breaks another one is opened."""
    with connections(gateway.lab.client, VIPS[version], 80, count, pause, patience, True, sources) as made:
        yield made


def judge(fates: list[Fate], changes: Shuffle) -> list[Fate]:
    """None broke but those whose backend was taken away, and none began where none may; those that live on."""
    broken = [fate for fate in fates if fate.error]
    assert [fate for fate in broken if not changes.explains(fate)] == []
    assert [fate for fate in fates if not fate.error and not changes.allows(fate)] == []
    living = [fate for fate in fates if not fate.error]
    assert {fate.backend for fate in living} >= {"b1", "b2", "b3"}
    return living


def test_a_thousand_connections_through_two_hundred_changes(wide: Gateway) -> None:
    """And through kill -9 of the daemon. Three servers are never removed, so whoever was there at first still is."""
    changes = shuffle(wide)
    with using(wide, 1000) as in_use:
        changes.some(100)
        wide.daemon.end(signal.SIGKILL)
        wide.daemon.start()
        changes.some(100)
        fates = in_use.report()
    living = judge(fates, changes)
    began = min(change.began for change in changes.changes if change.began)
    first = Counter(fate.backend for fate in living if fate.opened < began)
    assert set(first) >= {"b1", "b2", "b3"}
    assert sum(first.values()) > 400
    assert len(fates) > 1300, "the removals hit nobody"


@pytest.mark.parametrize("scheduler", ["source-hash", "round-robin", "least-connections", "random"])
def test_every_scheduler(wide: Gateway, scheduler: str) -> None:
    changes = shuffle(wide, scheduler=scheduler)
    with using(wide, 200, sources=CLIENTS if scheduler == "source-hash" else ()) as in_use:
        changes.some(40)
        living = judge(in_use.report(), changes)
        if scheduler == "least-connections":
            # Who outlived the removal of its backend, by not speaking before it was back, is known no more.
            wanted = Counter(fate.backend for fate in living if not changes.explains(fate))
            for name, open_ in open_connections(wide).items():
                assert abs(open_ - wanted[name]) <= 0.05 * wanted[name], (name, open_, wanted)
            in_use.close()
            wide.until(lambda: not any(open_connections(wide).values()))


def open_connections(gateway: Gateway) -> dict[str, int]:
    """By the servers' names."""
    names = {str(server.address): server.name for server in gateway.lab.servers}
    (vip,) = gateway.daemon.status()["vips"]
    return {names[backend["address"]]: backend["open_connections"] for backend in vip["backends"]}


@pytest.mark.parametrize(("mode", "version"), [("nat", 6), ("fullnat", 4)])
def test_other_modes(wide: Gateway, mode: str, version: int) -> None:
    changes = shuffle(wide, mode, version)
    # By fullnat what is left of a connection to a backend that is gone meets silence.
    with using(wide, 200, version, patience=2 if mode == "fullnat" else 10) as in_use:
        changes.some(40)
        judge(in_use.report(), changes)


def test_dsr(wide_segment: Gateway) -> None:
    changes = shuffle(wide_segment, "dsr")
    with using(wide_segment, 200) as in_use:
        changes.some(40)
        judge(in_use.report(), changes)


def test_a_period_of_quiet_begins_anew_with_each_change(wide: Gateway) -> None:
    """Changes come in pairs, so that every other table is in the same place of the map."""
    changes = shuffle(wide, idle=3)
    with using(wide, 100, pause=1.2) as in_use:
        for turn in range(9):
            changes.weigh("b1", 0)
            changes.weigh("b1", 2 + turn % 2)
            time.sleep(0.5)
        judge(in_use.report(), changes)


def test_only_connections_to_a_removed_backend_end(wide: Gateway) -> None:
    changes = shuffle(wide)
    with connections(wide.lab.client, VIP, 80, 300) as in_use:
        changes.remove("b2")
        changes.add("b2", 1)
        time.sleep(0.5)
        fates = in_use.report()
    assert {fate.backend for fate in fates if not fate.error} >= {"b1", "b3"}
    assert {fate.backend for fate in fates if fate.error} == {"b2"}


def test_slots_settle(wide: Gateway) -> None:
    """When what was before a change has been silent for the idle timeout, nothing is remembered of it."""
    changes = shuffle(wide, idle=1)
    assert not wide.daemon.status()["vips"][0]["settling"], "before its first packet there is no flow to keep"
    assert wide.http(20).answers.total() == 20
    changes.weigh("b1", 3)
    assert wide.daemon.status()["vips"][0]["settling"]
    wide.until(lambda: not wide.daemon.status()["vips"][0]["settling"])
    before = wide.daemon.status()["flows"]["flow_recorded"]
    assert wide.http(100).answers.total() == 100
    assert wide.daemon.status()["flows"]["flow_recorded"] == before
