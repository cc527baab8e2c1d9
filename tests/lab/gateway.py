"""What the lab tests do with a gateway, its daemon and its client."""

import signal
import subprocess
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from l4lb.lab.daemon import L4LB, Daemon
from l4lb.lab.traffic import Outcome, requests
from l4lb.model import Endpoint, IPAddress

VIP = IPv4Address("10.1.0.100")
VIP6 = IPv6Address("fd01::100")
VIPS: dict[int, IPAddress] = {4: VIP, 6: VIP6}
CLIENTS = [IPv4Address("10.1.0.150") + number for number in range(40)]  # more addresses of a client
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
        self.unload()
        self.daemon.state.unlink(missing_ok=True)
        self.daemon.log.unlink(missing_ok=True)

    def unload(self) -> None:
        """Ends forwarding."""
        self.lab.gateway.run(L4LB, "unload", "--pins", str(self.daemon.pins))

    def add_vip(
        self,
        name: str,
        address: str,
        mode: str = "nat",
        port: int = 8080,
        servers: range = range(3),
        version: int = 4,
        options: tuple[str, ...] = (),
    ) -> None:
        """Adds a VIP with the lab's servers as backends, at their addresses of an IP version."""
        self.daemon.cli("vip", "add", name, address, "--mode", mode, *options)
        for number in servers:
            backend = Endpoint(self.lab.servers[number].address_of(version), port)
            self.daemon.cli("backend", "add", name, str(backend))

    def http(self, count: int, port: int = 80, version: int = 4) -> Outcome:
        """Short requests from the client, each on a fresh connection."""
        return requests(self.lab.client, "http", str(VIPS[version]), port, count)

    def udp(self, count: int, port: int = 53, version: int = 4) -> Outcome:
        """Datagrams from the client, each from a fresh socket."""
        return requests(self.lab.client, "udp", str(VIPS[version]), port, count)

    def curl(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Runs curl in the client."""
        return self.lab.client.run("curl", "--silent", "--show-error", "--max-time", "20", *arguments, check=check)

    def backend(self, status: Any, name: str, number: int) -> Any:
        """One of the lab's servers in a status."""
        return self.backend_at(status, name, str(self.lab.servers[number].address))

    def backend_at(self, status: Any, name: str, address: str) -> Any:
        """A backend in a status, by its address."""
        vip = next(vip for vip in status["vips"] if vip["name"] == name)
        return next(backend for backend in vip["backends"] if backend["address"] == address)

    @staticmethod
    def until(condition: Callable[[], bool], seconds: float = 5) -> None:
        """Waits for something to come true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not come true"
            time.sleep(0.05)
