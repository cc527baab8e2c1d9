"""When checks are due: spread over the interval, never two of a job at once, never drifting."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from l4lb.probes.schedule import Schedule, phase

_ALL = 1 << 20
_CLOSE = 1e-6  # seconds: what rounding may do to a time


def _schedule(chance: float = 0.0) -> Schedule:
    return Schedule(lambda: chance)


def _run(schedule: Schedule, until: float, takes: float = 0.0) -> list[tuple[float, str]]:
    """Plays a schedule, whose jobs each take `takes` seconds, to a time; what began when."""
    begun = []
    under_way: list[tuple[float, str]] = []
    while True:
        at = schedule.next_time()
        moments = [moment for moment in (at, *(end for end, _ in under_way)) if moment is not None]
        if not moments or (now := min(moments)) >= until:
            return begun
        for end, name in [ended for ended in under_way if ended[0] <= now]:
            under_way.remove((end, name))
            schedule.done(name, now)
        for name, _ in schedule.take(now, _ALL):
            begun.append((now, name))
            under_way.append((now + takes, name))


@given(
    st.lists(st.text(max_size=8), min_size=1, max_size=5, unique=True),
    st.floats(0.05, 100),
    st.floats(0, 1e7),
    st.floats(0, 0.99),
)
def test_regular_times_do_not_drift(names: list[str], interval: float, now: float, share: float) -> None:
    """However long a probe takes, if less than the interval: n intervals later is n intervals later."""
    schedule = _schedule()
    for name in names:
        schedule.put(name, interval, 0, now)
    begun = _run(schedule, now + 20 * interval, share * interval)
    for name in names:
        times = [time for time, of in begun if of == name]
        assert len(times) in (19, 20, 21)
        assert now < times[0] <= now + interval + _CLOSE
        assert times == pytest.approx([times[0] + number * interval for number in range(len(times))], abs=_CLOSE)


@pytest.mark.parametrize("interval", [0.1, 0.7, 2.3])
def test_rounding_makes_no_two_probes_of_one(interval: float) -> None:
    """Also where a regular time plus whole intervals is, in floating point, the very time that it is now."""
    schedule = _schedule()
    schedule.put("a", interval, 0, 330_000)
    times = [time for time, _ in _run(schedule, 330_000 + 2_000 * interval)]
    assert len(times) in (1_999, 2_000, 2_001)
    assert min(later - sooner for sooner, later in pairwise(times)) > interval / 2


@given(st.integers(1, 9), st.floats(0.01, 0.99), st.floats(0.5, 5))
def test_a_probe_that_outlasts_intervals_skips_them(whole: int, share: float, interval: float) -> None:
    schedule = _schedule()
    schedule.put("slow", interval, 0, 0)
    times = [time for time, _ in _run(schedule, 40 * interval, (whole + share) * interval)]
    gaps = [(later - sooner) / interval for sooner, later in pairwise(times)]
    assert len(gaps) >= 2
    assert gaps == pytest.approx([whole + 1] * len(gaps), abs=_CLOSE)


@given(st.floats(0, 1), st.floats(0, 0.999))
def test_jitter_delays_by_a_share_and_moves_no_regular_time(jitter: float, chance: float) -> None:
    plain, jittered = _schedule(), _schedule(chance)
    plain.put("a", 2, 0, 100)
    jittered.put("a", 2, jitter, 100)
    expected = [time + 2 * jitter * chance for time, _ in _run(plain, 120)]
    assert [time for time, _ in _run(jittered, 122)][: len(expected)] == pytest.approx(expected, abs=_CLOSE)


@pytest.mark.parametrize("interval", [0.5, 2, 60])
def test_many_jobs_are_spread_over_the_interval(interval: float) -> None:
    """Nothing bunches: no twentieth of the interval has twice its share, whether all came at once or one by one."""
    together, singly = _schedule(), _schedule()
    for number in range(1000):
        together.put(f"web 10.0.{number >> 8}.{number & 255}:80 tcp", interval, 0, 1000)
        singly.put(f"web 10.0.{number >> 8}.{number & 255}:80 tcp", interval, 0, 1000 + number * 0.07)
    for schedule, start in ((together, 1000.0), (singly, 1080.0 + interval)):
        _run(schedule, start)
        begun = _run(schedule, start + interval)
        assert len({name for _, name in begun}) == 1000
        parts = Counter(int((time - start) / interval * 20) for time, _ in begun)
        assert max(parts.values()) < 2 * 1000 / 20
        assert len(parts) == 20


def test_a_restart_keeps_every_place() -> None:
    before, after = _schedule(), _schedule()
    for name in "abcdef":
        before.put(name, 5, 0, 1000)
        after.put(name, 5, 0, 2003.7)
    _run(before, 2003.7)
    assert [name for _, name in _run(before, 2008.7)] == [name for _, name in _run(after, 2008.7)]


def test_a_shorter_interval_counts_from_the_last_probe() -> None:
    schedule = _schedule()
    schedule.put("a", 10, 0, 0)
    ((first, _),) = _run(schedule, 10)
    schedule.set_interval("a", 1, first + 0.3)
    assert schedule.next_time() == pytest.approx(first + 1)
    schedule.set_interval("a", 0.25, first + 0.3)
    assert schedule.next_time() == pytest.approx(first + 0.5), "what was missed is skipped"


def test_a_slightly_shorter_interval_delays_nothing() -> None:
    schedule = _schedule()
    schedule.put("a", 10, 0, 0)
    ((first, _),) = _run(schedule, 10)
    schedule.set_interval("a", 9.9, first + 9.95)
    assert schedule.next_time() == pytest.approx(first + 10)


def test_after_a_fast_interval_jobs_are_spread_again() -> None:
    """All backends fail and come back at once: that must not have them checked together ever after."""
    schedule, names = _schedule(), [f"10.0.0.{number}" for number in range(200)]
    for name in names:
        schedule.put(name, 10, 0, 0)
    _run(schedule, 20)
    for name in names:
        schedule.set_interval(name, 0.1, 20)
    _run(schedule, 21)
    for name in names:
        schedule.set_interval(name, 10, 21)
    begun = _run(schedule, 31)
    assert len(begun) == 200
    assert max(Counter(int(time - 21) for time, _ in begun).values()) < 2 * 200 / 10


def test_probe_now_keeps_the_regular_times() -> None:
    schedule = _schedule()
    schedule.put("a", 10, 0, 0)
    regular = schedule.next_time()
    assert regular is not None
    schedule.probe_now("a", regular - 1)
    assert [time for time, _ in _run(schedule, regular + 11)] == pytest.approx([regular - 1, regular, regular + 10])


def test_probe_now_while_under_way_comes_after_it() -> None:
    schedule = _schedule()
    schedule.put("a", 10, 0, 0)
    schedule.probe_now("a", 0)
    assert [name for name, _ in schedule.take(0, _ALL)] == ["a"]
    schedule.probe_now("a", 0.1)
    assert schedule.next_time() is None
    schedule.done("a", 0.5)
    assert schedule.next_time() == 0.5
    schedule.take(0.5, _ALL)
    schedule.done("a", 0.6)
    assert schedule.next_time() == pytest.approx(phase("a") * 10), "once, not ever after"


class Play(RuleBasedStateMachine):
    """Everything that can be done to a schedule, in any order, against what must hold whatever happened."""

    names = st.sampled_from("abcd")
    intervals = st.sampled_from([0.1, 0.5, 2.0, 3.0])

    def __init__(self) -> None:
        super().__init__()
        self.schedule = Schedule(lambda: 0.999)
        self.now = 1000.0
        self.under_way: set[str] = set()
        self.waiting: dict[str, float] = {}  # jobs that are not, and when they have to be due at the latest
        self.jobs: dict[str, tuple[float, float]] = {}  # interval and jitter

    @rule(name=names, interval=intervals, jitter=st.sampled_from([0.0, 0.2, 1.0]))
    def put(self, name: str, interval: float, jitter: float) -> None:
        self.schedule.put(name, interval, jitter, self.now)
        self.jobs[name] = interval, jitter
        self.under_way.discard(name)
        self._expect(name)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.jobs)))
        self.schedule.drop(name)
        del self.jobs[name]
        self.under_way.discard(name)
        self.waiting.pop(name, None)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), interval=intervals)
    def set_interval(self, data: st.DataObject, interval: float) -> None:
        name = data.draw(st.sampled_from(sorted(self.jobs)))
        self.schedule.set_interval(name, interval, self.now)
        changed = self.jobs[name][0] != interval
        self.jobs[name] = interval, self.jobs[name][1]
        if name not in self.under_way and changed:
            self._expect(name)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def probe_now(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.jobs)))
        self.schedule.probe_now(name, self.now)
        if name not in self.under_way:
            self.waiting[name] = self.now

    @rule(seconds=st.floats(0, 5), most=st.integers(1, 5))
    def take(self, seconds: float, most: int) -> None:
        self.now += seconds
        taken = self.schedule.take(self.now, most)
        assert len(taken) <= most
        for name, at in taken:
            assert name in self.jobs
            assert name not in self.under_way, "two at once"
            assert at <= self.now
            assert at <= self.waiting.pop(name) + _CLOSE, "later than an interval"
            self.under_way.add(name)
        if len(taken) < most:
            assert all(due > self.now - _CLOSE for due in self.waiting.values()), "due, and not handed out"

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.under_way)))
        self.schedule.done(name, self.now)
        self.under_way.remove(name)
        self._expect(name)

    @invariant()
    def all_that_wait_are_planned(self) -> None:
        following = self.schedule.next_time()
        assert (following is None) == (not self.waiting)
        assert following is None or following <= min(self.waiting.values()) + _CLOSE
        assert len(self.schedule) == len(self.jobs)

    def _expect(self, name: str) -> None:
        interval, jitter = self.jobs[name]
        self.waiting[name] = self.now + interval * (1 + jitter)


TestPlay = Play.TestCase
TestPlay.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_changes_leave_nothing_behind() -> None:
    """A backend that flaps changes its interval all the time; memory must not follow."""
    schedule = _schedule()
    schedule.put("a", 3600, 0, 0)
    for number in range(1000):
        schedule.set_interval("a", 3600 - number % 2, 0)
    assert len(schedule._heap) < 100
