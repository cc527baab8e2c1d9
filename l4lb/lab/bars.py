"""Counts as bars, for a terminal of 80 columns."""

from collections.abc import Mapping

_WIDTH = 46
_EIGHTHS = " ▏▎▍▌▋▊▉"


def bars(counts: Mapping[str, int], blocks: bool = True) -> list[str]:
    """One line for each name, in order: a bar, the count, and its share of the whole.

    Args:
        counts: what to show; the longest bar is the largest count's.
        blocks: whether the terminal can show Unicode's block characters; ``#`` if not.
    """
    most, whole = max(counts.values(), default=0) or 1, sum(counts.values()) or 1
    names, digits = max(map(len, counts), default=0), len(f"{most:,}")
    return [
        f"{name:{names}}  {_bar(count / most, blocks):{_WIDTH}}  {count:{digits},}  {count / whole:6.1%}"
        for name, count in sorted(counts.items())
    ]


def _bar(share: float, blocks: bool) -> str:
    if not blocks:
        return "#" * round(share * _WIDTH)
    full, eighths = divmod(round(share * _WIDTH * 8), 8)
    return "█" * full + _EIGHTHS[eighths].strip()
