"""What backends get: exactly what is configured while all is well, and what is left of it when it is not."""

from dataclasses import replace
from fractions import Fraction
from math import gcd

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from l4lb.health.advice import Advice, Wish
from l4lb.health.machine import CheckHealth, Health, Suspicion
from l4lb.health.rules import Panic, State, VipRules
from l4lb.health.weights import Member, Picture, Verdict, next_change, picture
from l4lb.model import Admin

UNKNOWN, UP, DOWN = State
USUAL = VipRules()
NOW = 1000.0


def health(state: State = UP, recovered: float | None = None, advice: Advice | None = None) -> Health:
    why = {UP: "HTTP 200", DOWN: "HTTP 503", UNKNOWN: "not checked yet"}[state]
    return Health((CheckHealth(state, why, advice=advice),), state, NOW, why, 0, recovered=recovered)


def member(weight: int = 1, state: State = UP, **more: object) -> Member:
    return Member(weight, health(state), **more)  # type: ignore[arg-type]


def shares(seen: Picture) -> list[Fraction]:
    """What part of the new flows each backend gets."""
    total = sum(backend.weight for backend in seen.backends)
    return [Fraction(backend.weight, total or 1) for backend in seen.backends]


def weights(members: list[Member], rules: VipRules = USUAL, now: float = NOW) -> list[int]:
    return [backend.weight for backend in picture(members, rules, now).backends]


advices = st.builds(Advice, st.sampled_from(Wish), st.integers(0, 16))
healths = st.builds(
    health,
    st.sampled_from(State),
    st.none() | st.floats(NOW - 20, NOW),
    st.none() | advices,
)
small = st.integers(0, 20)
any_weight = small | st.integers(0, 65_535)


def members_of(weight: st.SearchStrategy[int]) -> st.SearchStrategy[list[Member]]:
    return st.lists(
        st.builds(
            Member,
            weight,
            healths,
            st.sampled_from([Admin.NONE, Admin.NONE, Admin.NONE, *Admin]),
            priority=st.integers(0, 2),
            slow_start=st.sampled_from([0.0, 10.0]),
            degraded=st.integers(1, 8),
        ),
        max_size=6,
    )


vip_rules = st.builds(
    VipRules, st.sampled_from([0, 1, 50, 100]), st.sampled_from(Panic), st.sampled_from([100, 140, 1000])
)

# Invariants


@given(members_of(any_weight), vip_rules)
def test_weights_are_what_tables_take(members: list[Member], rules: VipRules) -> None:
    """Integers of 16 bits, without a common divisor; someone gets flows unless the verdict says that nobody does."""
    seen = picture(members, rules, NOW)
    found = [backend.weight for backend in seen.backends]
    assert len(found) == len(members)
    assert all(0 <= weight <= 65_535 for weight in found)
    assert gcd(*found) == (0 if seen.verdict in (Verdict.NONE, Verdict.REFUSED) else 1)
    assert all((backend.weight > 0) == (backend.eighths > 0) for backend in seen.backends)
    assert all(backend.usable for backend in seen.backends if backend.weight)
    assert (seen.verdict is Verdict.OK) == (not seen.why)


@given(members_of(any_weight), vip_rules)
def test_the_operator_outranks_health(members: list[Member], rules: VipRules) -> None:
    """Drained: no new flows, and existing ones stay, up or down, panic or not. Disabled: none at all."""
    for each, backend in zip(members, picture(members, rules, NOW).backends, strict=True):
        if each.admin is not Admin.NONE:
            assert backend.weight == 0
            assert backend.usable == (each.admin is Admin.DRAIN)


@given(members_of(any_weight), vip_rules)
def test_only_who_is_down_or_disabled_loses_flows(members: list[Member], rules: VipRules) -> None:
    seen = picture(members, rules, NOW)
    for each, backend in zip(members, seen.backends, strict=True):
        gone = each.admin is Admin.DISABLED or (
            each.admin is Admin.NONE and (each.health.state is DOWN or each.health.advice.wish is Wish.MAINT)
        )
        if seen.verdict is not Verdict.PANIC:
            assert backend.usable is not gone
        else:
            assert backend.usable or gone


