"""How results bring a backend up and down: by enough in a row, seldom, and with the reason."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from l4lb.errors import L4lbError
from l4lb.health.advice import Advice, Wish, says_down
from l4lb.health.machine import (
    KEPT,
    Health,
    Transition,
    next_interval,
    observe,
    rechecked,
    silent,
    suspect,
)
from l4lb.health.result import Result
from l4lb.health.rules import HealthRules, State, VipRules, problems, vip_problems
from l4lb.health.saved import parse, plain

UNKNOWN, UP, DOWN = State
X = "\N{MULTIPLICATION SIGN}"
USUAL = HealthRules()
WELL = Result(True, "HTTP 200", 0.001)
ILL = Result(False, "HTTP 503", 0.002)
counts = st.integers(1, 5)
fall_and_rise = st.builds(HealthRules, rise=counts, fall=counts, initial=st.sampled_from(State))
inputs = st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=80)


def after(
    results: Sequence[Result], rules: HealthRules = USUAL, health: Health | None = None, index: int = 0
) -> Health:
    """The health after results of one check, a second apart."""
    health = health or Health.begin(1, rules, 0)
    for at, result in enumerate(results, 1):
        health, _ = observe(health, index, result, rules, at)
    return health


def moves(results: Sequence[tuple[int, bool]], rules: HealthRules, checks: int = 3) -> list[tuple[int, Transition]]:
    """What transitions results of several checks make, each with how many results there were until then."""
    health, made = Health.begin(checks, rules, 0), []
    for number, (index, ok) in enumerate(results, 1):
        health, transition = observe(health, index, WELL if ok else ILL, rules, number)
        if transition is not None:
            made.append((number, transition))
    return made


@given(inputs, fall_and_rise)
def test_no_move_without_enough_in_a_row(results: list[tuple[int, bool]], rules: HealthRules) -> None:
    """Down takes `fall` failures of one check, up takes `rise` successes; the unknown move by their first result."""
    for checks in (1, 3):
        given_ = [(index % checks, ok) for index, ok in results]
        for number, transition in moves(given_, rules, checks):
            own = [ok for index, ok in given_[:number] if index == given_[number - 1][0]]
            if transition.after is DOWN:
                needed = 1 if rules.initial is UNKNOWN and own == [False] else rules.fall
                assert len(own) >= needed
                assert not any(own[-needed:])
            elif checks == 1:
                needed = 1 if rules.initial is UNKNOWN and own == [True] else rules.rise
                assert len(own) >= needed
                assert all(own[-needed:])


@given(inputs, fall_and_rise)
def test_enough_in_a_row_moves(results: list[tuple[int, bool]], rules: HealthRules) -> None:
    many = [WELL if ok else ILL for _, ok in results]
    assert after([*many, *[ILL] * rules.fall], rules).state is DOWN
    assert after([*many, *[WELL] * rules.rise], rules).state is UP


@given(st.lists(st.booleans(), max_size=200), fall_and_rise)
@example([True, False] * 100, HealthRules(rise=1, fall=1))
@example([True, True, False, False, False] * 40, HealthRules(rise=2, fall=3))
def test_flapping_is_bounded(results: list[bool], rules: HealthRules) -> None:
    """So many results make 2 + 2n / (rise + fall) transitions at most."""
    made = moves([(0, ok) for ok in results], rules, checks=1)
    assert len(made) <= 2 + 2 * len(results) / (rules.rise + rules.fall)


@given(inputs, fall_and_rise)
def test_flapping_of_several_checks_is_bounded(results: list[tuple[int, bool]], rules: HealthRules) -> None:
    """A backend's transitions are its checks' at most."""
    bounds = [2 + 2 * sum(own == index for own, _ in results) / (rules.rise + rules.fall) for index in range(3)]
    assert len(moves(results, rules)) <= sum(bounds)


def test_flapping_faster_than_it_counts_moves_nothing() -> None:
    assert after([WELL, *[ILL, WELL] * 50]).state is UP
    assert after([ILL, *[WELL, ILL] * 50]).state is DOWN


@given(inputs, fall_and_rise)
def test_up_means_that_every_check_is(results: list[tuple[int, bool]], rules: HealthRules) -> None:
    health = Health.begin(3, rules, 0)
    for number, (index, ok) in enumerate(results, 1):
        health, transition = observe(health, index, WELL if ok else ILL, rules, number)
        states = {check.state for check in health.checks}
        assert (health.state is UP) == (states == {UP})
        assert DOWN not in states or health.state is DOWN
        assert health.state is not UNKNOWN or DOWN not in states
        assert (transition is not None) == (health.since == number)


@pytest.mark.parametrize(
    ("initial", "results", "states"),
    [
        (UNKNOWN, "+", "unknown up"),
        (UNKNOWN, "-", "unknown down"),
        (UP, "--+---", "up up up up up up down"),
        (DOWN, "+-++", "down down down down up"),
    ],
)
def test_how_it_begins(initial: State, results: str, states: str) -> None:
    rules = HealthRules(initial=initial)
    health = Health.begin(1, rules, 0)
    seen = [health.state]
    for at, sign in enumerate(results, 1):
        health, _ = observe(health, 0, WELL if sign == "+" else ILL, rules, at)
        seen.append(health.state)
    assert [str(state) for state in seen] == states.split()


def test_one_that_was_down_comes_up_only_when_all_checks_have_passed() -> None:
    rules = HealthRules(rise=1)
    health, _ = observe(Health.begin(2, rules, 0), 0, ILL, rules, 1)
    health, transition = observe(health, 0, WELL, rules, 2)
    assert (health.state, transition) == (DOWN, None)
    health, transition = observe(health, 1, WELL, rules, 3)
    assert transition is not None
    assert (transition.before, transition.after, health.recovered) == (DOWN, UP, 3)


def test_slow_start_counts_from_coming_back_not_from_coming_first() -> None:
    assert after([WELL] * 9).recovered is None
    assert after([ILL, WELL, WELL, WELL]).recovered == 3
    assert after([WELL, WELL], HealthRules(initial=DOWN)).recovered == 2


REASONS = [
    ([WELL, ILL, ILL, ILL], f"HTTP 503 {X}3"),
    ([ILL], "HTTP 503"),
    ([WELL, ILL, ILL, Result(False, "connection refused", 0)], f"HTTP 503 {X}2, connection refused"),
    ([ILL, WELL, WELL], f"HTTP 200 {X}2"),
    ([WELL, *[Result(False, "", 0)] * 3], f"failed {X}3"),
]


@pytest.mark.parametrize(("results", "why"), REASONS)
def test_the_reason_is_told(results: list[Result], why: str) -> None:
    assert after(results).why == why


def test_a_longer_run_than_is_kept_is_told_as_such() -> None:
    health = after([WELL, *[ILL] * 20], HealthRules(fall=20))
    assert health.why == f"HTTP 503 {X}10 (20 in a row)"
    assert len(health.checks[0].results) == KEPT


def test_the_reason_is_of_the_check_that_is_down() -> None:
    rules = HealthRules(rise=1, fall=1)
    health = Health.begin(2, rules, 0)
    health, _ = observe(health, 0, ILL, rules, 1)
    health, transition = observe(health, 1, Result(False, "connection refused", 0), rules, 2)
    assert (transition, health.why, health.since) == (None, "HTTP 503; connection refused", 1)
    health, _ = observe(health, 0, WELL, rules, 3)
    assert (health.state, health.why, health.since) == (DOWN, "connection refused", 1)


def test_results_are_kept_with_their_times() -> None:
    last = after([WELL, ILL]).checks[0].results[-1]
    assert (last.at, last.ok, last.reason, last.latency) == (2, False, "HTTP 503", 0.002)


# Suspicion


def test_a_suspected_backend_falls_by_one_failure() -> None:
    suspected = suspect(after([WELL] * 3), "12 of 12 handshakes unanswered", 3.5)
    assert suspected.state is UP
    health, transition = observe(suspected, 0, Result(False, "no answer within 300 ms", 0.3), HealthRules(), 4)
    assert transition is not None
    assert (health.state, health.suspicion) == (DOWN, None)
    assert transition.why == "no answer within 300 ms; suspected: 12 of 12 handshakes unanswered"


def test_a_success_of_each_check_clears_a_suspicion() -> None:
    rules = HealthRules()
    health = after([WELL], health=after([WELL], health=Health.begin(2, rules, 0)), index=1)
    health = suspect(health, "unanswered", 2)
    health, _ = observe(health, 0, WELL, rules, 3)
    assert health.suspicion is not None
    health, _ = observe(health, 1, WELL, rules, 4)
    assert health.suspicion is None
    assert after([ILL], health=health).state is UP


def test_a_success_that_was_on_its_way_clears_nothing() -> None:
    suspected = suspect(after([WELL]), "unanswered", 2)
    health, _ = observe(suspected, 0, Result(True, "HTTP 200", 0.5), HealthRules(), 2.4)
    assert health.suspicion is not None
    again = suspect(health, "unanswered", 3)
    health, _ = observe(again, 0, Result(True, "HTTP 200", 0.5), HealthRules(), 3.4)
    assert health.suspicion is not None
    health, _ = observe(health, 0, Result(True, "HTTP 200", 0.5), HealthRules(), 3.6)
    assert health.suspicion is None


def test_who_is_down_or_not_checked_is_not_suspected() -> None:
    for health in (after([ILL]), Health.begin(0, HealthRules(), 0)):
        assert suspect(health, "unanswered", 2) == health


# When to probe


RULES = HealthRules(interval=2, fast_interval=0.5, jitter=0.1)
INTERVALS = [
    ("unknown", Health.begin(1, RULES, 0), 0.5),
    ("steadily up", after([WELL] * 3), 2),
    ("steadily down", after([ILL] * 3), 2),
    ("about to fall", after([WELL, ILL]), 0.5),
    ("about to rise", after([ILL, WELL]), 0.5),
    ("suspected", suspect(after([WELL]), "unanswered", 2), 0.5),
    ("up before any result", Health.begin(1, HealthRules(initial=UP), 0), 2),
]


@pytest.mark.parametrize(("health", "interval"), [each[1:] for each in INTERVALS], ids=[each[0] for each in INTERVALS])
def test_a_changing_backend_is_asked_more_often(health: Health, interval: float) -> None:
    assert next_interval(health, 0, RULES) == interval
    assert next_interval(health, 0, replace(RULES, fast_interval=0)) == 2


def test_silence_makes_stale() -> None:
    health = after([WELL])
    assert not silent(health, HealthRules(interval=2, timeout=1), 8)
    assert silent(health, HealthRules(interval=2, timeout=1), 8.1)
    assert silent(health, HealthRules(stale_after=5), 6.1)
    assert silent(Health.begin(1, HealthRules(), 0), HealthRules(), 7.1)
    assert not silent(Health.begin(0, HealthRules(), 0), HealthRules(), 1e9)


# Other checks than before


def test_checks_that_stay_keep_what_they_have_counted() -> None:
    rules = HealthRules()
    health = after([WELL, ILL, ILL])
    health, _ = observe(rechecked(health, [None, 0], rules, 4), 1, ILL, rules, 5)
    assert health.state is DOWN


def test_a_new_check_leaves_an_up_backend_with_its_flows_until_it_fails() -> None:
    rules = HealthRules()
    health = rechecked(after([WELL]), [0, None], rules, 2)
    assert health.state is UNKNOWN
    assert observe(health, 1, WELL, rules, 3)[0].state is UP
    assert observe(health, 1, ILL, rules, 3)[0].state is DOWN


def test_a_new_check_does_not_bring_a_down_backend_back() -> None:
    rules = HealthRules()
    assert rechecked(after([ILL]), [0, None], rules, 2).state is DOWN
    assert rechecked(after([ILL]), [None], rules, 2).state is DOWN


def test_the_failing_check_taken_away_brings_it_back() -> None:
    rules = HealthRules()
    health, _ = observe(after([WELL], health=Health.begin(2, rules, 0)), 1, ILL, rules, 2)
    health = rechecked(health, [0], rules, 3)
    assert (health.state, health.since, health.recovered) == (UP, 3, 3)
    assert rechecked(health, [], rules, 4) == Health.begin(0, rules, 4)


# Agents


@pytest.mark.parametrize(
    ("answers", "advice"),
    [
        ("up", Advice()),
        ("drain", Advice(Wish.DRAIN)),
        ("maint", Advice(Wish.MAINT)),
        ("drain;up", Advice(Wish.DRAIN)),
        ("drain;ready", Advice()),
        ("75%", Advice(eighths=6)),
        ("drain 50%;ready", Advice(eighths=4)),
        ("up, 0%", Advice(eighths=0)),
        ("0%;1%", Advice(eighths=1)),
        ("1%", Advice(eighths=1)),
        ("50%;100%", Advice()),
        ("900%", Advice(eighths=16)),
        ("UP 25% maxconn:30", Advice(eighths=2)),
        ("nonsense 1e3% -5% %", Advice()),
    ],
)
def test_what_agents_say(answers: str, advice: Advice) -> None:
    results = [Result(True, answer, 0, answer) for answer in answers.split(";")]
    assert after(results).advice == advice


def test_an_agent_in_two_minds_about_its_share_changes_nothing() -> None:
    health = after([Result(True, "", 0, "50%")])
    for share in (44, 56, 45, 55, 44, 56, 58, 42):
        health, transition = observe(health, 0, Result(True, "", 0, f"{share}%"), HealthRules(), 2)
        assert transition is None
    assert observe(health, 0, Result(True, "", 0, "63%"), HealthRules(), 3)[0].advice == Advice(eighths=5)


def test_a_change_of_advice_is_a_transition_with_the_words_of_the_agent() -> None:
    health, transition = observe(after([WELL]), 0, Result(True, "drain", 0, "drain"), HealthRules(), 2)
    assert transition == Transition(UP, UP, "drain", Advice(Wish.DRAIN))
    assert transition.what == "agent: drain"
    _, transition = observe(health, 0, Result(True, "", 0, "ready 50%"), HealthRules(), 3)
    assert transition is not None
    assert (transition.what, transition.why) == ("agent: weight 4/8", "ready 50%")
    assert observe(health, 0, Result(True, "", 0, "drain"), HealthRules(), 3)[1] is None


@pytest.mark.parametrize("word", ["down", "fail", "failed", "stopped"])
def test_an_agent_that_says_down_need_not_repeat_it(word: str) -> None:
    """HAProxy's agents have rise and fall of 1; coming back takes `rise` here."""
    health, transition = observe(after([WELL]), 0, Result(True, f"agent: {word}", 0, word), HealthRules(), 2)
    assert (health.state, transition) == (DOWN, Transition(UP, DOWN, f"agent: {word}"))
    health = after([Result(True, "", 0, "up")], health=health)
    assert health.state is DOWN
    assert after([Result(True, "", 0, "up")], health=health).state is UP
    assert not says_down("up")


