"""A stretch of fuzzing: one world after another, each for so many packets."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from l4lb.datapath.layout import Features
from l4lb.lab.testbed import Testbed, testbed
from l4lb.plan.limits import Limits
from tests.fuzz.comparison import Comparison, Step, compared
from tests.fuzz.packets import Packets
from tests.fuzz.reproduction import Reduction, as_option
from tests.fuzz.worlds import WORLDS, World
from tests.packet.harness import SEED

_ROUND = 1_500  # packets until both forget everything, so that a reproduction is never longer
_PAUSES = (1, 4, 11, 31, 61, 301)  # ticks
_PAUSE = 1 / 400
_MOST_REPORTS = 20  # of one world

Tell = Callable[[int], None]
"""Is told how many packets there were since it was told last."""


@dataclass
class Result:
    """What came of it.

    Attributes:
        reports: of differences and wrong counters, as text; one for each kind of difference in a world.
        differences: how many packets made one.
    """

    packets: int = 0
    differences: int = 0
    reports: list[str] = field(default_factory=list)
    coverage: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Result") -> None:
        """Takes in what came of another one."""
        self.packets += other.packets
        self.differences += other.differences
        self.reports += other.reports
        self.coverage += other.coverage


@contextmanager
def bed_of(features: Features, limits: Limits) -> Iterator[Testbed]:
    """A testbed for worlds with these features."""
    with testbed(features, SEED, limits) as made:
        yield made


def fuzz(
    bed: Testbed, number: int, packets: int, seed: int, until: float = float("inf"), tell: Tell = lambda _: None
) -> Result:
    """Sends packets to a world, by its number, until there were so many or the monotonic clock says `until`."""
    world = WORLDS[number]
    result = Result()
    with compared(bed, world) as comparison:
        chance = random.Random(f"{seed} {number}")
        reduced: set[tuple[str, str]] = set()
        while comparison.packets < packets and time.monotonic() < until:
            before = comparison.packets
            _round(comparison, world, chance, min(_ROUND, packets - before), number, reduced, result)
            tell(comparison.packets - before)
        result.packets = comparison.packets
        result.coverage = comparison.coverage
        result.reports += [f"world {number} ({world.name}): {wrong}" for wrong in comparison.audit()]
    return result


def _round(
    comparison: Comparison,
    world: World,
    chance: random.Random,
    packets: int,
    number: int,
    reduced: set[tuple[str, str]],
    result: Result,
) -> None:
    comparison.reset()
    stream, steps = Packets(chance, world), list[Step]()
    last = comparison.packets + packets
    while comparison.packets < last:
        if chance.random() < _PAUSE:
            steps.append(chance.choice(_PAUSES))
            comparison.step(steps[-1])
        for frame in stream.next()[: last - comparison.packets]:
            steps.append(frame)
            resets = comparison.resets
            difference = comparison.step(frame)
            if difference is None:
                stream.learn(frame, comparison.left())
                if comparison.resets != resets:
                    steps.clear()
                continue
            result.differences += 1
            if difference.kind not in reduced and len(reduced) < _MOST_REPORTS:
                reduced.add(difference.kind)
                result.reports.append(report(Reduction(comparison, steps, difference), number))
            # What they remember may differ from here on.
            comparison.reset()
            steps.clear()


def report(found: Reduction, number: int) -> str:
    """A difference, as users read it."""
    options = " ".join(f"--packet {as_option(step)}" for step in found.steps)
    again = f"scripts/fuzz --world {number} {options}" if found.is_certain else "(it does not happen again)"
    return (
        f"world {number} ({WORLDS[number].name}): {' instead of '.join(reversed(found.difference.kind))}\n"
        f"  packet {found.difference.frame.hex()}\n"
        f"  expected {found.difference.expected}\n"
        f"  found {found.difference.found}\n"
        f"  again: {again}"
    )


def replay(number: int, steps: Sequence[Step]) -> Iterator[tuple[bool, str]]:
    """Whether program and reference agree on each of these steps, and what they make of it."""
    world = WORLDS[number]
    with bed_of(world.features, world.limits) as bed, compared(bed, world) as comparison:
        for step in steps:
            difference = comparison.step(step)
            if isinstance(step, int):
                yield True, f"{step} ticks pass"
            elif difference is None:
                yield True, f"agreed: {comparison.shown()}"
            else:
                yield False, f"expected {difference.expected}\n  found {difference.found}"
