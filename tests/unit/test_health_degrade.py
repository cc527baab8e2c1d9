"""Slow and failing backends get less: slowly, seldom, and never because of what all of them suffer from."""

import json
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4lb.errors import L4lbError
from l4lb.health.degrade import Observation, Score, parse, plain, step
from l4lb.health.machine import Health, observe
from l4lb.health.result import Result
from l4lb.health.rules import HealthRules

seeds = st.integers(0, 2**32)  # of noise that is one: Hypothesis would make all of it fall on one backend
RULES = HealthRules(interval=2, degrade=True)
Seen = Mapping[str, Observation]


def took(seconds: float) -> Observation:
    return Observation(passed=1, latency=seconds)


FAILED = Observation(failed=1)


def run(
    observed: Callable[[int], Seen], rounds: int, rules: HealthRules = RULES, old: Mapping[str, Score] | None = None
) -> list[dict[str, Score]]:
    """The scores after each round; a round is an interval."""
    scores, seen = dict(old or {}), []
    first = round(max((score.seen for score in scores.values()), default=0) / rules.interval)
    for number in range(1, rounds + 1):
        scores = step(scores, observed(number), rules, (first + number) * rules.interval)
        seen.append(scores)
    return seen


def eighths(scores: list[dict[str, Score]], backend: str) -> list[int]:
    return [each[backend].eighths for each in scores]


@settings(max_examples=50)
@given(seeds, st.integers(1, 6), st.floats(0.0001, 5))
def test_noise_moves_nobody(seed: int, backends: int, latency: float) -> None:
    """Probes that take up to 30 % more or less, by chance."""
    random = Random(seed)
    scores = run(lambda _: {str(each): took(latency * random.uniform(0.7, 1.3)) for each in range(backends)}, 100)
    assert all(score.eighths == 8 for each in scores for score in each.values())


@settings(max_examples=50)
@given(seeds, st.floats(0.01, 100))
def test_a_network_that_is_slow_for_all_moves_nobody(seed: int, factor: float) -> None:
    random = Random(seed)

    def observed(number: int) -> Seen:
        base = 0.01 * (factor if 30 <= number < 60 else 1)
        return {name: took(base * random.uniform(0.8, 1.2)) for name in "abcd"}

    assert all(score.eighths == 8 for each in run(observed, 90) for score in each.values())


probes = st.integers(0, 3)
times = st.none() | st.floats(0, 60)
stretches = st.tuples(
    st.integers(1, 30), st.lists(st.builds(Observation, probes, probes, times, times), min_size=3, max_size=3)
)


@given(st.lists(stretches, max_size=6), st.integers(1, 100))
def test_whatever_happens_weights_move_seldom(stretches: list[tuple[int, list[Observation]]], floor: int) -> None:
    """By one eighth, once in three intervals at most, ten apart to get more, and never under the floor."""
    rules = HealthRules(degrade=True, floor=floor)
    rounds = [observed for length, observed in stretches for _ in range(length)]
    scores = run(lambda number: dict(zip("abc", rounds[number - 1], strict=True)), len(rounds), rules)
    for name in "abc":
        own = [8, *eighths(scores, name)]
        changes = [(at, own[at] - own[at - 1]) for at in range(1, len(own)) if own[at] != own[at - 1]]
        assert all(abs(change) == 1 for _, change in changes)
        for (before, _), (after, change) in pairwise(changes):
            assert after - before >= (3 if change < 0 else 10)
        assert min(own) >= 8 * floor / 100
        assert 1 <= min(own) <= max(own) <= 8


def test_a_slow_backend_gets_less_down_to_the_floor_and_all_of_it_again() -> None:
    slow = run(lambda _: {"a": took(0.01), "b": took(0.011), "slow": took(0.2)}, 60)
    falling = eighths(slow, "slow")
    assert falling == sorted(falling, reverse=True)
    assert set(falling) == {8, 7, 6, 5, 4, 3, 2}
    assert falling[35] == 2
    assert eighths(slow, "a") == eighths(slow, "b") == [8] * 60
    assert slow[-1]["slow"].why.startswith("probes take ")
    assert slow[-1]["slow"].why.endswith(" ms, usual are 11.0 ms")
    again = run(lambda _: {"a": took(0.01), "b": took(0.011), "slow": took(0.01)}, 100, old=slow[-1])
    rising = eighths(again, "slow")
    assert rising == sorted(rising)
    assert rising[-1] == 8
    assert again[-1]["slow"].why == "as good as the others again"


@pytest.mark.parametrize(
    ("seconds", "kept"),
    [(0.015, 8), (0.0165, 8), (0.020, 7), (0.032, 4), (0.064, 2)],
)
def test_the_weight_that_is_left_is_what_the_latency_asks_for(seconds: float, kept: int) -> None:
    """1.5 times the median and a millisecond are usual; from there on it is in inverse proportion, within an eighth."""
    scores = run(lambda _: {"a": took(0.01), "b": took(0.01), "c": took(seconds)}, 120)
    assert scores[-1]["c"].eighths == kept
    assert abs(8 * min(1, 0.016 / seconds) - kept) < 0.75


def test_a_latency_on_the_edge_of_a_step_does_not_flap() -> None:
    scores = run(lambda number: {"a": took(0.01), "b": took(0.01), "c": took(0.0285 + 0.002 * (-1) ** number)}, 300)
    assert len(set(eighths(scores[100:], "c"))) == 1


