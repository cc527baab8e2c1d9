"""Checks out to the probers, their results into the book."""

from collections.abc import Mapping

import pytest

from l4lb import watching
from l4lb.changes import apply_change, find_vip
from l4lb.health.book import HealthBook
from l4lb.health.check import Check
from l4lb.health.rules import State
from l4lb.model import Backend, Config, Vip
from l4lb.probes.target import NoWay, Target
from l4lb.watching import Watching
from tests.unit.fake_probers import FakeProbers

Arguments = Mapping[str, object]

WEB: tuple[str, Arguments] = (
    "vip.add",
    {
        "name": "web", "address": "192.0.2.10:80", "protocol": "tcp", "checks": ["tcp", "http:path=/a"],
        "interval": 2, "fast_interval": 0.5, "timeout": 0.3, "rise": 2, "fall": 2,
    },
)  # fmt: skip
B1: tuple[str, Arguments] = ("backend.add", {"vip": "web", "address": "10.0.0.1:8080"})
B2: tuple[str, Arguments] = ("backend.add", {"vip": "web", "address": "10.0.0.2"})
TCP1, HTTP1 = "web 10.0.0.1:8080 tcp", "web 10.0.0.1:8080 http:path=/a"
TCP2, HTTP2 = "web 10.0.0.2:80 tcp", "web 10.0.0.2:80 http:path=/a"


def _unasked(*_: object) -> NoWay:
    raise AssertionError("no VIP here is probed by way of the dataplane")


class Watched:
    """Watching, its probers, and what was told of backends."""

    def __init__(self) -> None:
        self.config = Config()
        self.told: list[tuple[str, str, str, str]] = []
        self.book = HealthBook()
        self.watching = Watching(self.book, self._changed, _unasked)
        self.probers: FakeProbers = self.watching._probers  # type: ignore[assignment]

    def _changed(self, vip: Vip, backend: Backend, what: str, why: str) -> None:
        self.told.append((vip.name, str(backend.endpoint), what, why))

    def follow(self, *requests: tuple[str, Arguments]) -> list[tuple[str, str]]:
        """Goes on with the configuration that they make; answers what the probers were told."""
        for operation, arguments in requests:
            self.config = apply_change(self.config, operation, arguments)
        self.probers.done.clear()
        self.watching.follow(self.config)
        return sorted(self.probers.done)

    def suspect(self, number: int = 0) -> list[tuple[str, str]]:
        """What the probers are told when a backend's connections speak against it."""
        self.probers.done.clear()
        vip = find_vip(self.config, "web")
        self.watching.suspect(vip, vip.backends[number], "3 handshakes unanswered")
        return self.probers.done

    def states(self) -> list[State]:
        return [entry.health.state for entry in self.book.entries.values()]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(watching, "Probers", FakeProbers)
    return Watched()


def test_each_check_of_each_backend_is_a_job(watched: Watched) -> None:
    own = ("backend.set", {"vip": "web", "address": "10.0.0.2", "interval": 5, "jitter": 0.2, "check_port": 9})
    assert watched.follow(WEB, B1, B2, own) == [("set", id_) for id_ in (HTTP1, TCP1, HTTP2, TCP2)]
    first, second = watched.probers.jobs[HTTP1], watched.probers.jobs[TCP2]
    assert first.check == Check("http", (("path", "/a"),))
    assert first.target == Target("10.0.0.1", 8080, "192.0.2.10", 80, "tcp", "web")
    assert (first.interval, first.timeout, first.jitter) == (2, 0.3, 0.1)
    assert second.target == Target("10.0.0.2", 9, "192.0.2.10", 80, "tcp", "web")
    assert (second.interval, second.timeout, second.jitter) == (5, 0.3, 0.2)


def test_what_does_not_change_is_not_disturbed(watched: Watched) -> None:
    watched.follow(WEB, B1, B2)
    assert watched.follow(("backend.set", {"vip": "web", "address": "10.0.0.2", "weight": 5, "rise": 9})) == []
    assert watched.follow(("backend.drain", {"vip": "web", "address": "10.0.0.2"})) == []
    assert watched.follow(("vip.set", {"name": "web", "checks": ["http:path=/a", "tcp"], "mode": "fullnat"})) == []
    assert watched.follow(("vip.set", {"name": "web", "checks": ["tcp"]})) == [("drop", HTTP1), ("drop", HTTP2)]
    assert watched.follow(("backend.set", {"vip": "web", "address": "10.0.0.2", "timeout": 1})) == [("set", TCP2)]
    assert watched.follow(("backend.remove", {"vip": "web", "address": "10.0.0.1:8080"})) == [("drop", TCP1)]
    assert watched.follow(("vip.set", {"name": "web", "checks": []})) == [("drop", TCP2)]
    assert watched.follow(("vip.set", {"name": "web", "checks": ["tcp"]})) == [("set", TCP2)]
    assert watched.follow(("vip.remove", {"name": "web"})) == [("drop", TCP2)]
    assert watched.probers.jobs == {}


def test_results_are_those_of_their_check_wherever_it_stands(watched: Watched) -> None:
    """A job goes on while its check moves to another place among the checks."""
    watched.follow(WEB, B1)
    watched.probers.tell(HTTP1, "HTTP 503")
    watched.follow(("vip.set", {"name": "web", "checks": ["icmp", "http:path=/a", "tcp"]}))
    watched.probers.tell(TCP1, "")
    (entry,) = watched.book.entries.values()
    assert [check.state for check in entry.health.checks] == [State.UNKNOWN, State.DOWN, State.UP]


