"""A client that begins a request at each tick, whatever became of those before; to be run in the client's namespace.

As a program it begins requests until it gets SIGTERM, waits for those that are under way, and prints as JSON how long
each took, in seconds, and how it failed (empty if not): `python -m l4lb.lab.steady ADDRESS PORT PER_SECOND`.
"""

import asyncio
import itertools
import json
import signal
import sys
import time
from contextlib import suppress

from l4lb.lab.traffic import one_request

PATIENCE = 4.0  # seconds for a whole request: a lost SYN is sent again after one, and two more
_LONGEST = 60.0  # seconds, should nobody end it


async def _run(address: str, port: int, rate: float) -> list[tuple[float, str]]:
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    requests: list[asyncio.Task[tuple[float, str]]] = []
    began = time.monotonic()
    for number in itertools.count():
        early = began + number / rate - time.monotonic()
        if early > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), early)
        if over.is_set() or number > rate * _LONGEST:
            break
        requests.append(asyncio.create_task(_one(address, port)))
    return await asyncio.gather(*requests)


async def _one(address: str, port: int) -> tuple[float, str]:
    began = time.monotonic()
    how = await one_request(address, port, PATIENCE)
    return time.monotonic() - began, how


if __name__ == "__main__":
    json.dump(asyncio.run(_run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))), sys.stdout)
