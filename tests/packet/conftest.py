"""One testbed for all packet tests."""

import subprocess
from collections.abc import Iterator

import pytest

from l4lb.datapath.layout import FEATURES
from l4lb.lab.testbed import Testbed, testbed
from tests.packet import world as w
from tests.packet.harness import LIMITS, SEED


@pytest.fixture(scope="session")
def bed() -> Iterator[Testbed]:
    """The program with everything in it, and routes to the clients of :mod:`tests.packet.world`."""
    with testbed(frozenset(FEATURES), SEED, LIMITS) as made:
        commands = f"""
            neighbour add {w.ROUTER} lladdr {w.ROUTER_MAC} dev wan nud permanent
            route add {w.FAR_CLIENT}/32 via {w.ROUTER} dev wan
            route add {w.UNKNOWN_CLIENT}/32 dev wan
            route add blackhole {w.UNREACHABLE_CLIENT}/32
        """
        subprocess.run(["ip", "-batch", "-"], input=commands, text=True, check=True)
        yield made
