"""What is written into the maps can be read back, and is laid out as the compiler does it."""

import json
import subprocess
import sys
from ipaddress import IPv4Address

import pytest

from l4lb.datapath import abi, bpf
from l4lb.datapath.layout import FEATURES, balancer_source
from l4lb.datapath.maps import Maps
from l4lb.errors import L4lbError
from l4lb.lab.testbed import Testbed
from l4lb.model import Backend, Config, Endpoint, Mode, Protocol, Service, Vip
from l4lb.plan.limits import Limits
from l4lb.plan.planner import make_plan
from tests.packet import derived_layout
from tests.packet.harness import LIMITS


def config(vips: int, backends: int, mode: Mode = Mode.NAT) -> Config:
    return Config(
        vips=tuple(
            Vip(
                f"vip-{number}",
                Service(IPv4Address("192.0.2.0") + number, 80, 80, Protocol.TCP),
                mode,
                backends=tuple(Backend(Endpoint(IPv4Address("10.2.0.1") + n, 8000 + number)) for n in range(backends)),
            )
            for number in range(vips)
        )
    )


def test_a_restart_finds_what_was_written(bed: Testbed) -> None:
    """The maps read back are the image that the plan promised, and no operation is left to do."""
    bed.configure(config(20, 5), {})
    found = bed.maps.read_image()
    assert found.vips == bed.image.vips
    assert found.backends == bed.image.backends
    assert found.index == bed.image.index
    assert found.filter == bed.image.filter
    assert make_plan(config(20, 5), found, LIMITS, bed.maps.read_contents, 0).operations == ()


@pytest.mark.parametrize("change", [config(20, 4), config(19, 5), config(20, 5, Mode.DSR), config(0, 0)])
def test_a_change_leaves_nothing_behind(bed: Testbed, change: Config) -> None:
    bed.configure(config(20, 5), {})
    bed.configure(change, {})
    found = bed.maps.read_image()
    assert (len(found.vips), len(found.backends)) == (len(change.vips), sum(len(vip.backends) for vip in change.vips))


def test_counters_of_a_reused_number_start_at_nothing(bed: Testbed) -> None:
    bed.configure(config(1, 1), {})
    number = next(iter(bed.image.backends))
    size = 32 * bpf.possible_cpus()
    with bpf.opened(bed.pins / "maps" / "traffic") as fd:
        bpf.map_update(fd, number, b"\1" * size)
    bed.configure(config(0, 0), {})
    bed.configure(config(1, 1), {})
    assert bed.maps.traffic(next(iter(bed.image.backends))).packets == 0


def test_maps_of_another_size_are_refused(bed: Testbed) -> None:
    """Bcc would take whatever is pinned there."""
    with pytest.raises(L4lbError, match="vips holds 64 values of 64 bytes instead of 128 of 64"):
        Maps(bed.pins / "maps", Limits(**{**{f: getattr(LIMITS, f) for f in Limits.__slots__}, "max_vips": 128}))


VALUES = {
    "service_index": "index_line",
    "vips": "vip",
    "addresses": "address",
    "port_ranges": "range_line",
    "pools": "pool",
    "connections": "connection",
    "backends": "backend",
    "ports": "port",
    "control": "control",
    "traffic": "traffic",
    "routes": "route",
}


def test_the_layout_is_the_compilers(bed: Testbed) -> None:
    """What is read from abi.h is what the compiler made of it."""
    maps = bed.pins / "layout"
    maps.mkdir()
    source = balancer_source(FEATURES, 0, maps, LIMITS)
    job = {"text": source.text, "switches": {**source.switches, "STAGES": f'"{maps}/stages"'}, "tables": list(VALUES)}
    answer = subprocess.run(
        [sys.executable, derived_layout.__file__], input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=True
    )
    structs = abi.load().structs
    assert json.loads(answer.stdout) == {table: derived_layout.scalars(structs[name]) for table, name in VALUES.items()}
