"""Counts as bars."""

from l4lb.lab.bars import bars


def test_bars_fit_a_terminal() -> None:
    lines = bars({"b2": 123_456, "b1": 61_728})
    assert [line.split() for line in lines] == [
        ["b1", "█" * 23, "61,728", "33.3%"],
        ["b2", "█" * 46, "123,456", "66.7%"],
    ]
    assert max(map(len, lines)) < 76
    assert len({len(line) for line in lines}) == 1


def test_bars_without_blocks() -> None:
    assert bars({"b1": 1, "b2": 4}, blocks=False)[0].split() == ["b1", "#" * 12, "1", "20.0%"]


def test_nothing_to_show() -> None:
    assert bars({}) == []
    assert bars({"b1": 0})[0].split() == ["b1", "0", "0.0%"]
