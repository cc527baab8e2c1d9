"""Checks by way of the dataplane: who would not answer clients is down, whatever it says at its own address."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from l4lb.changes import apply_change
from l4lb.client import Client
from l4lb.lab.capture import capture, wrong_checksums
from l4lb.lab.daemon import L4LB
from l4lb.lab.faults import killed
from l4lb.lab.topology import GATEWAY_ADDRESS, Lab, Server
from l4lb.lab.traffic import going_on
from l4lb.model import Config, Endpoint
from l4lb.state import StateFile
from tests.lab.gateway import VIP, Gateway

SILENCE = "no answer within 90 ms"
TCP_CHECK, UDP_CHECK = "tcp", "udp:payload=PING,expect=b"

# address, mode, IP version of the backends
VIPS = {
    "dsr": (f"{VIP}:80/tcp", "dsr", 4),
    "dsr6": ("[fd01::100]:80/tcp", "dsr", 6),
    "ipip": ("10.1.0.101:80/tcp", "ipip", 4),
    "ipip64": ("[fd01::101]:80/tcp", "ipip", 4),
    "ipip66": ("[fd01::102]:80/tcp", "ipip", 6),
    "gue": ("10.1.0.103:80/tcp", "gue", 4),
    "gue46": ("10.1.0.102:80/tcp", "gue", 6),
    "gue66": ("[fd01::103]:80/tcp", "gue", 6),
    "udp": (f"{VIP}:53/udp", "dsr", 4),
    "udp64": ("[fd01::101]:53/udp", "gue", 4),
}
ALL = set(VIPS)
OF_IPV4 = {name for name, (address, *_) in VIPS.items() if not address.startswith("[")}
BY_TUNNELS = {name for name, (_, mode, _) in VIPS.items() if mode != "dsr"}
OVER_IPV4 = {name for name, (*_, version) in VIPS.items() if version == 4}
OF_UDP = {name for name, (address, *_) in VIPS.items() if address.endswith("udp")}
ADDRESSES = {4: [f"10.1.0.{number}/32" for number in range(100, 104)]}
ADDRESSES[6] = [f"fd01::{number}/128" for number in range(100, 104)]


class Site:
    """The gateway with all of these VIPs, each with every server."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self.lab = gateway, gateway.lab
        self.server = gateway.lab.servers[0]  # the one that fails
        self.client = Client(gateway.daemon.socket)

    def states(self) -> dict[tuple[str, str], tuple[str, str]]:
        """State and reason by VIP and server."""
        status: Any = self.client.call("status")
        names = {str(server.address_of(version)): server.name for server in self.lab.servers for version in (4, 6)}
        return {
            (vip["name"], names[backend["address"]]): (backend["state"], backend["reason"])
            for vip in status["vips"]
            for backend in vip["backends"]
        }

    def down(self) -> set[tuple[str, str]]:
        return {key for key, (state, _) in self.states().items() if state != "up"}

    def everyone_up(self) -> None:
        self.gateway.until(lambda: not self.down())


def configuration(lab: Lab) -> Config:
    """All VIPs at once, so that there is one program to compile."""
    config = Config()
    for name, (address, mode, version) in VIPS.items():
        place, protocol = address.split("/")
        judged = {"interval": 0.1, "timeout": 0.09, "rise": 2, "fall": 2}
        checks = [UDP_CHECK if name in OF_UDP else TCP_CHECK]
        vip = {"name": name, "address": place, "protocol": protocol, "mode": mode, "via": "dataplane", "checks": checks}
        config = apply_change(config, "vip.add", vip | judged)
        for server in lab.servers:
            backend = Endpoint(server.address_of(version), 53 if name in OF_UDP else 80)
            config = apply_change(config, "backend.add", {"vip": name, "address": str(backend)})
    return config


@pytest.fixture(scope="module")
def running(segment_lab: Lab, request: pytest.FixtureRequest) -> Iterator[Site]:
    """One daemon for all tests of the module."""
    from tests.lab.conftest import _gateway

    for server in segment_lab.servers:
        server.namespace.sysctl(
            net__ipv4__conf__all__arp_ignore=1,
            net__ipv4__conf__all__arp_announce=2,
            net__ipv4__ip_forward=0,
            net__ipv4__icmp_ratelimit=0,  # ten VIPs ask the same server
            net__ipv6__icmp__ratelimit=0,
        )
        own(server, "replace", 4, 6)
        decap(segment_lab, server, "--interface", "eth0")
    with _gateway(segment_lab, request) as gateway:
        StateFile(gateway.daemon.state).save(configuration(segment_lab))
        gateway.daemon.start()
        yield Site(gateway)


@pytest.fixture
def site(running: Site) -> Site:
    running.everyone_up()
    return running


def own(server: Server, verb: str, *versions: int) -> None:
    """Puts VIPs of IP versions on a server's loopback interface, or takes them away."""
    server.namespace.ip(*(f"address {verb} {vip} dev lo" for version in versions for vip in ADDRESSES[version]))


def decap(lab: Lab, server: Server, *words: str) -> None:
    server.namespace.run(L4LB, "decap", "--pins", str(lab.bpf / f"decap-{server.name}"), *words)


@contextmanager
def without_vips(_: Lab, server: Server) -> Iterator[None]:
    own(server, "delete", 4)
    yield
    own(server, "replace", 4)


@contextmanager
def without_ipv6_vips(_: Lab, server: Server) -> Iterator[None]:
    own(server, "delete", 6)
    yield
    own(server, "replace", 6)