def test_differences_under_a_millisecond_move_nobody() -> None:
    scores = run(lambda _: {"a": took(0.0001), "b": took(0.0001), "c": took(0.001)}, 60)
    assert scores[-1]["c"].eighths == 8


def test_the_lower_of_two_is_usual() -> None:
    assert run(lambda _: {"a": took(0.01), "slow": took(0.2)}, 60)[-1]["slow"].eighths == 2
    assert run(lambda _: {"slow": took(2)}, 60)[-1]["slow"].eighths == 8


def test_half_can_be_slow_at_most() -> None:
    scores = run(lambda _: {"a": took(0.01), "b": took(0.1), "c": took(0.1), "d": took(0.1)}, 60)
    assert [score.eighths for score in scores[-1].values()] == [8, 8, 8, 8]


def test_handshakes_count_where_there_are_some() -> None:
    def observed(_: int) -> Seen:
        return {name: Observation(1, 0, 0.01, 0.09 if name == "c" else 0.002) for name in "abc"}

    scores = run(observed, 60)
    assert [score.eighths for score in scores[-1].values()] == [8, 8, 2]
    assert scores[-1]["c"].why.startswith("handshakes take ")
    one = run(lambda _: {"a": took(0.01), "b": Observation(1, 0, 0.01, 5.0)}, 60)
    assert one[-1]["b"].eighths == 8


def test_every_second_probe_failing_costs_weight() -> None:
    scores = run(lambda number: {"a": took(0.01), "b": took(0.01), "c": FAILED if number % 2 else took(0.01)}, 100)
    assert scores[-1]["c"].eighths in (4, 5)
    assert scores[-1]["c"].why.endswith(" % of its probes fail")
    assert len(set(eighths(scores[60:], "c"))) == 1


def test_one_failure_costs_nothing() -> None:
    scores = run(lambda number: {"a": took(0.01), "b": FAILED if number % 30 == 0 else took(0.01)}, 100)
    assert set(eighths(scores, "b")) == {8}


def test_one_failure_after_a_long_silence_costs_nothing() -> None:
    steady = run(lambda _: {"a": took(0.01), "b": took(0.01)}, 20)[-1]
    assert step(steady, {"a": took(0.01), "b": FAILED}, RULES, 3600)["b"].eighths == 8


def test_the_first_probe_weighs_no_more_than_others() -> None:
    scores = run(lambda number: {"a": took(0.01), "b": took(0.04 if number == 1 else 0.01)}, 30)
    assert set(eighths(scores, "b")) == {8}


def test_failures_that_all_have_cost_nobody_anything() -> None:
    for wrong in (2, 1):
        scores = run(lambda number, wrong=wrong: dict.fromkeys("abc", took(0.01) if number % wrong else FAILED), 100)
        assert all(score.eighths == 8 for each in scores for score in each.values())


def test_off_unless_asked_for() -> None:
    assert step({}, {"a": took(0.01), "b": took(1)}, HealthRules(), 1) == {}


def test_who_is_not_observed_is_forgotten() -> None:
    slow = run(lambda _: {"a": took(0.01), "slow": took(0.2)}, 60)[-1]
    without = step(slow, {"a": took(0.01)}, RULES, 130)
    assert set(without) == {"a"}
    assert step(without, {"a": took(0.01), "slow": took(0.2)}, RULES, 132)["slow"].eighths == 8


def test_no_news_moves_nothing() -> None:
    slow = run(lambda _: {"a": took(0.01), "slow": took(0.2)}, 12)[-1]
    assert slow["slow"].eighths < 8
    assert step(slow, {"a": Observation(), "slow": Observation()}, RULES, 1e6) == slow


def test_an_observation_is_of_all_checks_together() -> None:
    """And of what came since: half of a backend's checks say nothing of its latency."""
    rules = HealthRules()
    health = Health.begin(2, rules, 0)
    for at, index, ok, latency in [(1, 0, True, 9.0), (2, 0, True, 0.1), (3, 0, True, 0.3), (4, 1, False, 0.7)]:
        health, _ = observe(health, index, Result(ok, "", latency), rules, at)
    assert Observation.of(health, 1) == Observation(2, 1, None)
    health, _ = observe(health, 1, Result(True, "", 0.5), rules, 5)
    assert Observation.of(health, 1, 0.05) == Observation(3, 1, pytest.approx(0.7), 0.05)
    assert Observation.of(health, 5) == Observation()
    assert Observation.of(Health.begin(0, rules, 0), 0) == Observation()


scores_of_any_kind = st.builds(
    Score,
    st.floats(0, 1e6),
    st.none() | st.floats(0, 60),
    st.none() | st.floats(0, 60),
    st.floats(0, 1),
    st.integers(0, 1000),
    st.integers(1, 8),
    st.just(-math.inf) | st.floats(0, 1e6),
    st.text(max_size=20),
)


@given(scores_of_any_kind)
def test_scores_are_saved(score: Score) -> None:
    saved = json.loads(json.dumps(plain(score), allow_nan=False))
    assert parse(saved, 0) == score
    assert parse(saved, 10).seen == score.seen + 10


@pytest.mark.parametrize("values", [None, [], {}, [1, 2, 3, 4, 5, "x", 7, 8], ["", 1, 1, 1, 1, 1, 1, ""]])
def test_damaged_scores_are_told(values: object) -> None:
    with pytest.raises(L4lbError, match="a saved score is not as it should be"):
        parse(values, 0)
