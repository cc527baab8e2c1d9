"""A client with long-lived connections, to be run in the client's namespace: ``connections ADDRESS PORT COUNT``.

It opens them, prints ``open``, sends requests over all of them until a line comes in on standard input, and prints as
JSON which backend each had and what went wrong with it.
"""

import asyncio
import json
import sys

_PAUSE = 0.02  # seconds between the requests of a connection
_PATIENCE = 5.0  # seconds for an answer
_REQUEST = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n"


class Connection:
    """One connection, and what became of it."""

    def __init__(self) -> None:
        self.backend = ""
        self.error = ""

    async def open(self, address: str, port: int) -> None:
        """Connects, and finds out the backend."""
        self._reader, self._writer = await asyncio.open_connection(address, port)
        self.backend = await self._ask()

    async def use(self, stop: asyncio.Event) -> None:
        """Asks again and again; another backend's answer is an error."""
        try:
            while not stop.is_set():
                answer = await self._ask()
                if answer != self.backend:
                    self.error = f"moved to {answer}"
                    return
                await asyncio.sleep(_PAUSE)
        except (OSError, EOFError, TimeoutError) as error:
            self.error = type(error).__name__
        finally:
            self._writer.close()

    async def _ask(self) -> str:
        async with asyncio.timeout(_PATIENCE):
            self._writer.write(_REQUEST)
            await self._reader.readuntil(b"\r\n\r\n")
            return (await self._reader.readuntil(b"\n")).decode().strip()


async def main(address: str, port: int, count: int) -> None:
    """Runs the client."""
    connections = [Connection() for _ in range(count)]
    await asyncio.gather(*(connection.open(address, port) for connection in connections))
    print("open", flush=True)
    stop = asyncio.Event()
    users = [asyncio.create_task(connection.use(stop)) for connection in connections]
    await asyncio.to_thread(sys.stdin.readline)
    stop.set()
    await asyncio.gather(*users)
    json.dump([{"backend": each.backend, "error": each.error} for each in connections], sys.stdout)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
