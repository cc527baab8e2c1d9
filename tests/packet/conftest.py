"""One namespace and one BPF file system for all packet tests, taken away when they end."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import netns

from tests.packet.harness import Harness
from tests.packet.world import CLIENT, CLIENT_MAC, FAR_CLIENT, GATEWAY_MAC, ROUTER, ROUTER_MAC, UNKNOWN_CLIENT


@pytest.fixture(scope="session")
def pins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A BPF file system of the tests' own."""
    folder = tmp_path_factory.mktemp("bpf")
    subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="session")
def namespace() -> Iterator[str]:
    """A network namespace that this process is in: its routes and neighbours answer the program's FIB look-ups."""
    name = f"l4lb-packet-{os.getpid()}"
    netns.create(name)
    try:
        netns.pushns(name)
        commands = f"""
            link set lo up
            link add wan type veth peer name far
            link set wan address {GATEWAY_MAC} up
            link set far up
            address add 10.1.0.1/24 dev wan
            neighbour add {CLIENT} lladdr {CLIENT_MAC} dev wan nud permanent
            neighbour add {ROUTER} lladdr {ROUTER_MAC} dev wan nud permanent
            route add {FAR_CLIENT}/32 via {ROUTER} dev wan
            route add {UNKNOWN_CLIENT}/32 dev wan
            route add blackhole 203.0.113.0/24
        """
        subprocess.run(["ip", "-batch", "-"], input=commands, text=True, check=True)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        yield name
    finally:
        netns.popns()
        netns.remove(name)


@pytest.fixture(scope="session")
def harness(pins: Path, namespace: str) -> Harness:
    """The program with all modes."""
    return Harness(pins)
