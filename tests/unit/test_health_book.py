"""The book of health: what is known stays known through changes, and what is forwarded by follows from it."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4lb.changes import apply_change, find_vip
from l4lb.health.book import HealthBook
from l4lb.health.check import Check
from l4lb.health.result import Result
from l4lb.health.rules import State
from l4lb.model import Admin, Backend, Config, Vip
from tests.unit.strategies import configs

Request = tuple[str, Mapping[str, object]]

WELL, ILL = Result(True, "", 0.01), Result(False, "HTTP 503", 0.01)
WEB: Request = (
    "vip.add",
    {"name": "web", "address": "192.0.2.10:80", "protocol": "tcp", "checks": ["tcp", "icmp"], "fall": 2, "rise": 2},
)


def web(number: int, **more: object) -> Request:
    return "backend.add", {"vip": "web", "address": f"10.0.0.{number}", **more}


def after(*requests: Request, config: Config = Config()) -> Config:  # noqa: B008 - it does not change
    for operation, arguments in requests:
        config = apply_change(config, operation, arguments)
    return config


THREE = after(WEB, web(1), web(2, weight=3), web(3))


class Known:
    """A book that follows a configuration; a second passes with each result."""

    def __init__(self, config: Config = THREE) -> None:
        self.book, self.config, self.now = HealthBook(), config, 100.0
        self.book.follow(config, self.now)

    @property
    def vip(self) -> Vip:
        return self.config.vips[0]

    def change(self, *requests: Request) -> None:
        self.config = after(*requests, config=self.config)
        self.book.follow(self.config, self.now)

    def tell(self, number: int, *results: Result, check: int | None = None) -> None:
        """Results of one check of the backend 10.0.0.`number`, or of each."""
        backend = self.backend(number)
        for result in results:
            self.now += 1
            for index in range(len(self.vip.checks)) if check is None else [check]:
                self.book.observe(self.vip, backend, index, result, self.now)

    def backend(self, number: int) -> Backend:
        return next(found for found in self.vip.backends if str(found.endpoint.address) == f"10.0.0.{number}")

    def state(self, number: int) -> State:
        return self.book.health(self.vip, self.backend(number), self.now).state

    def served(self) -> dict[int, int]:
        """Weights, by the last number of the address."""
        (vip,) = self.book.served(self.config, self.now).vips
        return {int(str(backend.endpoint.address).rpartition(".")[2]): backend.weight for backend in vip.backends}


def test_what_is_known_stays_while_everything_else_changes() -> None:
    known = Known()
    known.tell(1, ILL)
    known.tell(2, WELL)
    before = dict(known.book.entries)
    known.now += 50
    known.change(
        ("vip.set", {"name": "web", "mode": "ipip", "interval": 9, "panic_share": 9}),
        ("backend.set", {"vip": "web", "address": "10.0.0.1", "weight": 7, "rise": 9}),
        ("backend.drain", {"vip": "web", "address": "10.0.0.2"}),
        web(4),
    )
    entries = dict(known.book.entries)
    new = entries.pop(("web", known.backend(4).endpoint))
    assert entries == before
    assert (new.health.state, new.health.began) == (State.UNKNOWN, known.now)


def test_of_a_backend_that_is_gone_nothing_is_kept() -> None:
    """One that is added with the same address later is another."""
    known = Known()
    known.tell(1, ILL)
    known.change(("backend.remove", {"vip": "web", "address": "10.0.0.1"}))
    assert [str(endpoint) for _, endpoint in known.book.entries] == ["10.0.0.2:80", "10.0.0.3:80"]
    known.change(web(1))
    assert known.state(1) is State.UNKNOWN
    known.change(("vip.remove", {"name": "web"}))
    assert known.book.entries == {}


def test_a_server_of_two_vips_is_looked_at_twice() -> None:
    other = ("vip.add", {**WEB[1], "name": "other", "address": "192.0.2.11:80"})
    known = Known(after(WEB, web(1), other, ("backend.add", {"vip": "other", "address": "10.0.0.1"})))
    first, second = known.config.vips
    known.book.observe(second, second.backends[0], 0, ILL, known.now)
    states = [known.book.health(vip, vip.backends[0], known.now).state for vip in (first, second)]
    assert states == [State.UNKNOWN, State.DOWN]
    assert [vip.backends != () for vip in known.book.served(known.config, known.now).vips] == [True, False]


@pytest.mark.parametrize(
    ("checks", "states"),
    [
        (["tcp", "icmp"], [State.DOWN, State.UP]),
        (["icmp", "tcp"], [State.DOWN, State.UP]),
        (["icmp"], [State.UP, State.UP]),
        (["tcp"], [State.DOWN, State.UP]),
        (["tcp:port=81", "icmp"], [State.DOWN, State.UNKNOWN]),  # one that was down is not up for a change of words
        (["udp"], [State.DOWN, State.UNKNOWN]),
        ([], [State.UNKNOWN, State.UNKNOWN]),
    ],
)
def test_checks_that_change(checks: list[str], states: list[State]) -> None:
    """The first backend failed its tcp check, the second is well."""
    known = Known(after(WEB, web(1), web(2)))
    known.tell(1, ILL, check=0)
    known.tell(1, WELL, check=1)
    known.tell(2, WELL)
    changed = after(("vip.set", {"name": "web", "checks": checks}), config=known.config)
    (vip,) = changed.vips
    asked = [known.book.health(vip, backend, known.now).state for backend in vip.backends]
    assert asked == states, "also before it is followed"
    known.config = changed
    known.book.follow(changed, known.now)
    assert [known.state(number) for number in (1, 2)] == states
    assert {entry.checks for entry in known.book.entries.values()} == {tuple(map(Check.parse, checks))}
    known.tell(1, WELL, WELL)
    assert known.state(1) is (State.UP if checks else State.UNKNOWN)


def test_each_backend_is_judged_by_its_own_rules() -> None:
    known = Known(after(WEB, web(1), web(2, fall=3, initial="down", rise=1)))
    assert known.state(2) is State.DOWN
    for number in (1, 2):
        known.tell(number, WELL, ILL, ILL)
    assert (known.state(1), known.state(2)) == (State.DOWN, State.UP)
    known.tell(2, ILL)
    assert known.state(2) is State.DOWN


def test_who_takes_flows() -> None:
    """Who is down, disabled or in maintenance is left out; who drains, or has no weight, is there and takes none."""
    agent = ("vip.set", {"name": "web", "checks": ["agent:port=9"]})
    known = Known(after(WEB, agent, *map(web, range(1, 8))))
    assert known.served() == dict.fromkeys(range(1, 8), 1)
    known.tell(2, ILL)
    known.tell(4, Result(True, "", 0.01, "drain"))
    known.tell(5, Result(True, "", 0.01, "maint"))
    known.tell(6, Result(True, "", 0.01, "50%"))
    known.change(
        ("backend.disable", {"vip": "web", "address": "10.0.0.1"}),
        ("backend.drain", {"vip": "web", "address": "10.0.0.3"}),
        ("backend.set", {"vip": "web", "address": "10.0.0.7", "weight": 0}),
        web(8, weight=3),
    )
    assert known.served() == {3: 0, 4: 0, 6: 1, 7: 0, 8: 6}
    known.tell(2, WELL, WELL)
    known.change(("backend.resume", {"vip": "web", "address": "10.0.0.1"}))
    assert known.served() == {1: 2, 2: 2, 3: 0, 4: 0, 6: 1, 7: 0, 8: 6}


def test_all_else_is_served_as_it_is_configured() -> None:
    known = Known(after(WEB, web(1, weight=5, priority=2, check_port=9), ("vip.set", {"name": "web", "mss": 1400})))
    (served,) = known.book.served(known.config, known.now).vips
    assert served == replace(known.vip, backends=(replace(known.vip.backends[0], weight=1),)), "reduced, and no more"


@given(configs)
def test_as_long_as_nothing_is_known_all_are_served(config: Config) -> None:
    """But for what the operator has taken out, and what is to be down until it is seen well."""
    book = HealthBook()
    book.follow(config, 5.0)
    served = book.served(config, 5.0)
    assert replace(served, vips=()) == replace(config, vips=())
    for vip, found in zip(config.vips, served.vips, strict=True):
        assert replace(found, backends=()) == replace(vip, backends=())
        weights = {backend.endpoint: backend.weight for backend in found.backends}
        assert list(weights) == [backend.endpoint for backend in vip.backends if backend.endpoint in weights], (
            "in order"
        )
        for backend in vip.backends:
            begins_down = vip.checks and vip.rules_for(backend).initial is State.DOWN
            if backend.admin is Admin.DISABLED:
                assert backend.endpoint not in weights
            elif backend.admin is Admin.DRAIN or not backend.weight:
                assert weights.get(backend.endpoint, 0) == 0
            else:
                assert backend.endpoint in weights or begins_down


def test_a_suspicion_is_news_once() -> None:
    known = Known()
    known.tell(1, WELL)
    assert known.book.suspect(known.vip, known.backend(1), "unanswered", known.now)
    assert not known.book.suspect(known.vip, known.backend(1), "unanswered", known.now + 1)
    assert "suspected: unanswered" in known.book.picture(known.vip, known.now).backends[0].reason
    assert known.served().keys() == {1, 2, 3}
    known.now += 2
    known.tell(1, WELL)
    assert known.book.picture(known.vip, known.now).backends[0].reason == "up"
    assert known.book.suspect(known.vip, known.backend(1), "unanswered", known.now), "it was cleared"
    known.tell(2, ILL)
    assert not known.book.suspect(known.vip, known.backend(2), "unanswered", known.now), "it is down"
    known.change(("vip.set", {"name": "web", "checks": []}))
    assert not known.book.suspect(known.vip, known.backend(1), "unanswered", known.now), "nobody could clear it"


def test_the_reason_is_of_all_checks_that_failed() -> None:
    """Also of one that fails when the backend is down already."""
    known = Known()
    for index, reason in enumerate(("HTTP 503", "no answer")):
        known.tell(1, Result(False, reason, 0.01), check=index)
        assert known.book.picture(known.vip, known.now).backends[0].reason.endswith(reason)
    assert known.book.picture(known.vip, known.now).backends[0].reason == "down: HTTP 503; no answer"


def test_weights_grow_with_time() -> None:
    known = Known(after(WEB, ("vip.set", {"name": "web", "slow_start": 70}), web(1), web(2)))
    assert known.book.next_change(known.config, known.now) is None
    known.tell(1, ILL, WELL, WELL)
    assert known.served() == {1: 1, 2: 8}
    began = known.now
    for step in range(1, 8):
        due = known.book.next_change(known.config, known.now)
        assert due == pytest.approx(began + 10 * step)
        known.now = due - 0.001
        before = known.served()
        known.now = due
        assert known.served()[1] / known.served()[2] > before[1] / before[2]
    assert known.served() == {1: 1, 2: 1}
    assert known.book.next_change(known.config, known.now) is None


def test_the_first_of_several_moments_comes_next() -> None:
    slow: Request = ("vip.set", {"name": "web", "slow_start": 70})
    other = ("vip.add", {**WEB[1], "name": "other", "address": "192.0.2.11:80", "slow_start": 7})
    two = [("backend.add", {"vip": "other", "address": f"10.0.0.{number}"}) for number in (1, 2)]
    known = Known(after(WEB, slow, web(1), web(2), other, *two))
    for vip in known.config.vips:
        for result in (ILL, WELL, WELL):
            for index in range(2):
                known.book.observe(vip, vip.backends[0], index, result, known.now)
    assert find_vip(known.config, "other").health.slow_start == 7
    assert known.book.next_change(known.config, known.now) == pytest.approx(known.now + 1)


_requests = st.one_of(
    st.sampled_from(["drain", "disable", "resume"]).flatmap(
        lambda verb: st.sampled_from([1, 2, 3]).map(
            lambda number: (f"backend.{verb}", {"vip": "web", "address": f"10.0.0.{number}"})
        )
    ),
    st.fixed_dictionaries(
        {"vip": st.just("web"), "address": st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"])},
        optional={"weight": st.integers(0, 3), "priority": st.integers(0, 1), "slow_start": st.sampled_from([0, 7])},
    ).map(lambda arguments: ("backend.set", arguments)),
    st.fixed_dictionaries(
        {"name": st.just("web")},
        optional={
            "checks": st.lists(st.sampled_from(["tcp", "icmp", "agent:port=9"]), unique=True),
            "panic_share": st.sampled_from([0, 50]),
            "panic": st.sampled_from(["spread", "refuse"]),
            "slow_start": st.sampled_from([0, 7]),
        },
    ).map(lambda arguments: ("vip.set", arguments)),
)
_results = st.builds(
    Result, st.booleans(), st.just("said"), st.just(0.01), st.sampled_from([None, None, "drain", "ready", "0%", "100%"])
)
_steps = st.lists(
    st.tuples(st.just("request"), _requests)
    | st.tuples(st.just("result"), st.tuples(st.integers(0, 2), st.integers(0, 2), _results))
    | st.tuples(st.just("suspect"), st.integers(0, 2))
    | st.tuples(st.just("wait"), st.sampled_from([0.5, 1, 3])),
    max_size=30,
)


@settings(deadline=None)
@given(_steps)
def test_what_follows_is_of_what_is_known_now(steps: list[tuple[str, object]]) -> None:
    """Whatever happened before: all that a book tells is what one tells that is opened with the same entries.

    And weights move only by what happens, or at the moments that were told before.
    """
    known = Known()
    for what, value in steps:
        before, due = known.book.served(known.config, known.now), known.book.next_change(known.config, known.now)
        quiet = what == "wait"
        match what, value:
            case "request", (operation, arguments):
                known.change((operation, arguments))
            case "result", (number, index, result) if index < len(known.vip.checks):
                known.now += 0.25
                quiet = due is None or known.now < due
                transition = known.book.observe(known.vip, known.vip.backends[number], index, result, known.now)
                quiet = quiet and transition is None
            case "suspect", int(number):
                known.book.suspect(known.vip, known.vip.backends[number], "unanswered", known.now)
                quiet = True
            case "wait", float() | int() as seconds:
                known.now += seconds
                quiet = due is None or known.now < due
        fresh = HealthBook(known.book.entries)
        assert known.book.served(known.config, known.now) == fresh.served(known.config, known.now)
        assert known.book.next_change(known.config, known.now) == fresh.next_change(known.config, known.now)
        for vip in known.config.vips:
            assert known.book.picture(vip, known.now) == fresh.picture(vip, known.now)
        if quiet:
            assert known.book.served(known.config, known.now) == before


SLOW = Result(True, "", 0.5)


def compared(known: Known, times: int) -> list[tuple[str, str]]:
    """What comes of so many intervals in which the first backend is slow: whose weight moves, and to what."""
    told: list[tuple[str, str]] = []
    for _ in range(times):
        known.now += known.vip.health.interval
        for backend in known.vip.backends:
            slow = str(backend.endpoint.address) == "10.0.0.1"
            for index in range(len(known.vip.checks)):
                known.book.observe(known.vip, backend, index, SLOW if slow else WELL, known.now)
        told += [(str(backend.endpoint), what) for backend, what, _ in known.book.compare(known.vip, {}, known.now)]
    return told


def test_a_backend_that_is_slow_gets_less() -> None:
    known = Known(after(WEB, ("vip.set", {"name": "web", "degrade": True}), *map(web, (1, 2, 3))))
    told = compared(known, 60)
    assert told == [("10.0.0.1:80", f"weight {eighths}/8") for eighths in range(7, 1, -1)]
    assert known.served() == {1: 1, 2: 4, 3: 4}
    reason = known.book.picture(known.vip, known.now).backends[0].reason
    assert reason.startswith("up, degraded to 2/8: probes take 1000.0 ms, usual are 20.0 ms")
    assert known.book.compare(known.vip, {}, known.now + 0.1) == [], "not before an interval is over"


@pytest.mark.parametrize(
    "request_",
    [
        ("vip.set", {"name": "web", "degrade": False}),
        ("backend.set", {"vip": "web", "address": "10.0.0.1", "degrade": False}),
    ],
)
def test_who_degrades_no_more_has_its_whole_weight_at_once(request_: Request) -> None:
    """In what is served by the change already; and when it begins again, what was before is forgotten."""
    known = Known(after(WEB, ("vip.set", {"name": "web", "degrade": True}), *map(web, (1, 2, 3))))
    compared(known, 60)
    changed = after(request_, config=known.config)
    (served,) = known.book.served(changed, known.now).vips
    assert {backend.weight for backend in served.backends} == {1}
    known.change(request_)
    assert known.served() == {1: 1, 2: 1, 3: 1}
    known.change(("vip.set", {"name": "web", "degrade": True}), (request_[0], {**request_[1], "degrade": True}))
    assert known.served() == {1: 1, 2: 1, 3: 1}


def test_who_went_down_comes_back_with_its_whole_weight() -> None:
    known = Known(after(WEB, ("vip.set", {"name": "web", "degrade": True}), *map(web, (1, 2, 3))))
    compared(known, 60)
    known.tell(1, ILL, ILL)
    known.now += 10
    assert known.book.compare(known.vip, {}, known.now) == []
    known.tell(1, WELL, WELL)
    assert known.served() == {1: 1, 2: 1, 3: 1}
