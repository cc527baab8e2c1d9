"""A SYN flood on a VIP that is in use."""

import ctypes
import errno
import hashlib
import socket
import time
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from pyroute2 import netns

from l4lb.bench.frames import SYN, tcp_frame
from l4lb.client import Client
from l4lb.datapath import bpf
from l4lb.datapath.links import mac_bytes
from l4lb.lab.connections import connections
from l4lb.lab.flood import Flood
from l4lb.lab.topology import Lab
from l4lb.model import Endpoint
from tests.lab.gateway import VIP, Gateway

SYNS = 5_000_000
OTHERS = 0.02  # what the connections send meanwhile, at most, as a share
BURST = 100_000
CONNECTIONS = 500
LONGEST = 60  # seconds


def test_a_flood_leaves_no_trace(routed: Gateway) -> None:
    """Five million clients begin a connection and never go on; 500 that go on lose nothing by it."""
    routed.daemon.start()
    routed.add_vip("web", f"{VIP}:80/tcp")
    with connections(routed.lab.client, VIP, 80, CONNECTIONS, pause=0.3) as in_use:
        before, flows = records(routed), routed.daemon.status()["flows"]
        flood(routed)
        assert records(routed) == before
        assert routed.daemon.status()["flows"] == flows
        fates = in_use.report()
    assert [fate for fate in fates if fate.error] == []
    assert len(fates) == CONNECTIONS


def flood(gateway: Gateway) -> None:
    """SYNs from the client's interface, as fast as they go, until so many have got through."""
    with ExitStack() as stack:
        frame = tcp_frame(Endpoint(IPv4Address("10.64.0.0"), 1234), Endpoint(VIP, 80), SYN)
        made = Flood(gateway.lab.bpf / "flood", mac_address(gateway.lab) + frame[6:], stack)
        netns.pushns(gateway.lab.client.name)
        stack.callback(netns.popns)
        interface = socket.if_nametoindex("eth0")
        began, wanted = time.monotonic(), packets(gateway) + round(SYNS * (1 + OTHERS))
        while (left := wanted - packets(gateway)) > 0:
            assert time.monotonic() < began + LONGEST, f"{left} SYNs too few"
            made.out_of(interface, BURST)


def packets(gateway: Gateway) -> int:
    """How many the VIP got."""
    status: Any = Client(gateway.daemon.socket).call("status")
    count: int = status["vips"][0]["packets"]
    return count


def mac_address(made: Lab) -> bytes:
    """The gateway's, towards the client."""
    return mac_bytes(made.gateway.run("cat", "/sys/class/net/wan/address").stdout.strip())


def records(gateway: Gateway) -> dict[str, str]:
    """Digests of all that the program remembers of flows, connections and fragments."""
    (folder,) = gateway.daemon.pins.glob("maps_*")
    return {name: digest(folder / name) for name in ("flows", "connections", "fragments")}


def digest(pin: Path) -> str:
    with bpf.opened(pin) as fd:
        about = bpf.info(fd, bpf.MapInfo)
        keys = ctypes.create_string_buffer(about.key_size * about.max_entries)
        values = ctypes.create_string_buffer(about.value_size * about.max_entries)
        count, cursor = ctypes.c_uint32(about.max_entries), ctypes.c_uint32()
        libbpf = ctypes.CDLL("libbpf.so.1")
        result = libbpf.bpf_map_lookup_batch(fd, None, ctypes.byref(cursor), keys, values, ctypes.byref(count), None)
        assert result in (0, -errno.ENOENT), "the end was reached"
        assert count.value == about.max_entries
    return hashlib.sha256(values.raw).hexdigest()
