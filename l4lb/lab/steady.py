"""A client that begins a request at each tick, whatever became of those before; to be run in the client's namespace.

As a program it prints JSON, for each request when it was sent, how long it took, and how it failed (empty if not):
`python -m l4lb.lab.steady ADDRESS PORT PER_SECOND SECONDS`. Times are of the monotonic clock, which all processes
share.
"""

import asyncio
import json
import sys
import time

from l4lb.lab.traffic import one_request

_PATIENCE = 2.0  # seconds for a whole request


async def _run(address: str, port: int, rate: float, seconds: float) -> list[tuple[float, float, str]]:
    requests: list[asyncio.Task[tuple[float, float, str]]] = []
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        early = began + number / rate - time.monotonic()
        if early > 0:
            await asyncio.sleep(early)
        requests.append(asyncio.create_task(_one(address, port)))
    return await asyncio.gather(*requests)


async def _one(address: str, port: int) -> tuple[float, float, str]:
    began = time.monotonic()
    how = await one_request(address, port, _PATIENCE)
    return began, time.monotonic() - began, how


if __name__ == "__main__":
    json.dump(asyncio.run(_run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))), sys.stdout)
