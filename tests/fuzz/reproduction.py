"""The shortest way to a difference: fewest steps, then fewest bytes."""

from collections.abc import Sequence

from tests.fuzz.comparison import Comparison, Difference, Step
from tests.fuzz.mutate import LEAST, MOST

_TRIES = 400


class Reduction:
    """Looks for it, starting from steps of which the last one makes the difference.

    Attributes:
        steps: the fewest that still make one of the same kind.
        difference: what they make.
    """

    def __init__(self, comparison: Comparison, steps: Sequence[Step], difference: Difference) -> None:
        self._comparison = comparison
        self._left = _TRIES
        self._kind = difference.kind
        self.steps = list(steps)
        self.difference = difference
        self.is_certain = self._try(self.steps)
        if self.is_certain and not self._try(self.steps[-1:]):
            self._drop_steps()
        if self.is_certain:
            self._shorten()
        comparison.reset()

    def _try(self, steps: list[Step]) -> bool:
        """Whether these steps, with nothing before them, end in a difference of that kind; if so, they are taken."""
        if not self._left:
            return False
        self._left -= 1
        self._comparison.reset()
        found = None
        for step in steps:
            found = self._comparison.step(step)
        if found is None or found.kind != self._kind:
            return False
        self.steps, self.difference = steps, found
        return True

    def _drop_steps(self) -> None:
        """Leaves out halves, quarters and so on of what comes before the last."""
        size = len(self.steps) // 2
        while size:
            at = 0
            while at < len(self.steps) - 1:
                end = min(at + size, len(self.steps) - 1)
                if not self._try(self.steps[:at] + self.steps[end:]):
                    at = end
            size //= 2

    def _shorten(self) -> None:
        """Cuts bytes off the last frame's end."""
        *before, frame = self.steps
        if not isinstance(frame, bytes):
            return
        size = len(frame) // 2
        while size:
            while len(frame) - size >= LEAST and self._try([*before, frame[:-size]]):
                frame = frame[:-size]
            size //= 2


def as_option(step: Step) -> str:
    """A step as ``--packet`` takes it."""
    return step.hex() if isinstance(step, bytes) else f"+{step}"


def from_option(text: str) -> Step:
    """The step that :func:`as_option` wrote.

    Raises:
        ValueError: it is none.
    """
    if text.startswith("+"):
        return int(text[1:])
    frame = bytes.fromhex(text)
    if not LEAST <= len(frame) <= MOST:
        raise ValueError(f"a frame of {len(frame)} bytes is not between {LEAST} and {MOST}")
    return frame