@given(members_of(any_weight), vip_rules)
def test_without_panic_the_down_get_nothing(members: list[Member], rules: VipRules) -> None:
    seen = picture(members, rules, NOW)
    for each, backend in zip(members, seen.backends, strict=True):
        if each.health.advice.wish is not Wish.NONE or each.weight == 0:
            assert backend.weight == 0
        if each.health.state is DOWN and seen.verdict is not Verdict.PANIC:
            assert backend.weight == 0


@given(st.lists(any_weight, max_size=8), st.sampled_from([UP, UNKNOWN]), vip_rules)
def test_everything_up_is_as_configured(configured: list[int], state: State, rules: VipRules) -> None:
    """Reduced by their divisor, and not otherwise, whatever the rules."""
    seen = picture([member(weight, state, slow_start=10.0) for weight in configured], rules, NOW)
    divisor = gcd(*configured)
    assert [backend.weight * divisor for backend in seen.backends] == configured
    assert seen.verdict is (Verdict.OK if divisor else Verdict.NONE)
    assert all(backend.usable for backend in seen.backends)


@given(members_of(st.integers(0, 4_000)), st.integers(1, 16), vip_rules)
def test_only_ratios_count(members: list[Member], factor: int, rules: VipRules) -> None:
    """Weights of another scale make the same table, ramping or not."""
    scaled = [replace(each, weight=each.weight * factor) for each in members]
    assert picture(scaled, rules, NOW) == picture(members, rules, NOW)


@given(members_of(any_weight), vip_rules, st.randoms(use_true_random=False))
def test_the_order_decides_nothing(members: list[Member], rules: VipRules, random: object) -> None:
    order = list(range(len(members)))
    random.shuffle(order)  # type: ignore[attr-defined]
    straight = picture(members, rules, NOW).backends
    assert list(picture([members[place] for place in order], rules, NOW).backends) == [straight[each] for each in order]


@given(members_of(small), st.data())
def test_health_is_never_to_ones_disadvantage(members: list[Member], data: st.DataObject) -> None:
    """Who comes up gets no less than before; without tiers, nobody else gets more."""
    assume(members)
    place = data.draw(st.integers(0, len(members) - 1))
    one = members[place]
    sick = [*members[:place], replace(one, health=replace(one.health, state=DOWN)), *members[place + 1 :]]
    well = [*members[:place], replace(one, health=replace(one.health, state=UP)), *members[place + 1 :]]
    before, after = shares(picture(sick, USUAL, NOW)), shares(picture(well, USUAL, NOW))
    assert after[place] >= before[place] == 0
    if len({each.priority for each in members}) == 1 and any(before):
        others = [index for index in range(len(members)) if index != place and not ramps(members[index])]
        assert all(after[index] <= before[index] for index in others)


def ramps(each: Member) -> bool:
    return bool(each.slow_start and each.health.recovered)


@given(members_of(small), st.data())
def test_a_larger_factor_is_never_to_ones_disadvantage(members: list[Member], data: st.DataObject) -> None:
    assume(members)
    place = data.draw(st.integers(0, len(members) - 1))
    one = replace(members[place], degraded=data.draw(st.integers(1, 7)))
    more = replace(one, degraded=one.degraded + 1)
    before = shares(picture([*members[:place], one, *members[place + 1 :]], USUAL, NOW))
    after = shares(picture([*members[:place], more, *members[place + 1 :]], USUAL, NOW))
    assert after[place] >= before[place]


@given(st.lists(st.tuples(small, st.integers(1, 8)), min_size=1, max_size=6))
def test_shares_are_the_configured_ones_in_eighths(pairs: list[tuple[int, int]]) -> None:
    """One tier: each has its weight times its factor, of the sum of all those."""
    total = sum(weight * eighths for weight, eighths in pairs)
    assume(total)
    found = shares(picture([member(weight, degraded=eighths) for weight, eighths in pairs], USUAL, NOW))
    assert found == [Fraction(weight * eighths, total) for weight, eighths in pairs]


