"""The program alone: loaded and configured as the daemon does it, but run on packets out of memory.

It is on no interface. A namespace of its own has the routes and neighbours that its look-ups ask for.
"""

import asyncio
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

from pyroute2 import netns

from l4lb.datapath import bpf, programs
from l4lb.datapath.layout import Features, balancer_source
from l4lb.datapath.links import Link, mac_bytes
from l4lb.datapath.maps import Maps
from l4lb.datapath.nexthops import NextHop, Unresolved
from l4lb.datapath.ways import usable, way
from l4lb.lab.bpf_folder import bpf_folder
from l4lb.model import Config, IPAddress
from l4lb.plan.limits import Limits
from l4lb.plan.planner import make_plan, ticks

LOOPBACK = 1  # what a packet of a test run comes in by

GATEWAY_MAC = "02:00:00:00:00:01"
CLIENT = "10.1.0.2"  # a neighbour on the gateway's interface `wan`
CLIENT_MAC = "02:00:00:00:00:02"
CLIENT6 = "fd01::2"
SOURCES = {4: ip_address("10.1.0.1"), 6: ip_address("fd01::1")}  # the gateway's own addresses
MTU = 1500

_NAMESPACE = f"""
    link set lo up
    link add wan type veth peer name far
    link set wan address {GATEWAY_MAC} up
    link set far up
    address add {SOURCES[4]}/24 dev wan
    address add {SOURCES[6]}/64 dev wan nodad
    neighbour add {CLIENT} lladdr {CLIENT_MAC} dev wan nud permanent
    neighbour add {CLIENT6} lladdr {CLIENT_MAC} dev wan nud permanent
"""


def hop(ifindex: int, mac: str, mtu: int = 0, version: int = 4) -> NextHop:
    """A next hop, reached from the gateway's own address of an IP version; `mtu` 0: the interface's."""
    return NextHop(ifindex, "", mac_bytes(mac), None, mtu, SOURCES[version])


class Testbed:
    """One loaded program with its maps; made by :func:`testbed`.

    Attributes:
        pins: a folder in a BPF file system of its own; the maps are in its folder ``maps``.
        program: file descriptor.
        wan: index of the interface towards clients.
    """

    __test__ = False  # pytest, this is no test

    def __init__(self, pins: Path, features: Features, seed: int, limits: Limits) -> None:
        self.pins = pins
        self.limits = limits
        self.links: dict[int, Link] = {}
        folder = pins / "maps"
        folder.mkdir()
        asyncio.run(programs.ensure(balancer_source(features, seed, folder, limits), pins / "program"))
        self.program = bpf.open_pin(pins / "program")
        self.maps = Maps(folder, limits)
        self.image = self.maps.read_image()
        self.wan = socket.if_nametoindex("wan")
        for name, ifindex in (("lo", LOOPBACK), ("wan", self.wan)):
            self.set_port(name, ifindex)

    def set_port(self, name: str, ifindex: int, parent: int | None = None, tags: tuple[int, ...] = ()) -> None:
        """Makes an interface, or a VLAN on one, the gateway's."""
        self.links[ifindex] = Link(name, ifindex, mac_bytes(GATEWAY_MAC), MTU, True, parent or ifindex, tags)
        self.maps.set_port(self.links[ifindex])

    def configure(self, config: Config, next_hops: Mapping[IPAddress, NextHop]) -> None:
        """Makes the maps hold `config`.

        Args:
            config: what to balance.
            next_hops: by backend address; a backend without stays unresolved.
        """
        plan = make_plan(config, self.image, self.limits, self.maps.read_contents, ticks(time.monotonic_ns()))
        for operation in plan.operations:
            self.maps.apply(operation)
        self.image = plan.image
        for number, record in self.image.backends.items():
            address, source = record.endpoint.address, plan.sources[number]
            answer = usable(next_hops.get(address, Unresolved("not given")), record.mode, source)
            mtu = self.links[answer.ifindex].mtu if isinstance(answer, NextHop) else 0
            self.maps.set_way(number, way(answer, address, record.mode, source, mtu))

    def send(self, packet: bytes) -> bpf.PacketRun:
        """Runs the program once."""
        return bpf.run_on_packet(self.program, packet)

    def close(self) -> None:
        """Lets go of program and maps."""
        os.close(self.program)
        self.maps.close()


@contextmanager
def testbed(features: Features, seed: int, limits: Limits) -> Iterator[Testbed]:
    """A testbed; the calling thread is in its namespace as long as the with block runs."""
    with ExitStack() as stack:
        folder = stack.enter_context(bpf_folder())
        name = f"l4lb-testbed-{secrets.token_hex(3)}"
        netns.create(name)
        stack.callback(netns.remove, name)
        netns.pushns(name)
        stack.callback(netns.popns)
        subprocess.run(["ip", "-batch", "-"], input=_NAMESPACE, text=True, check=True)
        for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            Path("/proc/sys/net", setting).write_text("1")
        made = Testbed(folder, features, seed, limits)
        stack.callback(made.close)
        yield made


testbed.__test__ = False  # type: ignore[attr-defined]  # nor is this
