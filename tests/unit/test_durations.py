"""Durations as users write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4lb.durations import format_duration, parse_duration
from l4lb.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("2s", 2),
        ("1m", 60),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("3", 3),
        ("0.25", 0.25),
        ("1m500ms", 60.5),
    ],
)
def test_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "5x", "-1s", "1s ", "1 s", "1e3", "nan", "ms5", "٣s"])
def test_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no duration"):
        parse_duration(text)


@given(st.integers(0, 10**9))
def test_written_so_that_it_is_read_alike(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)
