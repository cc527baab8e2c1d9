"""What can go wrong with a lab's server, for as long as a with block runs."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from l4lb.lab.servers import HTTP_PORT, start_nginx
from l4lb.lab.topology import Lab, Server


def nginx_of(server: Server) -> list[int]:
    """Its processes."""
    return [pid for pid in server.namespace.processes() if "nginx" in Path(f"/proc/{pid}/comm").read_text()]


@contextmanager
def frozen(_: Lab, server: Server) -> Iterator[None]:
    """An nginx that is there, and does nothing."""
    stopped = nginx_of(server)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def slow(_: Lab, server: Server) -> Iterator[None]:
    """An nginx that is held up for most of the time."""
    pids, over = nginx_of(server), threading.Event()

    def hold() -> None:
        while not over.wait(0.01):
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(0.03)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

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
    rules = "add table inet cut; add chain inet cut in { type filter hook input priority 0; }"
    server.namespace.run("nft", f"{rules}; add rule inet cut in tcp dport {port} drop")
    try:
        yield
    finally:
        server.namespace.run("nft", "delete", "table", "inet", "cut")


@contextmanager
def killed(lab: Lab, server: Server) -> Iterator[None]:
    """No nginx at all; a new one afterwards."""
    for pid in nginx_of(server):
        os.kill(pid, signal.SIGKILL)
    try:
        yield
    finally:
        start_nginx(lab, server)
