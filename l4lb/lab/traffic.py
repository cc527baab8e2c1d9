"""Clients, to be run in the client's namespace.

As a program it prints an outcome as JSON: `python -m l4lb.lab.traffic http|udp ADDRESS PORT COUNT SECONDS`.
"""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from l4lb.errors import L4lbError
from l4lb.lab.namespace import Namespace

CONCURRENCY = 20  # requests at a time
_TIMEOUT = 2.0  # seconds for a whole request: a lost SYN is sent again after one
_REQUEST = b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n"


@dataclass(slots=True)
class Outcome:
    """What became of requests, each on a fresh connection or socket.

    Attributes:
        answers: how many each server answered, by its name.
        failures: the source port of each that failed, and how: refused, reset, timeout, wrong answer ...
    """

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """All requests."""
        return self.answers.total() + len(self.failures)


@contextmanager
def going_on(
    namespace: Namespace, kind: str, address: str, port: int, count: int, seconds: float = 0
) -> Iterator[Outcome]:
    """Requests while the with block runs; the outcome is filled in when the last has ended.

    Args:
        namespace: where the client is.
        kind: ``http`` or ``udp``.
        address: of the VIP.
        port: of the VIP.
        count: of all requests, of which :data:`CONCURRENCY` at most go on at a time.
        seconds: over which their starts are spread; 0 is as fast as it goes.
    """
    words = ("-m", "l4lb.lab.traffic", kind, address, str(port), str(count), str(seconds))
    outcome = Outcome()
    with namespace.start(sys.executable, *words, output=subprocess.PIPE) as process:
        try:
            yield outcome
            printed, _ = process.communicate(timeout=120)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise L4lbError(f"the {kind} client failed: {printed.decode().strip()}")
    found = json.loads(printed)
    outcome.answers.update(found["answers"])
    outcome.failures.extend((port, how) for port, how in found["failures"])


def requests(namespace: Namespace, kind: str, address: str, port: int, count: int) -> Outcome:
    """The outcome of requests as fast as it goes; see :func:`going_on`."""
    with going_on(namespace, kind, address, port, count) as outcome:
        pass
    return outcome


async def _run(kind: str, address: str, port: int, count: int, seconds: float) -> Outcome:
    outcome = Outcome()
    todo = iter(range(count))
    began = time.monotonic()

    async def work() -> None:
        for number in todo:
            early = began + seconds * number / count - time.monotonic()
            if early > 0:
                await asyncio.sleep(early)
            await _one(kind, (address, port), number, outcome)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return outcome


async def _one(kind: str, destination: tuple[str, int], number: int, outcome: Outcome) -> None:
    socket_kind, request = {"http": (socket.SOCK_STREAM, _http), "udp": (socket.SOCK_DGRAM, _udp)}[kind]
    family = socket.AF_INET6 if ":" in destination[0] else socket.AF_INET
    with socket.socket(family, socket_kind) as connection:
        connection.setblocking(False)
        try:
            async with asyncio.timeout(_TIMEOUT):
                await asyncio.get_running_loop().sock_connect(connection, destination)
                outcome.answers[await request(connection, number)] += 1
        except (OSError, ValueError) as error:
            outcome.failures.append((connection.getsockname()[1], _how(error)))


async def one_request(address: str, port: int, patience: float) -> str:
    """How a request on a fresh connection failed; empty if it did not. `patience` is seconds for all of it."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            async with asyncio.timeout(patience):
                await asyncio.get_running_loop().sock_connect(connection, (address, port))
                await _http(connection, 0)
        except (OSError, ValueError) as error:
            return _how(error)
    return ""


async def _http(connection: socket.socket, _number: int) -> str:
    """The server's name; ValueError for an answer that is not one."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, _REQUEST)
    answer = b""
    while part := await loop.sock_recv(connection, 4096):
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    if not body:
        raise ValueError("cut off")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ValueError("wrong answer")
    return body.decode().strip()


async def _udp(connection: socket.socket, number: int) -> str:
    """The server's name; ValueError for an answer to another datagram."""
    loop = asyncio.get_running_loop()
    sent = f"datagram {number}".encode()
    await loop.sock_sendall(connection, sent)
    name, _, echo = (await loop.sock_recv(connection, 65_535)).partition(b" ")
    if echo != sent:
        raise ValueError("wrong answer")
    return name.decode()


def _how(error: OSError | ValueError) -> str:
    """A failure in a word or two."""
    match error:
        case ConnectionResetError():
            return "reset"
        case ConnectionRefusedError():
            return "refused"
        case TimeoutError():
            return "timeout"
        case OSError():
            return error.strerror or str(error)
        case _:
            return str(error)


def _main(kind: str, address: str, port: str, count: str, seconds: str) -> None:
    outcome = asyncio.run(_run(kind, address, int(port), int(count), float(seconds)))
    json.dump({"answers": outcome.answers, "failures": outcome.failures}, sys.stdout)


if __name__ == "__main__":
    _main(*sys.argv[1:])
