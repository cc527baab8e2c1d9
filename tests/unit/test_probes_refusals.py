"""Silence after 'port unreachable': hosts say that seldom, so it is remembered."""

from dataclasses import replace

from l4lb.probes.refusals import LATELY_SECONDS, Refusals
from tests.unit.probing import target

A, B = target(1), target(2)


def test_a_refusal_is_remembered_for_a_while() -> None:
    refusals = Refusals()
    assert not refusals.lately(A, 100.0)
    refusals.add(A, 100.0)
    assert refusals.lately(A, 100.0)
    assert refusals.lately(replace(A, vip_name="another"), 100.0 + LATELY_SECONDS)
    assert not refusals.lately(A, 100.1 + LATELY_SECONDS)
    assert not refusals.lately(B, 100.0)
    assert not refusals.lately(replace(A, address="127.0.0.2"), 100.0)


def test_the_last_refusal_counts() -> None:
    refusals = Refusals()
    for now in (100.0, 103.0):
        refusals.add(A, now)
    assert refusals.lately(A, 103.0 + LATELY_SECONDS)


def test_an_answer_ends_it() -> None:
    refusals = Refusals()
    refusals.add(A, 100.0)
    refusals.add(B, 100.0)
    refusals.forget(A)
    refusals.forget(A)
    assert not refusals.lately(A, 100.0)
    assert refusals.lately(B, 100.0)


def test_no_more_is_kept_than_counts() -> None:
    refusals = Refusals()
    for now in range(1_000):
        refusals.add(target(now), float(now))
        refusals.add(A, float(now))
    assert len(refusals._times) == LATELY_SECONDS + 2
