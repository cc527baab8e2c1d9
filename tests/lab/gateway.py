"""What the lab tests do with a gateway, its daemon and its client."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import Any

from l4lb.lab.daemon import L4LB, Daemon

VIP = IPv4Address("10.1.0.100")
SEGMENT_PORTS = (80, 53)  # dsr keeps the port, so the backends listen on the VIPs'


class Gateway:
    """A lab's gateway with a daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.lab = daemon.lab

    def clean(self) -> None:
        """Leaves the lab as it was found."""
        if self.daemon.running:
            self.daemon.end(signal.SIGKILL)
        self.lab.gateway.run(L4LB, "unload", "--pins", str(self.daemon.pins), check=False)
        self.daemon.state.unlink(missing_ok=True)
        self.daemon.log.unlink(missing_ok=True)

    def add_vip(self, name: str, address: str, mode: str = "nat", port: int = 8080, servers: range = range(3)) -> None:
        """Adds a VIP with the lab's servers as backends."""
        self.daemon.cli("vip", "add", name, address, "--mode", mode)
        for number in servers:
            self.daemon.cli("backend", "add", name, f"{self.lab.servers[number].address}:{port}")

    def http(self, count: int, concurrency: int = 20, port: int = 80) -> Counter[str]:
        """Short requests from the client, each on a fresh connection."""
        with self.http_going_on(count, concurrency, port) as traffic:
            pass
        return traffic

    @contextmanager
    def http_going_on(self, count: int, concurrency: int = 20, port: int = 80) -> Iterator[Counter[str]]:
        """The same while the with block runs; the outcomes are there when it ends."""
        outcomes: Counter[str] = Counter()
        with self._traffic("http", str(VIP), str(port), str(count), str(concurrency)) as process:
            yield outcomes
            outcomes.update(json.loads(process.communicate(timeout=60)[0]))

    def udp(self, count: int, port: int = 53) -> Counter[str]:
        """Datagrams from the client, each from a fresh socket."""
        with self._traffic("udp", str(VIP), str(port), str(count)) as process:
            return Counter(json.loads(process.communicate(timeout=60)[0]))

    def _traffic(self, *arguments: str) -> "subprocess.Popen[bytes]":
        return self.lab.client.start(sys.executable, "-m", "l4lb.lab.traffic", *arguments, output=subprocess.PIPE)

    def curl(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Runs curl in the client."""
        return self.lab.client.run("curl", "--silent", "--show-error", "--max-time", "20", *arguments, check=check)

    def backend(self, status: Any, name: str, number: int) -> Any:
        """A backend in a status."""
        vip = next(vip for vip in status["vips"] if vip["name"] == name)
        address = str(self.lab.servers[number].address)
        return next(backend for backend in vip["backends"] if backend["address"] == address)
