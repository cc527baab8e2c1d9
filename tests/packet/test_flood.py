"""A million SYNs from a million clients, per mode and family, leave no trace."""

import secrets
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address

import pytest

from l4lb.bench.frames import SYN, tcp_frame
from l4lb.bench.scenarios import PORT, Row, Scenario
from l4lb.datapath import bpf
from l4lb.lab.flood import Flood
from l4lb.lab.testbed import Testbed
from l4lb.model import Config, Endpoint, Mode
from tests.packet.harness import LIMITS, SEED

FLOOD = 1_000_000


def records(bed: Testbed) -> list[bytes]:
    """All that the program remembers of flows, connections and fragments."""
    found = []
    for name, size, count in (
        ("flows", 64, LIMITS.flow_lines),
        ("fragments", 64, LIMITS.fragment_lines),
        ("connections", 32, LIMITS.max_connections),
    ):
        with bpf.opened(bed.pins / "maps" / name) as fd:
            found += [bpf.map_lookup(fd, number, size) for number in range(count)]
    return found


@pytest.fixture
def lb(bed: Testbed) -> Testbed:
    """No VIP, and nothing remembered."""
    bed.configure(Config((), SEED), {})
    return bed


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mode", [Mode.NAT, Mode.DSR, Mode.IPIP, Mode.GUE])
def test_settled_vips_remember_nobody(lb: Testbed, mode: Mode, version: int) -> None:
    """Whatever schedulers else are compiled in."""
    scenario = Scenario("flood", mode, version, (), backends=20)
    scenario.configure(lb)
    before, events, packets = records(lb), lb.maps.events(), forwarded(lb)
    assert flood(lb, scenario, FLOOD) == scenario.verdict(Row("new", FLOOD))
    assert forwarded(lb) - packets == FLOOD
    assert records(lb) == before
    assert lb.maps.events() == events


def test_unsettled_slots_do(lb: Testbed) -> None:
    """So the test above could see it."""
    scenario = Scenario("flood", Mode.DSR, 4, (), backends=20)
    scenario.configure(lb, turn=0)
    flood(lb, scenario, 100)
    scenario.configure(lb, turn=1)
    before, events = records(lb), lb.maps.events()
    flood(lb, scenario, 10_000)
    assert records(lb) != before
    assert lb.maps.events()["flow_recorded"] - events["flow_recorded"] > 9_000


def flood(bed: Testbed, scenario: Scenario, count: int) -> int:
    """What the last of so many SYNs met."""
    first = {4: IPv4Address("10.64.0.0"), 6: IPv6Address("fd64::")}[scenario.version]
    frame = tcp_frame(Endpoint(first, 1234), Endpoint(scenario.addresses[0], PORT), SYN)
    with ExitStack() as stack:
        made = Flood(bed.pins / f"flood{secrets.token_hex(3)}", frame, stack)
        return made.into(bed.program, count).verdict


def forwarded(bed: Testbed) -> int:
    return sum(bed.maps.traffic(number).packets for number in bed.image.backends)