def test_the_stricter_of_two_agents_counts() -> None:
    rules = HealthRules()
    health = Health.begin(3, rules, 0)
    health, _ = observe(health, 0, Result(True, "", 0, "200%"), rules, 1)
    assert health.advice.eighths == 16  # a check that is no agent has no say
    health, _ = observe(health, 1, Result(True, "", 0, "drain 100%"), rules, 2)
    assert health.advice == Advice(Wish.DRAIN, 8)


# Saved and loaded


words = st.sampled_from([None, "drain", "maint", "ready", "75%", "0%", "down", "up"])
results = st.builds(Result, st.booleans(), st.text(max_size=9), st.floats(0, 10), words)
healths = st.builds(
    lambda given, rules, checks: _fed(given, rules, checks),
    st.lists(st.tuples(st.integers(0, 2), results), max_size=25),
    fall_and_rise,
    st.integers(0, 3),
)


def _fed(given: list[tuple[int, Result]], rules: HealthRules, checks: int) -> Health:
    health = Health.begin(checks, rules, 0)
    for at, (index, result) in enumerate(given, 1):
        if index < checks:
            health, _ = observe(health, index, result, rules, at)
    return health


@given(healths)
def test_what_was_saved_is_loaded_stale(health: Health) -> None:
    """Through either format, all is as it was, but marked stale until each check has a result."""
    for form in (json.loads(json.dumps(plain(health))), msgpack.unpackb(msgpack.packb(plain(health)))):
        loaded = parse(form, 0, health.began)
        assert loaded.stale == bool(health.checks)
        assert replace(loaded, checks=tuple(replace(check, stale=False) for check in loaded.checks)) == health
        for index in range(len(health.checks)):
            loaded, _ = observe(loaded, index, WELL, HealthRules(), 99)
        assert not loaded.stale


