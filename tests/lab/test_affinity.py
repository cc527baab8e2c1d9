"""Real connections through changes of backends and weights."""

import signal
import time
from collections import Counter

from l4lb.lab.connections import connections
from tests.lab.gateway import VIP, Gateway
from tests.lab.shuffle import judge, shuffle, using


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
