"""What an agent on a backend says of it, in HAProxy's words (its configuration manual, "agent-check")."""

import enum
import re
from dataclasses import dataclass, replace
from typing import Self

EIGHTHS = 8  # a whole weight: weights move in eighths, so that tables change seldom
MOST_EIGHTHS = 16  # twice the weight at most: an agent in error draws no more flows than that
STICKINESS = 0.75  # of an eighth: from the middle of one step, nearly to the middle of the next

_FAILED = {"down", "fail", "failed", "stopped"}


class Wish(enum.StrEnum):
    """How a backend wants to be treated, whatever its health.

    * ``drain``: no new flows, the existing ones stay.
    * ``maint``: as if it were down.
    """

    NONE = "none"
    DRAIN = "drain"
    MAINT = "maint"


@dataclass(frozen=True, slots=True)
class Advice:
    """What counts of all that an agent has said. It stays until the agent takes it back.

    Attributes:
        wish: ``drain`` and ``maint`` hold until ``ready``.
        eighths: of the configured weight; 0 for no new flows.
    """

    wish: Wish = Wish.NONE
    eighths: int = EIGHTHS

    def heed(self, text: str) -> Self:
        """With the words of one more answer; those that are not known change nothing."""
        after = self
        for word in words(text):
            if word in ("drain", "maint"):
                after = replace(after, wish=Wish(word))
            elif word == "ready":
                after = replace(after, wish=Wish.NONE)
            elif re.fullmatch(r"[0-9]{1,6}%", word):
                after = replace(after, eighths=quantised(int(word[:-1]) / 100, after.eighths))
        return after

    def __or__(self, other: Self) -> Self:
        """What holds for a backend of which two agents speak: the stricter of both."""
        order = list(Wish)
        return replace(self, wish=max(self.wish, other.wish, key=order.index), eighths=min(self.eighths, other.eighths))

    def __str__(self) -> str:
        share = f"weight {self.eighths}/{EIGHTHS}" if self.eighths != EIGHTHS else ""
        wish = str(self.wish) if self.wish is not Wish.NONE else ""
        return ", ".join(filter(None, (wish, share))) or "ready"


def words(text: str) -> list[str]:
    """The words of an answer."""
    return re.findall(r"[^\s,]+", text.lower())


def says_down(text: str) -> bool:
    """Whether an answer has the backend failed."""
    return not _FAILED.isdisjoint(words(text))


def quantised(share: float, eighths: int) -> int:
    """A share of a weight in eighths, for a backend that has `eighths` now.

    An agent that reports its load has another number each time: it has to leave its step clearly to get another. Only
    0 is 0.
    """
    wanted = min(share * EIGHTHS, float(MOST_EIGHTHS))
    if wanted == 0:
        return 0
    return max(1, round(wanted)) if eighths == 0 or abs(wanted - eighths) >= STICKINESS else eighths
