"""What can go wrong with a lab's server, for as long as a with block runs."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from l4lb.errors import L4lbError
from l4lb.lab.servers import HTTP_PORT, start_nginx
from l4lb.lab.topology import Lab, Server


def processes_of(server: Server, program: str) -> list[int]:
    """Those of a program on a server; `program` is a part of their command lines that no others have."""
    return [pid for pid in server.namespace.processes() if program in _told(pid, "cmdline")]


@contextmanager
def frozen(_: Lab, server: Server, program: str = "nginx") -> Iterator[None]:
    """A program that is there, and does nothing."""
    pids = processes_of(server, program)
    _signal(pids, signal.SIGSTOP, "T")
    try:
        yield
    finally:
        _signal(pids, signal.SIGCONT, "RSD")


@contextmanager
def slow(_: Lab, server: Server) -> Iterator[None]:
    """An nginx that is held up for most of the time."""
    pids, over = processes_of(server, "nginx"), threading.Event()

    def hold() -> None:
        while not over.wait(0.01):
            _signal(pids, signal.SIGSTOP, "T")
            time.sleep(0.03)
            _signal(pids, signal.SIGCONT, "RSD")

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def blackholed(_: Lab, server: Server, port: int = HTTP_PORT) -> Iterator[None]:
    """A host whose firewall drops what comes in for the service."""
    with firewalled(server, f"tcp dport {port} drop"):
        yield


@contextmanager
def firewalled(server: Server, rule: str, hook: str = "input") -> Iterator[None]:
    """A host whose firewall has a rule of nftables, for what comes in, or by hook ``output`` for what goes out."""
    chain = f"add table inet cut; add chain inet cut packets {{ type filter hook {hook} priority 0; }}"
    server.namespace.run("nft", f"{chain}; add rule inet cut packets {rule}")
    try:
        yield
    finally:
        server.namespace.run("nft", "delete", "table", "inet", "cut")


@contextmanager
def killed(
    lab: Lab, server: Server, program: str = "nginx", start: Callable[[Lab, Server], None] = start_nginx
) -> Iterator[None]:
    """No such program at all; a new one afterwards."""
    _signal(processes_of(server, program), signal.SIGKILL, "Z")
    try:
        yield
    finally:
        start(lab, server)


def _signal(pids: list[int], number: signal.Signals, states: str) -> None:
    """Sends a signal to processes, and returns when each of them is in one of some states, by the letters of ps."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    deadline = time.monotonic() + 5
    while any(_told(pid, "stat").rpartition(") ")[2][0] not in states for pid in pids):
        if time.monotonic() > deadline:
            raise L4lbError(f"{number.name} did not do its work on processes {pids}")
        time.sleep(0.001)


def _told(pid: int, name: str) -> str:
    """What a file of /proc tells of a process; of one that is gone, as much as of a zombie."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return f"{pid} () Z"
