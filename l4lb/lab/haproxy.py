"""HAProxy as a Layer 4 balancer in the lab's gateway, for comparison: services of several servers each, with checks."""

import csv
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address

from l4lb.errors import L4lbError
from l4lb.lab.servers import HTTP_PORT
from l4lb.lab.topology import GATEWAY_ADDRESS, Lab, Server

# What people set who use it: a server that cannot be connected to is given up after a second, and another one is tried.
COMMON = ("timeout connect 1s", "timeout client 30s", "timeout server 30s", "retries 3", "option redispatch")
_CHECKS = 100  # added to a server's address: where it is checked, so that checks are told from traffic
_FIRST_PORT = 8001
_CONNECTIONS = 8_000  # at a time


class HAProxy:
    """One process with all services.

    Args:
        lab: its gateway's namespace is where it runs.
        services: for each, servers and the options of their lines.
        checks: how servers are checked, as lines of its configuration.
    """

    def __init__(self, lab: Lab, services: Mapping[str, tuple[Sequence[Server], str]], checks: Sequence[str]) -> None:
        self._lab = lab
        self._socket = lab.folder / "haproxy.sock"
        self._path = lab.folder / "haproxy.cfg"
        self.ports = {name: _FIRST_PORT + number for number, name in enumerate(services)}
        for servers, _ in services.values():
            for server in servers:
                server.namespace.ip(f"address add {_checked_at(server)}/24 dev eth0")
        defaults = "\n".join(f"    {line}" for line in ("mode tcp", *COMMON, *checks))
        listens = "\n".join(self._listen(name, *service) for name, service in services.items())
        self._path.write_text(
            f"global\n    maxconn {_CONNECTIONS}\n    stats socket {self._socket}\ndefaults\n{defaults}\n{listens}\n"
        )

    def _listen(self, name: str, servers: Sequence[Server], options: str) -> str:
        lines = [f"listen {name}", f"    bind {GATEWAY_ADDRESS}:{self.ports[name]}", "    balance roundrobin"]
        for server in servers:
            where = f"{server.address}:{HTTP_PORT} check addr {_checked_at(server)}"
            lines.append(f"    server {server.name} {where} {options}")
        return "\n".join(lines)

    @contextmanager
    def running(self) -> Iterator[None]:
        """It runs as long as the with block does, which begins when it answers.

        Raises:
            L4lbError: it is not installed, or does not start; says why.
        """
        log = self._path.with_suffix(".log")
        with log.open("wb") as output:
            process = self._lab.gateway.start("haproxy", "-db", "-f", str(self._path), output=output)
        try:
            deadline = time.monotonic() + 5
            while not self._socket.is_socket():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise L4lbError(f"haproxy did not start: {log.read_text().strip()}")
                time.sleep(0.02)
            yield
        finally:
            process.kill()
            process.wait()

    def is_up(self, name: str) -> bool:
        """Whether every server of a service was checked and found well."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.sendall(b"show stat\n")
            with connection.makefile() as answer:
                rows = list(csv.DictReader(answer.read().removeprefix("# ").splitlines()))
        servers = [row for row in rows if row["pxname"] == name and row["check_status"]]
        return all(row["status"] == "UP" and row["check_status"] != "INI" for row in servers)


def _checked_at(server: Server) -> IPv4Address:
    return server.address + _CHECKS