@given(st.lists(st.tuples(st.integers(1, 65_535), st.integers(1, 8)), min_size=1, max_size=6))
def test_numbers_that_are_too_large_are_rounded(pairs: list[tuple[int, int]]) -> None:
    """To the nearest of 65,535 parts of the largest, and never to nothing."""
    found = weights([member(weight, degraded=eighths) for weight, eighths in pairs])
    exact = [weight * eighths for weight, eighths in pairs]
    assert all(found)
    for weight, each in zip(found, exact, strict=True):
        assert abs(Fraction(weight, max(found)) - Fraction(each, max(exact))) < Fraction(1, 65_535)


# Administrative state, health and agents, one by one


@pytest.mark.parametrize(
    ("one", "weight", "usable", "reason"),
    [
        (member(4), 2, True, "up"),
        (member(4, UNKNOWN), 2, True, "unknown"),
        (member(4, DOWN), 0, False, "down: HTTP 503"),
        (member(4, admin=Admin.DRAIN), 0, True, "draining"),
        (member(4, DOWN, admin=Admin.DRAIN), 0, True, "draining"),
        (member(4, admin=Admin.DISABLED), 0, False, "disabled"),
        (member(0), 0, True, "weight 0"),
        (member(0, DOWN), 0, False, "down: HTTP 503"),
        (Member(4, health(advice=Advice(Wish.DRAIN))), 0, True, "agent: drain"),
        (Member(4, health(advice=Advice(Wish.MAINT))), 0, False, "agent: maint"),
        (Member(4, health(DOWN, advice=Advice(Wish.DRAIN))), 0, False, "down: HTTP 503"),
        (Member(4, health(advice=Advice(eighths=0))), 0, True, "agent: weight 0/8"),
        (Member(4, health(advice=Advice(eighths=4))), 1, True, "up, agent: weight 4/8"),
        (Member(4, health(advice=Advice(eighths=16))), 4, True, "up, agent: weight 16/8"),
        (Member(4, health(), degraded=4, degraded_why="slow"), 1, True, "up, degraded to 4/8: slow"),
        # factors are multiplied, and rounded to eighths: 5/8 of 7/8 are 4.4 of them, 5/8 of 6/8 are 3.75
        (Member(4, health(advice=Advice(eighths=7)), degraded=5), 1, True, "up, degraded to 5/8: , agent: weight 7/8"),
        (Member(4, health(advice=Advice(eighths=6)), degraded=5), 1, True, "up, degraded to 5/8: , agent: weight 6/8"),
        (
            Member(4, replace(health(), suspicion=Suspicion("12 handshakes unanswered", NOW, NOW))),
            2, True, "up, suspected: 12 handshakes unanswered",
        ),
        (Member(4, health(recovered=NOW), slow_start=8, degraded=4, degraded_why="slow"), 1, True, "slow start 1/8"),
    ],
)  # fmt: skip
def test_one_beside_a_healthy_one(one: Member, weight: int, usable: bool, reason: str) -> None:
    seen, other = picture([one, member(2)], USUAL, NOW).backends
    assert Fraction(seen.weight, other.weight) == Fraction(weight, 1) * (
        Fraction(1, 4) if "slow start" in reason else 1
    )
    assert seen.usable is usable
    assert reason in seen.reason


# Tiers: the table of Envoy's documentation ("Priority levels"), which has whole percents.

ENVOY = [
    ((100, 100), (100, 0)),
    ((72, 100), (100, 0)),
    ((71, 100), (99, 1)),
    ((50, 100), (70, 30)),
    ((25, 100), (35, 65)),
    ((0, 100), (0, 100)),
    ((72, 72), (100, 0)),
    ((71, 71), (99, 1)),
    ((50, 50), (70, 30)),
    ((25, 25), (50, 50)),
    ((100, 100, 100), (100, 0, 0)),
    ((71, 71, 100), (99, 1, 0)),
    ((25, 100, 100), (35, 65, 0)),
    ((25, 25, 100), (35, 35, 30)),
    ((25, 25, 20), (36, 36, 28)),
]


@pytest.mark.parametrize(("healthy", "loads"), ENVOY)
def test_tiers_overflow_as_envoys_do(healthy: tuple[int, ...], loads: tuple[int, ...]) -> None:
    members = [
        member(1, UP if number < percent else DOWN, priority=priority)
        for priority, percent in enumerate(healthy)
        for number in range(100)
    ]
    seen = picture(members, USUAL, NOW)
    found = shares(seen)
    tiers = [100 * float(sum(found[first : first + 100])) for first in range(0, len(found), 100)]
    assert tiers == pytest.approx(loads, abs=0.61)
    assert seen.verdict is (Verdict.OK if loads[0] == 100 else Verdict.OVERFLOW)


