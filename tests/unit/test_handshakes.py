"""Suspicion by what connections tell: soon where a backend has stopped to answer, and hardly ever elsewhere."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4lb.health.handshakes import (
    BUCKETS,
    FIRST_REPLY_TIME,
    FIRST_TIME,
    LOOK_SECONDS,
    PAUSE_SECONDS,
    Handshakes,
    Witness,
    percentile,
)

FAST = 0.0005  # seconds, that a handshake takes in a rack
NEVER = math.inf
REFUSED = -1.0


@dataclass(frozen=True)
class Connection:
    """One connection of a client.

    Attributes:
        at: when its SYN comes by.
        accepted: seconds until it is answered; NEVER, or REFUSED, at once.
        replied: seconds until its request is, which is sent when it was accepted; None: there is no request.
    """

    at: float
    accepted: float = FAST
    replied: float | None = None

    def events(self) -> Iterator[tuple[float, str, float | None]]:
        """When which counter goes up, and the time that is counted with it."""
        yield self.at, "begun", None
        if self.accepted == REFUSED:
            yield self.at, "refused", None
            return
        again = [wait for wait in (1, 3, 7) if wait < self.accepted]
        for wait in again:
            yield self.at + wait, "repeated", None
        yield self.at + self.accepted, "answered", None if again else self.accepted
        if self.replied is not None:
            yield self.at + self.accepted, "requests", None
            yield self.at + self.accepted + self.replied, "replies", self.replied


@dataclass
class Gateway:
    """What counts, and the witness that looks."""

    witness: Witness = field(default_factory=Witness)
    numbers: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("begun", "repeated", "answered", "refused", "requests", "replies"), 0)
    )
    times: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    reply_times: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def watch(
        self, connections: Iterable[Connection], until: float, looks: Iterable[float] = ()
    ) -> list[tuple[float, str]]:
        """Looks as often as the daemon does; when it was said what."""
        events = sorted(
            (event for connection in connections for event in connection.events() if event[0] < until),
            key=lambda event: event[0],
        )
        said, place = [], 0
        for now in looks or every(LOOK_SECONDS, until):
            while place < len(events) and events[place][0] <= now:
                self._count(*events[place][1:])
                place += 1
            reason = self.witness.look(self.counts, now)
            if reason is not None:
                said.append((now, reason))
        return said

    def _count(self, name: str, took: float | None) -> None:
        self.numbers[name] += 1
        if took is not None and name == "answered":
            self.times[bucket(took, FIRST_TIME)] += 1
        elif took is not None and name == "replies":
            self.reply_times[bucket(took, FIRST_REPLY_TIME)] += 1

    @property
    def counts(self) -> Handshakes:
        return Handshakes(**self.numbers, times=tuple(self.times), reply_times=tuple(self.reply_times))


def bucket(took: float, first: float) -> int:
    return next((number for number in range(BUCKETS - 1) if took < first * 2**number), BUCKETS - 1)


def every(seconds: float, until: float, begin: float = 0) -> list[float]:
    return [begin + number * seconds for number in range(int((until - begin) / seconds) + 1)]


def arrivals(gaps: Sequence[float], until: float, begin: float = 0) -> Iterator[float]:
    """Times so far apart, over and over."""
    now = begin
    for gap in itertools.cycle(gaps):
        now += gap
        if now >= until:
            return
        yield now


def unsteady(jitter: Sequence[float], until: float) -> list[float]:
    """When a daemon looks that has other work besides."""
    return [0.0, *arrivals([LOOK_SECONDS + late for late in jitter], until)]


jitters = st.lists(st.floats(0, 0.005), min_size=1, max_size=7)


# Who is not suspected

bursts = st.lists(
    st.one_of(st.floats(0.00005, 0.002), st.floats(0.001, 0.1), st.floats(0.1, 2)), min_size=1, max_size=40
)


@settings(max_examples=60, deadline=None)
@given(
    gaps=bursts,
    accepts=st.floats(0.00005, 0.9),
    replies=st.floats(0.0005, 60),
    seed=st.integers(0, 2**32),
    late=st.lists(st.floats(0, 0.5), min_size=1, max_size=5),
)
def test_who_answers_everything_in_its_usual_time_is_never_suspected(
    gaps: list[float], accepts: float, replies: float, seed: int, late: list[float]
) -> None:
    """Whatever the traffic, and however late the daemon looks; from the first connection on."""
    random = Random(seed)
    traffic = [
        Connection(at, accepts * random.uniform(1 / 3, 1), replies * random.uniform(1 / 3, 1))
        for at in itertools.islice(arrivals(gaps, 30), 1000)
    ]
    assert Gateway().watch(traffic, 30, unsteady(late, 30)) == []


@pytest.mark.parametrize("rate", [0.5, 3, 20, 100, 1000])
def test_a_slow_network_is_not_suspected(rate: float) -> None:
    """100 ms away, from the first connection on, and in crowds."""
    random = Random(int(rate))
    single = [Connection(at, random.uniform(0.09, 0.13)) for at in arrivals([1 / rate], 10)]
    crowds = [Connection(at, random.uniform(0.09, 0.13)) for at in arrivals([0.001] * 5 + [1 / rate], 10)]
    assert Gateway().watch(single, 10) == []
    assert Gateway().watch(crowds, 10) == []


@pytest.mark.parametrize("rate", [1, 10, 100, 1000])
def test_a_network_that_becomes_slow_is_soon_usual(rate: float) -> None:
    """Another way was taken to the backend: crowds of clients wait, once or twice."""
    random = Random(int(rate))
    traffic = [
        Connection(at, random.uniform(0.8, 1.2) * (0.0003 if at < 60 else 0.1))
        for at in arrivals([0.001] * 5 + [5 / rate], 120)
    ]
    assert len(Gateway().watch(traffic, 120)) <= 2


@pytest.mark.parametrize("accepts", [0.03, 0.065, 0.13, 0.2, 0.26, 0.5])
def test_who_takes_twice_as_long_for_once_is_not_suspected(accepts: float) -> None:
    """All answers at once, as behind a long queue."""
    random = Random(1)
    traffic = [
        Connection(at, accepts * (random.uniform(1.8, 1.9) if 10 < at < 10.5 else random.uniform(0.5, 1)))
        for at in arrivals([0.002] * 10 + [accepts], 15)
    ]
    assert Gateway().watch(traffic, 15) == []


SERVICES = {
    "a server that takes its time": lambda random: random.uniform(0.5, 3),
    "long polling": lambda random: random.uniform(5, 55),
    "replies by chance": lambda random: random.choice([0.001, 0.001, 0.001, 20]),
    "one that only listens": lambda _: NEVER,
    "one that hardly ever speaks": lambda random: 0.001 if random.random() < 0.5 else NEVER,
}


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("rate", [0.3, 5, 50])
def test_a_service_that_is_slow_to_reply_is_not_suspected(name: str, rate: float) -> None:
    random = Random(name)
    traffic = [Connection(at, FAST, SERVICES[name](random)) for at in arrivals([0.001] * 4 + [5 / rate], 60)]
    assert Gateway().watch(traffic, 60) == []


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 10, 100, 500]), st.sampled_from([0.0003, 0.03]))
def test_ordinary_troubles_are_not_suspected(seed: int, rate: float, accepts: float) -> None:
    """By chance: when clients come, how long all takes, with a long tail, and one SYN of five hundred that is lost."""
    random = Random(seed)

    def connection(at: float) -> Connection:
        lost = random.random() < 0.002
        accepted = accepts * random.lognormvariate(0, 0.7) + (1 if lost else 0)
        return Connection(at, accepted, 0.005 * random.lognormvariate(0, 1))

    at, traffic = 0.0, []
    while at < 60:
        at += random.expovariate(rate)
        traffic.append(connection(at))
    assert Gateway().watch(traffic, 60) == []


def test_what_happens_now_and_then_is_remembered() -> None:
    """Of crowds in a quiet hour one in ten has to wait; replies of minutes ago tell so."""
    waits = itertools.cycle([0.001] * 9 + [0.4])
    traffic = [
        Connection(at + number / 1000, FAST, wait)
        for at, wait in zip(arrivals([20], 1200), waits, strict=False)
        for number in range(5)
    ]
    assert [when for when, _ in Gateway().watch(traffic, 1200) if when > 250] == []


def test_single_refusals_are_not_suspected() -> None:
    """However many there were in the end."""
    traffic = [
        Connection(at + number / 1000, REFUSED if number == 1 else FAST)
        for at in arrivals([0.5], 20)
        for number in range(3)
    ]
    assert Gateway().watch(traffic, 20) == []


def test_who_was_refused_does_not_wait() -> None:
    usual = [Connection(at) for at in arrivals([0.1], 2)]
    assert Gateway().watch([*usual, Connection(2.5, REFUSED), Connection(2.501, 0.9)], 5) == []


@pytest.mark.parametrize("requests", [1, 2])
def test_few_requests_speak_against_nobody(requests: int) -> None:
    usual = [Connection(at, FAST, FAST) for at in arrivals([0.1], 2)]
    slow = [Connection(2.5 + number / 1000, FAST, 5) for number in range(requests)]
    assert Gateway().watch([*usual, *slow], 8) == []


def test_one_connection_speaks_against_nobody() -> None:
    """Until it asks again, and is not answered either."""
    usual = [Connection(at) for at in arrivals([0.1], 2)]
    ((when, reason),) = Gateway().watch([*usual, Connection(2.5, NEVER)], 6)[:1]
    assert 3.5 < when < 3.7
    assert reason.startswith("2 handshakes unanswered")


def test_what_was_never_answered_before_is_no_reason() -> None:
    """A daemon that starts finds counters of days."""
    gateway = Gateway()
    old = [Connection(0, accepted, replied) for accepted, replied in [(NEVER, None), (REFUSED, None), (FAST, NEVER)]]
    gateway.watch([*(old * 100), *(Connection(1, FAST, FAST) for _ in range(1000))], 10)
    restarted = Gateway(Witness(), gateway.numbers, gateway.times, gateway.reply_times)
    looks = every(LOOK_SECONDS, 20, 11)
    assert restarted.watch([Connection(at, FAST, FAST) for at in (12, 12.01, 15)], 20, looks) == []


# Who is

steady = st.lists(st.floats(0.0005, 0.05), min_size=1, max_size=20)  # 20 connections in a second at least


def first(said: list[tuple[float, str]], after: float) -> tuple[float, str]:
    """How long after the fault what was said; nothing before."""
    assert said, "nobody was suspected"
    when, reason = said[0]
    assert when >= after
    return when - after, reason


@settings(max_examples=60, deadline=None)
@given(steady, st.floats(0.00002, 0.001), st.floats(1.5, 1.6), jitters)
def test_who_stops_to_answer_is_suspected_within_200_ms(
    gaps: list[float], accepts: float, fault: float, jitter: list[float]
) -> None:
    traffic = [Connection(at, accepts if at + accepts < fault else NEVER) for at in arrivals(gaps, 2)]
    took, reason = first(Gateway().watch(traffic, 2, unsteady(jitter, 2)), fault)
    assert took <= 0.2
    assert re.fullmatch(r"\d+ handshakes unanswered for \d+ ms", reason)


@pytest.mark.parametrize("gap", [0.05, 0.03, 0.02])
@pytest.mark.parametrize("accepts", [0.0001, 0.001])
def test_it_is_within_200_ms_of_whatever_moment(gap: float, accepts: float) -> None:
    """Between two looks, between two connections."""
    for moment in range(200):
        fault = 1.5 + moment / 1000
        traffic = [Connection(at, accepts if at + accepts < fault else NEVER) for at in arrivals([gap], 2)]
        took, _ = first(Gateway().watch(traffic, 2), fault)
        assert took <= 0.2


@settings(max_examples=60, deadline=None)
@given(steady, st.floats(1.5, 1.6), jitters)
def test_who_refuses_is_suspected_within_200_ms(gaps: list[float], fault: float, jitter: list[float]) -> None:
    traffic = [Connection(at, FAST if at < fault else REFUSED) for at in arrivals(gaps, 2)]
    took, reason = first(Gateway().watch(traffic, 2, unsteady(jitter, 2)), fault)
    assert took <= 0.2
    assert re.fullmatch(r"\d+ connections refused", reason)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0005, 0.006), min_size=1, max_size=20), st.floats(1.5, 1.6), jitters)
def test_who_is_frozen_is_suspected_within_200_ms(gaps: list[float], fault: float, jitter: list[float]) -> None:
    """Its kernel accepts connections, and nobody replies; under 160 requests in a second."""
    traffic = [Connection(at, FAST, FAST if at + 2 * FAST < fault else NEVER) for at in arrivals(gaps, 2)]
    took, reason = first(Gateway().watch(traffic, 2, unsteady(jitter, 2)), fault)
    assert took <= 0.2
    assert re.fullmatch(r"\d+ requests without a reply for \d+ ms", reason)


@pytest.mark.parametrize(("accepts", "within"), [(0.01, 0.25), (0.1, 0.6), (0.5, 1.4)])
def test_behind_a_slow_network_it_takes_as_long_as_it_has_to(accepts: float, within: float) -> None:
    random = Random(1)
    traffic = [
        Connection(at, taken if at + taken < 10 else NEVER)
        for at in arrivals([0.005], 12)
        for taken in [accepts * random.uniform(0.9, 1.1)]
    ]
    took, _ = first(Gateway().watch(traffic, 12), 10)
    assert accepts < took < within


def test_two_clients_are_enough_in_a_quiet_hour() -> None:
    """Whoever connects every two seconds."""
    traffic = [Connection(at, REFUSED if at > 60 else FAST) for at in arrivals([2], 70)]
    took, reason = first(Gateway().watch(traffic, 70), 62)
    assert (round(took), reason) == (2, "2 connections refused")


def test_most_are_refused_is_enough() -> None:
    """One of several processes that listen is gone: connections go to it by chance."""
    random = Random(1)
    traffic = [Connection(at, REFUSED if at > 2 and random.random() < 0.6 else FAST) for at in arrivals([0.002], 3)]
    took, _ = first(Gateway().watch(traffic, 3), 2)
    assert took < 0.2


taken = st.one_of(st.floats(0.00002, 0.5), st.just(NEVER))


@settings(max_examples=100, deadline=None)
@given(bursts, st.lists(taken, min_size=1, max_size=20), jitters)
def test_no_more_is_told_than_is_true(gaps: list[float], accepts: list[float], jitter: list[float]) -> None:
    """Of those who are said to wait, each has asked and has no answer."""
    times = itertools.islice(arrivals(gaps, 10), 500)
    traffic = [Connection(at, accepted) for at, accepted in zip(times, itertools.cycle(accepts), strict=False)]
    events = [event for connection in traffic for event in connection.events()]
    for now, reason in Gateway().watch(traffic, 10, unsteady(jitter, 10)):
        waiting = int(reason.split()[0])
        asked = sum(name in ("begun", "repeated") for at, name, _ in events if at <= now - 0.9 * LOOK_SECONDS)
        answered = sum(
            1 + len([wait for wait in (1, 3, 7) if wait < each.accepted])
            for each in traffic
            if each.at + each.accepted <= now
        )
        assert waiting <= asked - answered


# How often


@pytest.mark.parametrize("fault", [Connection(0, NEVER), Connection(0, REFUSED), Connection(0, FAST, NEVER)])
def test_suspicions_of_one_backend_pause(fault: Connection) -> None:
    traffic = [
        Connection(at, FAST if at < 2 else fault.accepted, FAST if at < 2 else fault.replied)
        for at in arrivals([0.005], 10)
    ]
    said = [when for when, _ in Gateway().watch(traffic, 10)]
    apart = [late - early for early, late in itertools.pairwise(said)]
    assert all(PAUSE_SECONDS <= each < PAUSE_SECONDS + 0.3 for each in apart)
    assert len(said) >= 6, "it goes on while they fail"


@pytest.mark.parametrize("fault", [Connection(0, 0.9), Connection(0, REFUSED), Connection(0, FAST, 5)])
def test_nobody_is_suspected_for_ever(fault: Connection) -> None:
    """Of those who come in a pause it is told after it, and then no more where nobody comes."""
    traffic = [Connection(at, FAST, FAST) for at in arrivals([0.005], 2)]
    traffic += [Connection(at, fault.accepted, fault.replied) for at in arrivals([0.005], 2.5, 2)]
    assert [round(when) for when, _ in Gateway().watch(traffic, 8)] in ([2], [2, 3], [3])


def test_counters_that_begin_anew_are_another_backends() -> None:
    """What was learnt of the one before, and who waits for it, is no longer of interest."""
    gateway = Gateway()
    traffic = [Connection(at, FAST if at < 1.99 else NEVER) for at in arrivals([0.005], 2)]
    assert gateway.watch(traffic, 2) == []
    anew = Gateway(gateway.witness)
    slow = [Connection(at, 0.1) for at in arrivals([0.005], 4, 2.05)]
    assert anew.watch(slow, 4, every(LOOK_SECONDS, 4, 2.04)) == []


def test_a_pause_is_over_with_the_backend() -> None:
    gateway = Gateway()
    assert len(gateway.watch([Connection(at, FAST if at < 1 else REFUSED) for at in arrivals([0.01], 1.2)], 1.2)) == 1
    anew = Gateway(gateway.witness)
    traffic = [Connection(at, FAST if at < 1.5 else REFUSED) for at in arrivals([0.01], 2, 1.25)]
    took, _ = first(anew.watch(traffic, 1.8, every(LOOK_SECONDS, 1.8, 1.24)), 1.5)
    assert took < 0.2


# What is shown


@given(st.lists(st.floats(FIRST_TIME, 0.5), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_percentile_is_right_to_a_factor_of_two(times: list[float], share: float) -> None:
    counted = [0] * BUCKETS
    for time in times:
        counted[bucket(time, FIRST_TIME)] += 1
    wanted = sorted(times)[math.ceil(share * len(times) - 1e-9) - 1]
    assert wanted <= percentile(counted, share) <= 2 * wanted


def test_percentiles_of_nothing_and_of_replies() -> None:
    assert percentile([], 0.5) == percentile([0] * BUCKETS, 0.5) == 0
    assert percentile([1, 0, 1], 0.5, FIRST_REPLY_TIME) == FIRST_REPLY_TIME
    assert percentile([1, 0, 1], 0.51, FIRST_REPLY_TIME) == 4 * FIRST_REPLY_TIME


def test_the_usual_time_is_of_late() -> None:
    """Not of those handshakes that were before; to a factor of two."""
    gateway = Gateway()
    assert gateway.witness.usual is None
    gateway.watch([Connection(at, 0.2) for at in arrivals([0.01], 5)], 5)
    assert gateway.witness.usual == pytest.approx(0.2, rel=0.5)
    gateway.watch([Connection(at, 0.001) for at in arrivals([0.01], 10, 6)], 10, every(LOOK_SECONDS, 10, 5.04))
    assert gateway.witness.usual == pytest.approx(0.001, rel=0.5)
    gateway.watch([], 15, every(LOOK_SECONDS, 15, 10.04))
    assert gateway.witness.usual is None


def test_what_is_shown_is_json() -> None:
    shown = Handshakes(2, 1, 2, 0, 2, 1, (0, 2, *[0] * 14), (0, 0, 1, *[0] * 13)).plain()
    assert (shown["begun"], shown["repeated"], shown["replies"]) == (2, 1, 1)
    assert (shown["median_ms"], shown["median_reply_ms"]) == (0.032, 1.024)
