"""What schedulers choose from that do not hash: lists in a VIP's region, read by ``bpf/track.h``."""

from collections.abc import Sequence
from math import gcd

from l4lb.model import Scheduler

MOST_TURNS = 4_096  # a round is cut down to as many, at a loss of precision

Weighted = tuple[int, int]  # a backend's number, and its weight above 0


def turns(scheduler: Scheduler | None, members: Sequence[Weighted]) -> list[int]:
    """The values of a region's turns, as slots: empty for a scheduler that needs none."""
    if scheduler is Scheduler.ROUND_ROBIN:
        return round_robin(members)
    if scheduler is Scheduler.LEAST_CONNECTIONS:
        return [value for member in members for value in member]
    return []


def width(scheduler: Scheduler | None) -> int:
    """How many slots a turn takes: for round-robin a backend, for least-connections a backend and its weight."""
    return 2 if scheduler is Scheduler.LEAST_CONNECTIONS else 1


def round_robin(members: Sequence[Weighted]) -> list[int]:
    """One round: each backend as often as its weight says, as evenly spread as can be."""
    divisor = gcd(*(weight for _, weight in members)) or 1
    shares = [(number, weight // divisor) for number, weight in members]
    total = sum(share for _, share in shares)
    if total > MOST_TURNS:
        shares = [(number, max(1, round(share * MOST_TURNS / total))) for number, share in shares]
    places = sorted(
        ((turn + 0.5) / share, number) for number, share in shares for turn in range(share)
    )  # the middle of each of a backend's parts of the round
    return [number for _, number in places]
