"""Maglev tables: balance, disruption, and that nothing but the set of backends decides."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4lb.balance.maglev import LARGEST, SIZES, build, table_size

HUNDRED = [(f"10.2.{number // 256}.{number % 256}:8080", 1) for number in range(100)]

members_of_any_weight = st.lists(
    st.tuples(st.from_regex(r"10\.[0-9]{1,2}\.0\.[0-9]{1,2}:80", fullmatch=True), st.integers(1, 1000)),
    min_size=1,
    max_size=20,
    unique_by=lambda member: member[0],
)


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_equal_backends_have_equal_shares(seed: int) -> None:
    """100 backends, 65,537 slots: each within 1 % of its share."""
    shares = Counter(build(HUNDRED, 65_537, seed))
    assert len(shares) == 100
    assert all(abs(slots - 655.37) <= 6.5537 for slots in shares.values())


@pytest.mark.parametrize("removed", [0, 42, 99])
@pytest.mark.parametrize("seed", [0, 3])
def test_a_removal_disrupts_little(removed: int, seed: int) -> None:
    """A hundredth of the flows has to move; no more than two hundredths move besides."""
    rest = [member for number, member in enumerate(HUNDRED) if number != removed]
    before = [HUNDRED[place][0] for place in build(HUNDRED, 65_537, seed)]
    after = [rest[place][0] for place in build(rest, 65_537, seed)]
    moved = sum(old != new for old, new in zip(before, after, strict=True))
    assert 0.01 <= moved / 65_537 < 0.03


@settings(deadline=None, max_examples=50)
@given(members_of_any_weight, st.integers(0, 2**64 - 1))
def test_shares_follow_weights(members: list[tuple[str, int]], seed: int) -> None:
    """Every slot is taken, and each backend's share is its weight's, rounded up or down."""
    size = 2039
    shares = Counter(build(members, size, seed))
    assert shares.total() == size
    total = sum(weight for _, weight in members)
    for place, (_, weight) in enumerate(members):
        assert abs(shares[place] - size * weight / total) < 1


@settings(deadline=None, max_examples=25)
@given(members_of_any_weight, st.randoms(use_true_random=False))
def test_the_order_given_decides_nothing(members: list[tuple[str, int]], random: Random) -> None:
    shuffled = list(members)
    random.shuffle(shuffled)
    straight = [members[place] for place in build(members, 509, 5)]
    assert [shuffled[place] for place in build(shuffled, 509, 5)] == straight


def test_the_seed_decides() -> None:
    assert build(HUNDRED[:10], 1021, 1) == build(HUNDRED[:10], 1021, 1)
    assert build(HUNDRED[:10], 1021, 1) != build(HUNDRED[:10], 1021, 2)


def test_no_backend_no_table() -> None:
    assert len(build([], 251, 0)) == 0


def test_sizes() -> None:
    assert all(all(size % divisor for divisor in range(2, int(size**0.5) + 1)) for size in SIZES)
    assert list(SIZES) == sorted(SIZES)
    assert table_size(1) == table_size(10) == 1021
    assert table_size(11) == table_size(81) == 8191
    assert table_size(82) == table_size(655) == table_size(10_000) == LARGEST
    assert table_size(2_000, largest=524_287) == 524_287
