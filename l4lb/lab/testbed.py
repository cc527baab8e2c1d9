"""The program alone: loaded and configured as the daemon does it, but run on packets out of memory.

It is on no interface. A namespace of its own has the routes and neighbours that its look-ups ask for.
"""

import asyncio
import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pyroute2 import netns

from l4lb.datapath import bpf, programs
from l4lb.datapath.layout import balancer_source
from l4lb.datapath.links import mac_bytes
from l4lb.datapath.maps import Maps
from l4lb.model import Config, IPAddress, Mode
from l4lb.plan.limits import Limits
from l4lb.plan.planner import make_plan, ticks

LOOPBACK = 1  # what a packet of a test run comes in by

GATEWAY_MAC = "02:00:00:00:00:01"
CLIENT = "10.1.0.2"  # a neighbour on the gateway's interface `wan`
CLIENT_MAC = "02:00:00:00:00:02"

_NAMESPACE = f"""
    link set lo up
    link add wan type veth peer name far
    link set wan address {GATEWAY_MAC} up
    link set far up
    address add 10.1.0.1/24 dev wan
    neighbour add {CLIENT} lladdr {CLIENT_MAC} dev wan nud permanent
"""


class Testbed:
    """One loaded program with its maps; made by :func:`testbed`.

    Attributes:
        pins: a folder in a BPF file system of its own; the maps are in its folder ``maps``.
        program: file descriptor.
        wan: index of the interface towards clients.
    """

    __test__ = False  # pytest, this is no test

    def __init__(self, pins: Path, modes: tuple[Mode, ...], seed: int, limits: Limits) -> None:
        self.pins = pins
        self.limits = limits
        folder = pins / "maps"
        folder.mkdir()
        asyncio.run(programs.ensure(balancer_source(modes, seed, folder, limits), pins / "program"))
        self.program = bpf.open_pin(pins / "program")
        self.maps = Maps(folder, limits)
        self.image = self.maps.read_image()
        self.wan = socket.if_nametoindex("wan")
        self.maps.set_port(LOOPBACK, mac_bytes(GATEWAY_MAC), 1500)
        self.maps.set_port(self.wan, mac_bytes(GATEWAY_MAC), 1500)

    def configure(self, config: Config, next_hops: Mapping[IPAddress, tuple[int, str]]) -> None:
        """Makes the maps hold `config`.

        Args:
            config: what to balance.
            next_hops: interface index and MAC address by backend address; a backend without stays unresolved.
        """
        plan = make_plan(config, self.image, self.limits, self.maps.read_table, ticks(time.monotonic_ns()))
        for operation in plan.operations:
            self.maps.apply(operation)
        self.image = plan.image
        for number, record in self.image.backends.items():
            ifindex, mac = next_hops.get(record.endpoint.address, (0, "00:00:00:00:00:00"))
            self.maps.set_next_hop(number, ifindex, mac_bytes(mac))

    def send(self, packet: bytes) -> bpf.PacketRun:
        """Runs the program once."""
        return bpf.run_on_packet(self.program, packet)

    def close(self) -> None:
        """Lets go of program and maps."""
        os.close(self.program)
        self.maps.close()


@contextmanager
def testbed(modes: tuple[Mode, ...], seed: int, limits: Limits) -> Iterator[Testbed]:
    """A testbed; the calling thread is in its namespace as long as the with block runs."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="l4lb-bpf-")))
        subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
        stack.callback(lambda: subprocess.run(["umount", "--lazy", folder], check=True))
        name = f"l4lb-testbed-{secrets.token_hex(3)}"
        netns.create(name)
        stack.callback(netns.remove, name)
        netns.pushns(name)
        stack.callback(netns.popns)
        subprocess.run(["ip", "-batch", "-"], input=_NAMESPACE, text=True, check=True)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        made = Testbed(folder, modes, seed, limits)
        stack.callback(made.close)
        yield made


testbed.__test__ = False  # type: ignore[attr-defined]  # nor is this
