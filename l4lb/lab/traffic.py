"""Clients, to be run in the client's namespace: what they found is printed as JSON.

traffic http ADDRESS PORT COUNT CONCURRENCY     short requests, each on a fresh connection
traffic udp ADDRESS PORT COUNT                  datagrams, each from a fresh socket
"""

import asyncio
import contextlib
import json
import socket
import sys
from collections import Counter

_TIMEOUT = 3.0  # seconds for a whole request
_REQUEST = b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n"


async def http(address: str, port: int, count: int, concurrency: int) -> Counter[str]:
    """How often each backend answered, and how often each thing went wrong (``!reset``, ``!refused``, ``!timeout``)."""
    outcomes: Counter[str] = Counter()
    todo = iter(range(count))

    async def work() -> None:
        for _ in todo:
            outcomes[await _request(address, port)] += 1

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return outcomes


async def _request(address: str, port: int) -> str:
    try:
        async with asyncio.timeout(_TIMEOUT):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                writer.write(_REQUEST)
                answer = await reader.read(-1)
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
    except ConnectionResetError:
        return "!reset"
    except ConnectionRefusedError:
        return "!refused"
    except TimeoutError:
        return "!timeout"
    except OSError as error:
        return f"!{error.strerror}"
    return answer.rpartition(b"\r\n\r\n")[2].decode().strip() or "!empty"


def udp(address: str, port: int, count: int) -> Counter[str]:
    """How often each backend answered; ``!timeout`` and ``!garbled`` for what went wrong."""
    outcomes: Counter[str] = Counter()
    for number in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1)
            client.connect((address, port))
            sent = f"datagram {number}".encode()
            client.send(sent)
            try:
                name, _, echo = client.recv(65_535).partition(b" ")
            except TimeoutError:
                outcomes["!timeout"] += 1
            else:
                outcomes[name.decode() if echo == sent else "!garbled"] += 1
    return outcomes


def main(kind: str, address: str, *numbers: str) -> None:
    """Runs one of the clients."""
    if kind == "http":
        port, count, concurrency = map(int, numbers)
        outcomes = asyncio.run(http(address, port, count, concurrency))
    else:
        port, count = map(int, numbers)
        outcomes = udp(address, port, count)
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