def test_a_lower_tier_waits_with_its_flows() -> None:
    seen = picture([member(3), member(1, priority=1), member(1, DOWN, priority=1)], USUAL, NOW)
    assert [(each.weight, each.usable, each.reason) for each in seen.backends] == [
        (1, True, "up"), (0, True, "up, standby in tier 1"), (0, False, "down: HTTP 503"),
    ]  # fmt: skip


def test_the_overflow_is_told() -> None:
    seen = picture([member(1), member(1, DOWN), member(1, priority=5)], USUAL, NOW)
    assert seen.why == "tier 0 is short of healthy weight: 70 % of flows to tier 0, 30 % of flows to tier 5"
    tiers = [member(1, UP if number == 0 else DOWN, priority=priority) for priority in (0, 5) for number in range(4)]
    seen = picture(tiers, USUAL, NOW)
    assert seen.why == "tier 0 is short of healthy weight: 50 % of flows to tier 0, 50 % of flows to tier 5"


def test_drain_moves_flows_to_the_next_tier_too() -> None:
    assert weights([member(admin=Admin.DRAIN), member(priority=1)]) == [0, 1]


def test_a_tier_of_weights_0_is_none() -> None:
    seen = picture([member(0), member(1, priority=1)], USUAL, NOW)
    assert (seen.verdict, [each.weight for each in seen.backends]) == (Verdict.OK, [0, 1])


@given(members_of(small))
def test_flows_go_to_the_lower_tier_only_for_want_of_weight_above(members: list[Member]) -> None:
    found = weights(members)
    for lower in {each.priority for each in members}:
        flows = sum(weight for each, weight in zip(members, found, strict=True) if each.priority == lower)
        for upper in range(lower):
            own = [each for each in members if each.priority == upper]
            usual = [
                each
                for each in own
                if each.admin is Admin.NONE and each.health.state is not DOWN and each.health.advice == Advice()
            ]
            if (
                own
                and sum(e.weight for e in own)
                and usual == own
                and all(e.degraded == 8 and not ramps(e) for e in own)
            ):
                assert not flows


# Panic


def three(*states: State) -> list[Member]:
    return [member(2, state) for state in states]


@pytest.mark.parametrize(
    ("members", "rules", "verdict", "expected"),
    [
        (three(UP, DOWN, DOWN), VipRules(), Verdict.OK, [1, 0, 0]),
        (three(DOWN, DOWN, DOWN), VipRules(), Verdict.NONE, [0, 0, 0]),
        (three(UP, DOWN, DOWN), VipRules(panic_share=50), Verdict.PANIC, [1, 1, 1]),
        (three(UP, UP, DOWN), VipRules(panic_share=50), Verdict.OK, [1, 1, 0]),
        (three(DOWN, DOWN, DOWN), VipRules(panic_share=1), Verdict.PANIC, [1, 1, 1]),
        (three(UP, DOWN), VipRules(panic_share=50), Verdict.OK, [1, 0]),
        (three(UNKNOWN, DOWN), VipRules(panic_share=50), Verdict.OK, [1, 0]),
        (three(UP, DOWN), VipRules(panic_share=51), Verdict.PANIC, [1, 1]),
        (three(UP, DOWN), VipRules(panic_share=51, panic=Panic.REFUSE), Verdict.REFUSED, [0, 0]),
        (three(UP, UP), VipRules(panic_share=100), Verdict.OK, [1, 1]),
        # by weight, not by number
        ([member(9), member(1, DOWN), member(1, DOWN)], VipRules(panic_share=50), Verdict.OK, [1, 0, 0]),
        # maintenance is no sickness
        (
            [member(), member(admin=Admin.DRAIN), member(admin=Admin.DISABLED), member(1, DOWN, admin=Admin.DRAIN)],
            VipRules(panic_share=100), Verdict.OK, [1, 0, 0, 0],
        ),
        (
            [member(1), Member(1, health(advice=Advice(Wish.MAINT))), Member(1, health(advice=Advice(Wish.DRAIN)))],
            VipRules(panic_share=100), Verdict.OK, [1, 0, 0],
        ),
        # the operator's and the agents' word holds in panic
        (
            [
                member(2, DOWN), member(2, DOWN, admin=Admin.DRAIN), member(2, DOWN, admin=Admin.DISABLED),
                Member(2, health(DOWN, advice=Advice(Wish.MAINT))), member(4, DOWN), member(0, DOWN),
            ],
            VipRules(panic_share=50), Verdict.PANIC, [1, 0, 0, 0, 2, 0],
        ),
        ([member(admin=Admin.DRAIN)], VipRules(panic_share=100), Verdict.NONE, [0]),
        ([], VipRules(panic_share=100), Verdict.NONE, []),
        # a healthy tier takes it; with none, all tiers are used
        ([member(1, DOWN), member(1, priority=1)], VipRules(panic_share=50), Verdict.OVERFLOW, [0, 1]),
        ([member(1, DOWN), member(3, DOWN, priority=1)], VipRules(panic_share=50), Verdict.PANIC, [1, 3]),
    ],
)  # fmt: skip
def test_panic(members: list[Member], rules: VipRules, verdict: Verdict, expected: list[int]) -> None:
    seen = picture(members, rules, NOW)
    assert (seen.verdict, [each.weight for each in seen.backends]) == (verdict, expected)