def test_stale_health_goes_on_counting_as_it_was() -> None:
    loaded = parse(plain(after([WELL, ILL, ILL])), 0, 100)
    assert loaded.state is UP
    assert observe(loaded, 0, ILL, HealthRules(), 101)[0].state is DOWN
    assert observe(loaded, 0, WELL, HealthRules(), 101)[0].state is UP


def test_times_are_moved_to_the_clock_of_today() -> None:
    health = after([ILL, WELL, WELL])
    moved = parse(plain(health), 1000, 1010)
    assert (moved.since, moved.recovered, moved.began) == (1003, 1003, 1010)
    assert [seen.at for seen in moved.checks[0].results] == [1001, 1002, 1003]


broken = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)


@given(healths, st.sampled_from(["state", "since", "why", "recovered", "checks"]), broken)
def test_damaged_values_raise_nothing_else(health: Health, key: str, value: object) -> None:
    with suppress(L4lbError):
        parse({**plain(health), key: value}, 0, 0)


@pytest.mark.parametrize("values", [None, [], {}, {**plain(after([WELL])), "state": "well"}, {"checks": [[]]}])
def test_damaged_values_are_told(values: object) -> None:
    with pytest.raises(L4lbError, match="saved health is not as it should be"):
        parse(values, 0, 0)