def test_moves_are_told_once_with_their_reason(watched: Watched) -> None:
    watched.follow(WEB, B1, B2)
    for id_ in (TCP1, HTTP1, TCP2, TCP1, HTTP1):
        watched.probers.tell(id_, "")
    for _ in range(3):
        watched.probers.tell(HTTP1, "HTTP 503")
    watched.probers.tell(HTTP2, "connection refused")
    for _ in range(3):
        watched.probers.tell(HTTP1, "")
    assert watched.told == [
        ("web", "10.0.0.1:8080", "up", "passed"),
        ("web", "10.0.0.1:8080", "down", "HTTP 503 \N{MULTIPLICATION SIGN}2"),
        ("web", "10.0.0.2:80", "down", "connection refused"),
        ("web", "10.0.0.1:8080", "up", "passed \N{MULTIPLICATION SIGN}2"),
    ]


def test_who_is_told_of_has_the_configuration_of_now(watched: Watched) -> None:
    seen: list[tuple[Vip, Backend]] = []
    watched.watching._changed = lambda vip, backend, what, why: seen.append((vip, backend))
    watched.follow(WEB, B1)
    watched.follow(("backend.set", {"vip": "web", "address": "10.0.0.1:8080", "weight": 7}))
    watched.probers.tell(TCP1, "connection refused")
    (vip,) = watched.config.vips
    assert seen == [(vip, vip.backends[0])]


def test_a_backend_that_is_changing_is_looked_at_more_often(watched: Watched) -> None:
    """By the check that disagrees with what is known, and by no other."""
    watched.follow(WEB, B1, B2)
    assert set(watched.probers.intervals.values()) == {0.5}, "all are unknown"
    for id_ in (TCP1, HTTP1, TCP2, HTTP2):
        watched.probers.tell(id_, "")
    assert set(watched.probers.intervals.values()) == {2.0}
    watched.probers.tell(HTTP1, "HTTP 503")
    assert watched.probers.intervals == {TCP1: 2.0, HTTP1: 0.5, TCP2: 2.0, HTTP2: 2.0}, "it disagrees"
    watched.probers.tell(HTTP1, "HTTP 503")
    assert watched.states() == [State.DOWN, State.UP]
    assert watched.probers.intervals[HTTP1] == 2.0, "it is down, and that is what it says"
    watched.probers.tell(HTTP1, "")
    assert watched.probers.intervals == {TCP1: 2.0, HTTP1: 0.5, TCP2: 2.0, HTTP2: 2.0}
    watched.probers.tell(HTTP1, "")
    assert set(watched.probers.intervals.values()) == {2.0}


def test_the_pace_outlives_a_change(watched: Watched) -> None:
    watched.follow(WEB, B1)
    for id_ in (TCP1, HTTP1):
        watched.probers.tell(id_, "")
    watched.probers.tell(HTTP1, "HTTP 503")
    watched.follow(B2)
    assert watched.probers.intervals == {TCP1: 2.0, HTTP1: 0.5, TCP2: 0.5, HTTP2: 0.5}
    watched.follow(("vip.set", {"name": "web", "interval": 3, "fast_interval": 1}))
    assert watched.probers.intervals == {TCP1: 3.0, HTTP1: 1.0, TCP2: 1.0, HTTP2: 1.0}
    watched.follow(("vip.set", {"name": "web", "fast_interval": 0}))
    assert set(watched.probers.intervals.values()) == {3.0}


def test_a_suspected_backend_is_probed_at_once(watched: Watched) -> None:
    """All its checks; the first failure takes it out, and a success of each clears it."""
    watched.follow(WEB, B1, B2)
    for id_ in (TCP1, HTTP1, TCP2, HTTP2):
        watched.probers.tell(id_, "")
    assert sorted(watched.suspect()) == [("probe", HTTP1), ("probe", TCP1)]
    assert watched.probers.intervals == {TCP1: 0.5, HTTP1: 0.5, TCP2: 2.0, HTTP2: 2.0}
    assert watched.suspect() == [], "it is suspected already"
    watched.probers.tell(TCP1, "")
    assert watched.probers.intervals[TCP1] == 0.5
    watched.probers.tell(HTTP1, "")
    assert set(watched.probers.intervals.values()) == {2.0}
    assert watched.suspect() != []
    watched.told.clear()
    watched.probers.tell(HTTP1, "HTTP 503")
    assert watched.told == [("web", "10.0.0.1:8080", "down", "HTTP 503; suspected: 3 handshakes unanswered")]
    assert watched.suspect() == [], "it is down"


def test_without_checks_there_is_nobody_to_decide_about_a_suspicion(watched: Watched) -> None:
    watched.follow(WEB, B1, ("vip.set", {"name": "web", "checks": []}))
    assert watched.suspect() == []
    assert watched.states() == [State.UNKNOWN]


def test_the_same_server_is_watched_for_each_of_its_vips(watched: Watched) -> None:
    other = ("vip.add", {**WEB[1], "name": "other", "address": "192.0.2.11:80"})
    watched.follow(WEB, other, B1, ("backend.add", {"vip": "other", "address": "10.0.0.1:8080"}))
    watched.probers.tell(TCP1, "connection refused")
    assert [key[0] for key, entry in watched.book.entries.items() if entry.health.state is State.DOWN] == ["web"]
