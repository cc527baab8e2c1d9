"""One of the processes that fuzz."""

import itertools
import os
import signal
import time
from multiprocessing.queues import Queue
from types import FrameType

from tests.fuzz.session import Result, bed_of, fuzz
from tests.fuzz.worlds import WORLDS

Message = int | Result | str
"""Of a worker: packets since the last one, what came of it, or why it ended."""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Ends in order, so that namespaces and pins are taken away."""
    raise KeyboardInterrupt


def work(
    worlds: tuple[int, ...], packets: int, seed: int, seconds: float, messages: "Queue[Message]", cpu: int
) -> None:
    """A worker, on a CPU of its own: the program keeps some things for each."""
    signal.signal(signal.SIGTERM, _interrupt)
    os.sched_setaffinity(0, {cpu})
    deadline = time.monotonic() + seconds
    parent = os.getppid()

    def tell(count: int) -> None:
        if os.getppid() != parent:  # nobody is left to tell
            raise KeyboardInterrupt
        messages.put(count)

    result = Result()
    try:
        for _, group in itertools.groupby(worlds, key=lambda number: (WORLDS[number].features, WORLDS[number].limits)):
            numbers = tuple(group)
            with bed_of(WORLDS[numbers[0]].features, WORLDS[numbers[0]].limits) as bed:
                for number in numbers:
                    left = len(worlds) - worlds.index(number)
                    until = time.monotonic() + (deadline - time.monotonic()) / left
                    share = (packets - result.packets) // left
                    result.add(fuzz(bed, number, share, seed, until, tell))
    except KeyboardInterrupt:
        messages.put("interrupted")
    except Exception as error:  # of any kind: told by the process that prints
        messages.put(f"{type(error).__name__}: {error}")
    messages.put(result)