@contextmanager
def forwarding_instead(lab: Lab, server: Server) -> Iterator[None]:
    """A server that is a router too: what is for the VIP goes back to the gateway, and by it to another server."""
    server.namespace.sysctl(net__ipv4__ip_forward=1)
    with without_vips(lab, server):
        yield
    server.namespace.sysctl(net__ipv4__ip_forward=0)


@contextmanager
def without_decap(lab: Lab, server: Server) -> Iterator[None]:
    decap(lab, server, "--remove")
    yield
    decap(lab, server, "--interface", "eth0")


@contextmanager
def without_echo(lab: Lab, server: Server) -> Iterator[None]:
    for pid in server.namespace.processes():
        if b"l4lb.lab.udp_echo" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    yield
    lab.start(server.namespace, sys.executable, "-m", "l4lb.lab.udp_echo", "53", server.name)


@contextmanager
def without_route(lab: Lab, server: Server) -> Iterator[None]:
    lab.gateway.ip(f"route add unreachable {server.address}/32")
    yield
    lab.gateway.ip(f"route delete unreachable {server.address}/32")


Fault = Callable[[Lab, Server], AbstractContextManager[None]]
NO_TUNNEL = "it takes no packets out of their outer header"
FAULTS: dict[str, tuple[Fault, set[str], str]] = {
    "no VIP": (without_vips, OF_IPV4, SILENCE),
    "no IPv6 VIP": (without_ipv6_vips, ALL - OF_IPV4, SILENCE),
    "a router": (forwarding_instead, OF_IPV4, "it sends on what is for the VIP (time exceeded)"),
    "no tunnel": (without_decap, BY_TUNNELS, NO_TUNNEL),
    "no service": (killed, ALL - OF_UDP, "connection refused"),
    "no UDP service": (without_echo, OF_UDP, "port unreachable"),
    "no route": (without_route, OVER_IPV4, "next hop unresolved: no route"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_backend_that_clients_would_not_reach_is_down(site: Site, fault: str) -> None:
    """Where it is so, for the reason that it has, and no longer; the others serve on."""
    fails, whose, reason = FAULTS[fault]
    wanted = {(name, "b1") for name in whose}
    with fails(site.lab, site.server):
        site.gateway.until(lambda: site.down() >= wanted)
        time.sleep(0.3)
        states = site.states()
        assert {key for key, (state, _) in states.items() if state != "up"} == wanted
        for key in wanted:
            assert reason in states[key][1], key
        served = {"b2", "b3"} if "dsr" in whose else {"b1", "b2", "b3"}
        assert set(site.gateway.http(60).answers) == served
    site.everyone_up()
    assert set(site.gateway.http(60).answers) == {"b1", "b2", "b3"}


def test_a_check_at_its_own_address_would_not_notice(site: Site) -> None:
    """What the way is good for."""
    site.client.call("vip.set", name="ipip", via="direct")
    try:
        with without_decap(site.lab, site.server):
            site.gateway.until(lambda: ("gue", "b1") in site.down())
            assert ("ipip", "b1") not in site.down()
    finally:
        site.client.call("vip.set", name="ipip", via="dataplane")


def test_probes_leave_nothing_behind_and_disturb_nobody(site: Site) -> None:
    before = site.gateway.daemon.status()["reasons"]
    with (
        capture(site.server.namespace, "eth0") as frames,
        going_on(site.lab.client, "http", str(VIP), 80, 300, seconds=1.5) as outcome,
    ):
        time.sleep(1.5)
        half_open = site.server.namespace.run("ss", "-Htan", "state", "syn-recv").stdout
    assert half_open == ""
    assert outcome.failures == []
    assert set(outcome.answers) == {"b1", "b2", "b3"}
    assert wrong_checksums(frames) == []
    segments = [found[TCP] for found in map(Ether, frames) if TCP in found]
    probes = [str(found.flags) for found in segments if found.underlayer.src == str(GATEWAY_ADDRESS)]
    assert probes.count("S") > 20
    assert probes.count("S") == pytest.approx(probes.count("R"), abs=2)
    assert set(probes) == {"S", "R"}
    reasons = site.gateway.daemon.status()["reasons"]
    assert {name for name, number in reasons.items() if name.startswith("drop_") and number > before[name]} == set()
    assert reasons["pass_not_vip"] > before["pass_not_vip"], "answers come by the program"


def test_a_new_mac_address_is_followed(site: Site) -> None:
    """As traffic follows it."""
    old = site.server.namespace.run("cat", "/sys/class/net/eth0/address").stdout.strip()
    site.server.namespace.sysctl(net__ipv4__conf__eth0__arp_notify=1)
    for mac in ("02:00:00:00:77:77", old):
        site.server.namespace.ip(f"link set eth0 address {mac}")
        time.sleep(0.5)
        site.gateway.until(lambda: not {key for key in site.down() if VIPS[key[0]][2] == 4})
        (shown,) = {
            backend["next_hop"]
            for vip in site.gateway.daemon.status()["vips"]
            for backend in vip["backends"]
            if backend["address"] == str(site.server.address)
        }
        assert mac in shown


def test_it_says_so(site: Site) -> None:
    (vip,) = [vip for vip in site.gateway.daemon.status()["vips"] if vip["name"] == "dsr"]
    assert vip["via"] == "dataplane"
    assert "by way of the dataplane" in site.gateway.daemon.cli("status").stdout
    words = ("backend", "show", "dsr", f"{site.server.address}:80")
    assert json.loads(site.gateway.daemon.cli(*words, "--json").stdout)["via"] == "dataplane"
    assert "to the VIP's address, by way of the dataplane" in site.gateway.daemon.cli(*words).stdout
