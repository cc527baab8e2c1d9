"""Turns of round-robin: shares by weight, evenly spread."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from l4lb.model import MAX_WEIGHT, Scheduler
from l4lb.plan.turns import MOST_TURNS, round_robin, turns

weights = st.lists(st.integers(1, 12), min_size=1, max_size=8)


@given(weights)
def test_each_backend_has_its_share(chosen: list[int]) -> None:
    in_turn = Counter(round_robin(list(enumerate(chosen))))
    assert {number: count * sum(chosen) for number, count in in_turn.items()} == {
        number: weight * in_turn.total() for number, weight in enumerate(chosen)
    }


@given(weights)
def test_turns_are_spread(chosen: list[int]) -> None:
    """After any number of turns, no backend is more than two of its own ahead or behind."""
    round_ = round_robin(list(enumerate(chosen)))
    for number, weight in enumerate(chosen):
        due, had = weight / sum(chosen), 0
        for place, turn in enumerate(round_, start=1):
            had += turn == number
            assert abs(had - due * place) <= 2


def test_a_round_is_bounded() -> None:
    in_turn = Counter(round_robin([(0, MAX_WEIGHT), (1, MAX_WEIGHT - 1), (2, 1)]))
    assert in_turn.total() <= MOST_TURNS + 3
    assert in_turn[2] == 1


def test_schedulers_that_hash_need_none() -> None:
    assert turns(Scheduler.MAGLEV, [(0, 1)]) == turns(None, [(0, 1)]) == []
    assert turns(Scheduler.LEAST_CONNECTIONS, [(3, 7), (5, 1)]) == [3, 7, 5, 1]
    assert round_robin([]) == []