def test_in_panic_the_down_keep_their_flows_and_say_why() -> None:
    down = picture(three(UP, DOWN, DOWN), VipRules(panic_share=50), NOW)
    assert all(each.usable for each in down.backends)
    assert down.why == "33 % of the weight is healthy, and 50 % have to be"
    assert down.backends[1].reason == "panic, health does not count (down: HTTP 503)"


def test_refusing_keeps_the_flows_of_the_healthy() -> None:
    seen = picture(three(UP, DOWN, DOWN), VipRules(panic_share=50, panic=Panic.REFUSE), NOW)
    assert [each.usable for each in seen.backends] == [True, False, False]
    assert seen.backends[0].reason.startswith("refused: 33 %")


# Slow start


def returning(ago: float, slow_start: float = 7.0, weight: int = 1) -> Member:
    return Member(weight, health(recovered=NOW - ago), slow_start=slow_start)


@pytest.mark.parametrize(("ago", "eighths"), [(0, 1), (0.9, 1), (1, 2), (2.5, 3), (6.9, 7), (7, 8), (99, 8)])
def test_the_weight_ramps_in_eighths(ago: float, eighths: int) -> None:
    """From an eighth at once to all of it at the end."""
    assert shares(picture([returning(ago), member()], USUAL, NOW))[0] == Fraction(eighths, eighths + 8)


def test_no_slow_start_alone() -> None:
    seen = picture([returning(0), member(1, DOWN), member(1, admin=Admin.DRAIN)], USUAL, NOW)
    assert (seen.backends[0].eighths, seen.backends[0].reason) == (8, "up")
    assert next_change([returning(0), member(1, DOWN)], NOW) is None


def test_flows_come_back_slowly_to_a_tier() -> None:
    """A single server and its standby: an eighth of its weight carries 17.5 %, with Envoy's factor."""
    assert shares(picture([returning(0), member(priority=1)], USUAL, NOW))[0] == Fraction(175, 1000)


@given(members_of(small), vip_rules)
def test_the_daemon_can_sleep_until_the_next_change(members: list[Member], rules: VipRules) -> None:
    """Between those moments nothing changes, and there are no more than seven for each backend."""
    now, steps = NOW, 0
    while (then := next_change(members, now)) is not None:
        assert then > now
        middle = now + (then - now) / 2
        assert middle >= then or picture(members, rules, middle) == picture(members, rules, now)
        now, steps = then, steps + 1
        assert steps <= 7 * len(members)
    assert picture(members, rules, now + 1e6) == picture(members, rules, now)


def test_the_next_change_is_one() -> None:
    members = [returning(0, 0.3), member()]
    now, seen = NOW, [weights(members)]
    while (then := next_change(members, now)) is not None:
        now = then
        seen.append(weights(members, now=now))
    assert seen == [[eighths // gcd(eighths, 8), 8 // gcd(eighths, 8)] for eighths in range(1, 9)]
