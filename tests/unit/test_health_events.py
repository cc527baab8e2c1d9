"""Events: a reader gets every one once, in order, or is told how many it lost."""

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from l4lb.health.events import Event, Log


def event(number: int) -> Event:
    return Event(number, "web", "10.0.0.1:80", "down", f"HTTP {number}", "8 slots moved")


def told(log: Log, since: int) -> list[int]:
    """The times of the events from a number on."""
    events = log.plain(since)["events"]
    assert isinstance(events, list)
    assert log.has(since) == bool(events)
    return [each["time"] for each in events]


@given(st.integers(1, 10**13), st.integers(1, 8), st.lists(st.integers(0, 12), max_size=12))
def test_a_reader_misses_nothing_without_being_told(first: int, kept: int, bursts: list[int]) -> None:
    """Whatever comes between two looks: what it got and what it lost are all that there was."""
    log, since, count = Log(first, kept), 0, 0
    for burst in bursts:
        for number in range(count, count + burst):
            log.add(event(number))
        lost = max(0, burst - kept)
        assert told(log, since) == list(range(count + lost, count + burst))
        assert log.plain(since)["lost"] == lost
        since, count = log.next, count + burst
        assert since == first + count
    assert told(log, since) == []


def test_who_read_another_log_gets_all_of_this_one() -> None:
    """As after a restart of the daemon, by whatever number it goes on."""
    log = Log(1_000, 2)
    assert not log.has(0)
    for number in range(3):
        log.add(event(number))
    for since in (-1, 0, 999, 1_000, 1_004):
        assert told(log, since) == [1, 2]
        assert log.plain(since)["lost"] == 1
    assert told(log, 1_002) == [2]
    assert told(log, 1_003) == []


def test_an_event_says_whom_it_is_about_why_it_was_and_what_became_of_it() -> None:
    assert str(event(503)) == "backend 10.0.0.1:80 of VIP web down: HTTP 503; 8 slots moved"
    assert str(Event(0, "web", None, "panic", "33 % is healthy", "")).startswith("VIP web panic: 33 % is healthy")


@given(st.builds(Event, st.floats(0, 1e10), st.text(), st.none() | st.text(), st.text(), st.text(), st.text()))
def test_events_pass_the_wire(given_: Event) -> None:
    log = Log()
    log.add(given_)
    (sent,) = msgpack.unpackb(msgpack.packb(log.plain()))["events"]
    assert Event(**sent) == given_