# Rules


def test_the_rules_at_hand_are_kept() -> None:
    assert not list(problems(HealthRules()))
    assert not list(vip_problems(VipRules()))


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"rise": 0}, "rise 0 is not between 1 and 255 results in a row: use 2 or 3"),
        ({"fall": 256}, "fall 256 is not"),
        ({"interval": 0.009}, "interval 0.009 s is not between 10 ms and a day"),
        ({"interval": float("nan")}, "interval nan s"),
        ({"timeout": 0.0}, "timeout 0 s is not between 1 ms"),
        ({"fast_interval": 2.1}, "fast interval 2.1 s is not between 10 ms and the interval of 2 s"),
        ({"fast_interval": -1.0}, "fast interval -1 s"),
        ({"jitter": 0.6}, "jitter 0.6 is not between 0 and 0.5"),
        ({"slow_start": -1.0}, "slow start -1 s is not between 0 and a day"),
        ({"floor": 0}, "floor 0 % is not between 1 and 100 %"),
        ({"stale_after": 1.0}, "stale after 1 s is not between the interval of 2 s and a day"),
    ],
)
def test_rules_that_cannot_be(rules: dict[str, float], told: str) -> None:
    found = [str(problem) for problem in problems(HealthRules(**rules))]  # type: ignore[arg-type]
    assert [text for text in found if told in text]
    assert all(problem.hint for problem in problems(HealthRules(**rules)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"panic_share": 101}, "panic share 101 % is not between 0 and 100 %: use 0 for never, or 50"),
        ({"panic_share": -1}, "panic share -1 %"),
        ({"tier_share": 99}, "tier share 99 % is not between 100 and 1000 %"),
    ],
)
def test_vip_rules_that_cannot_be(rules: dict[str, int], told: str) -> None:
    assert any(told in str(problem) for problem in vip_problems(VipRules(**rules)))
