"""Free stretches of an array, taken first fit."""

from collections.abc import Iterable


class Stretches:
    """What of an array is not taken.

    Args:
        taken: (first entry, entries) of each stretch in use.
        size: entries of the array.
    """

    def __init__(self, taken: Iterable[tuple[int, int]], size: int) -> None:
        self._gaps: list[tuple[int, int]] = []
        position = 0
        for first, length in sorted(stretch for stretch in taken if stretch[1]):
            self._gaps.append((position, first - position))
            position = first + length
        self._gaps.append((position, size - position))

    def take(self, length: int) -> int | None:
        """The first entry of a stretch so long, which is free no more; None if there is none."""
        for place, (first, size) in enumerate(self._gaps):
            if size >= length:
                self._gaps[place] = (first + length, size - length)
                return first
        return None
