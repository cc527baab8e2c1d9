"""`l4lb decap` on a backend host: what the host makes of the packets, and every verb of the command."""

import fcntl
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import netns
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from l4lb.lab.daemon import L4LB
from l4lb.lab.namespace import Namespace, connect
from l4lb.lab.wakeful import keep_awake

VIPS = {4: "192.0.2.10", 6: "2001:db8::10"}
CLIENTS = {4: "198.51.100.7", 6: "2001:db8:c::7"}
HOSTS = {4: "10.9.0.11", 6: "fd09::11"}
BALANCERS = {4: "10.9.0.1", 6: "fd09::1"}
ROUTERS = {4: "10.9.0.254", 6: "fd09::254"}
OTHER_VIP = "192.0.2.20"
HOST_MAC, FAR_MAC = "02:00:00:00:09:11", "02:00:00:00:09:01"
PORT, CLIENT_PORT = 80, 4000
GUE_PORT = 6080


@contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """Sockets made in the with block are in a namespace."""
    netns.pushns(namespace.name)
    try:
        yield
    finally:
        netns.popns()


class Site:
    """A backend host with the VIPs on its loopback interface, and the far end of its wire."""

    def __init__(self, host: Namespace, far: Namespace, bpf: Path) -> None:
        self.host, self.far, self.bpf = host, far, bpf
        self.pins = bpf / "decap"
        with inside(far):
            self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
            self.wire.bind(("far", 0))
            self.wire.settimeout(0.2)
        with inside(host):
            self.server = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True)
            self.server.settimeout(5)

    def close(self) -> None:
        self.wire.close()
        self.server.close()

    def decap(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return self.host.run(L4LB, "decap", "--pins", str(self.pins), *words, check=check)

    def status(self) -> Any:
        return json.loads(self.decap("--status", "--json").stdout)

    def counts(self) -> dict[str, int]:
        """The reasons for which there were packets; what hosts send by themselves is left out."""
        reasons = self.status()["reasons"].items()
        return {name: count for name, count in reasons if count and name != "pass_not_tunnel"}

    def send(self, packet: Packet) -> None:
        self.wire.send(bytes(Ether(src=FAR_MAC, dst=HOST_MAC) / packet))

    def answer(self, wanted: Callable[[Packet], bool], seconds: float = 2) -> Packet | None:
        """The first such frame that comes from the host; None if none does."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                found = Ether(self.wire.recv(65_535))
            except TimeoutError:
                continue
            if found.src == HOST_MAC and TCP in found and wanted(found):
                return found
        return None

    def answers_syn(self, kind: "Kind", port: int, seconds: float = 2) -> Packet | None:
        """Sends a SYN as a balancer would; what the host says to the client."""
        self.send(kind.around(kind.segment(port, flags="S", seq=1000)))
        return self.answer(lambda found: found[TCP].dport == port and found[TCP].flags == "SA", seconds)


@dataclass(frozen=True)
class Kind:
    """A kind of tunnel; `tunnel` is the UDP port, 0 without GUE."""

    inner: int
    outer: int
    tunnel: int = 0
    vip: str = ""

    @property
    def reason(self) -> str:
        return f"decap_ipv{self.inner}_in_{'gue_' if self.tunnel else ''}ipv{self.outer}"

    def segment(self, port: int, **fields: Any) -> Packet:
        layer = IP if self.inner == 4 else IPv6
        ip = layer(src=CLIENTS[self.inner], dst=self.vip or VIPS[self.inner])
        return ip / TCP(sport=port, dport=PORT, **fields)

    def around(self, inner: Packet) -> Packet:
        ip = (IP if self.outer == 4 else IPv6)(src=BALANCERS[self.outer], dst=HOSTS[self.outer])
        return ip / UDP(sport=55555, dport=self.tunnel) / Raw(bytes(inner)) if self.tunnel else ip / inner


KINDS = [Kind(inner, outer, tunnel) for tunnel in (0, GUE_PORT) for outer in (4, 6) for inner in (4, 6)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Addresses of a lab's hosts; the host accepts packets only by the interface that leads back to their sender."""
    name = f"l4lb-decap-{secrets.token_hex(3)}"
    host, far = Namespace(name), Namespace(f"{name}-far")
    bpf = tmp_path_factory.mktemp("bpf")
    subprocess.run(["mount", "-t", "bpf", "bpf", bpf], check=True)
    try:
        for namespace in (host, far):
            namespace.create()
        connect(host, "eth0", far, "far")
        keep_awake(far, "far", bpf / "far")
        far.ip(f"link set far address {FAR_MAC}")
        host.sysctl(net__ipv6__conf__eth0__disable_ipv6=0, net__ipv6__conf__eth0__accept_dad=0)
        host.sysctl(net__ipv4__conf__all__rp_filter=1, net__ipv4__conf__eth0__rp_filter=1)
        host.ip(
            f"link set eth0 address {HOST_MAC}",
            f"address add {HOSTS[4]}/24 dev eth0",
            f"address add {HOSTS[6]}/64 dev eth0 nodad",
            *(f"neighbour add {router} lladdr {FAR_MAC} dev eth0 nud permanent" for router in ROUTERS.values()),
            *(f"route add default via {router}" for router in ROUTERS.values()),
            f"address add {VIPS[4]}/32 dev lo",
            f"address add {VIPS[6]}/128 dev lo nodad",
        )
        site = Site(host, far, bpf)
        yield site
        site.close()
    finally:
        host.delete()
        far.delete()
        subprocess.run(["umount", "--lazy", bpf], check=True)


@pytest.fixture
def site(made: Site) -> Iterator[Site]:
    yield made
    made.decap("--remove")


def xdp(site: Site) -> str:
    """What kind of program is on the host's interface."""
    (link,) = json.loads(site.host.run("ip", "-json", "link", "show", "eth0").stdout)
    return {None: "none", 1: "native", 2: "generic"}[link.get("xdp", {}).get("mode")]


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_the_host_accepts_what_comes_out(site: Site, mode: str) -> None:
    """A whole connection through each kind of tunnel: handshake, data, end; the answer is the VIP's own."""
    assert site.answers_syn(KINDS[0], CLIENT_PORT, seconds=0.5) is None, "the host has no tunnel device"
    site.decap("--interface", "eth0", "--xdp-mode", mode)
    assert xdp(site) == mode
    for number, kind in enumerate(KINDS):
        port = CLIENT_PORT + number
        reply = site.answers_syn(kind, port)
        assert reply is not None, kind
        assert (reply[1].src, reply[1].dst) == (VIPS[kind.inner], CLIENTS[kind.inner])
        assert reply[TCP].ack == 1001
        fields = {"seq": 1001, "ack": reply[TCP].seq + 1}
        site.send(kind.around(kind.segment(port, flags="PA", **fields) / Raw(b"through the tunnel")))
        connection, _ = site.server.accept()
        with connection:
            connection.settimeout(5)
            assert connection.recv(100) == b"through the tunnel"
        site.send(kind.around(kind.segment(port, flags="R", seq=1019)))
    assert site.counts() == dict.fromkeys((kind.reason for kind in KINDS), 3)


def test_running_it_again_replaces_everything_at_once(site: Site) -> None:
    site.decap("--interface", "eth0")
    assert site.answers_syn(KINDS[0], 5100) is not None
    assert site.status()["interfaces"] == [
        {"name": "eth0", "xdp_mode": "native", "gue_port": GUE_PORT, "vips": [VIPS[4], VIPS[6]]}
    ]
    site.decap("--interface", "eth0", "--vip", OTHER_VIP, "--vip", f"[{VIPS[6]}]", "--gue-port", "7000")
    status = site.status()
    assert status["interfaces"] == [
        {"name": "eth0", "xdp_mode": "native", "gue_port": 7000, "vips": [OTHER_VIP, VIPS[6]]}
    ]
    assert status["missing_addresses"] == [OTHER_VIP]
    assert f"{OTHER_VIP} is no address of this host" in site.decap("--status").stdout
    assert site.answers_syn(KINDS[0], 5101, seconds=0.5) is None, "no VIP any more"
    assert site.answers_syn(Kind(6, 6, GUE_PORT), 5102, seconds=0.5) is None, "the port is another now"
    assert site.answers_syn(Kind(6, 6, 7000), 5103) is not None
    # Counters go on; nothing of the first setup is left.
    assert site.counts() == {KINDS[0].reason: 1, "decap_ipv6_in_gue_ipv6": 1, "pass_not_vip": 1}
    assert len(list(site.pins.glob("program_*"))) == len(list(site.pins.glob("decap_*/vips_*"))) == 1
    site.decap("--interface", "eth0", "--xdp-mode", "generic")
    assert xdp(site) == "generic"
    assert site.answers_syn(KINDS[0], 5104) is not None


def test_no_packet_is_lost_when_it_is_replaced(site: Site) -> None:
    """SYNs all the while, each to a VIP of either setup."""
    site.decap("--interface", "eth0")
    process = site.host.start(
        sys.executable,
        "-c",
        f"import subprocess\nfor number in range(6):\n subprocess.run([{L4LB!r}, 'decap', '--pins', {str(site.pins)!r},"
        f" '--interface', 'eth0', '--vip', {VIPS[4]!r}, '--gue-port', str(6081 + number % 2)], check=True)",
    )
    port = 10_000
    try:
        while process.poll() is None:
            assert site.answers_syn(KINDS[0], port, seconds=0.9) is not None  # sooner than a SYN-ACK is sent again
            port += 1
    finally:
        process.wait(60)
    assert process.returncode == 0
    assert site.counts() == {KINDS[0].reason: port - 10_000}
    assert port > 10_050, "the test has sent enough to notice"


def test_removed(site: Site) -> None:
    site.decap("--interface", "eth0")
    assert xdp(site) == "native"
    done = site.decap("--remove")
    assert (done.stdout, done.stderr) == ("", ""), "a script has the exit status"
    assert xdp(site) == "none"
    assert not site.pins.exists()
    assert site.answers_syn(KINDS[0], 5200, seconds=0.5) is None
    site.decap("--remove")  # once more changes nothing


def test_status_for_people(site: Site) -> None:
    site.decap("--interface", "eth0")
    head = f"eth0 (native): {VIPS[4]}, {VIPS[6]}; GUE by UDP port {GUE_PORT}"
    assert site.decap("--status").stdout.splitlines()[0] == head
    for port in (5300, 5301):
        assert site.answers_syn(KINDS[0], port) is not None
    assert ["decap_ipv4_in_ipv4", "2"] in [line.split() for line in site.decap("--status").stdout.splitlines()]


def test_an_interface_that_is_gone_is_forgotten(site: Site) -> None:
    site.host.ip("link add extra up type veth peer name extra-far", "link set extra-far up")
    site.decap("--interface", "eth0", "--interface", "extra")
    assert [interface["name"] for interface in site.status()["interfaces"]] == ["eth0", "extra"]
    site.host.ip("link delete extra")
    assert [interface["name"] for interface in site.status()["interfaces"]] == ["eth0"]
    site.decap("--interface", "eth0")
    assert len(list(site.pins.glob("link_*"))) == 1


def refused(site: Site, says: str, *words: str) -> None:
    done = site.decap(*words, check=False)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_refusals_change_nothing(site: Site) -> None:
    refused(site, "no decapsulation is at work", "--status")
    site.decap("--interface", "eth0", "--gue-port", "7000")
    before = site.status()["interfaces"]
    site.host.ip("link add bridge up type bridge", "link add idle type veth peer name idle-far")
    try:
        for says, *interfaces in (
            ("there is no interface 'eht0': there are", "eht0"),
            ("lo is no Ethernet interface", "lo"),
            ("interface idle is down: bring it up with", "idle"),
            ("bridge has no native XDP: use another interface, or accept the slower --xdp-mode generic", "bridge"),
            ("bridge has no native XDP", "eth0", "bridge"),
        ):
            refused(site, says, *(word for name in interfaces for word in ("--interface", name)))
            assert site.status()["interfaces"] == before
    finally:
        site.host.ip("link delete bridge", "link delete idle")
    for vip in VIPS.values():
        site.host.ip(f"address delete {vip} dev lo")
    try:
        refused(site, "no VIP is on the loopback interface: put it there with", "--interface", "eth0")
        assert site.status()["interfaces"] == before
    finally:
        site.host.ip(f"address add {VIPS[4]}/32 dev lo", f"address add {VIPS[6]}/128 dev lo nodad")


def test_folders_of_others(site: Site) -> None:
    """A balancer's, one of no BPF file system, and the usual one where it would vanish with the command."""
    balancer = site.bpf / "balancer"
    (balancer / "maps_1234").mkdir(parents=True)
    eth0 = ("--interface", "eth0")
    refused(site, "is the folder of an `l4lb run`", *eth0, "--pins", str(balancer))
    refused(site, "is the folder of an `l4lb run`", "--remove", "--pins", str(balancer))
    assert (balancer / "maps_1234").exists()
    refused(site, "BPF file system", *eth0, "--pins", "/tmp/l4lb-decap-of-a-test")
    refused(site, "nsenter --net", *eth0, "--pins", "/sys/fs/bpf/l4lb-decap")
    assert xdp(site) == "none"


def test_two_at_a_time(site: Site) -> None:
    """The second waits for nobody and says so."""
    site.decap("--interface", "eth0")
    folder = os.open(site.pins, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        refused(site, "another `l4lb decap` works on", "--interface", "eth0")
    finally:
        os.close(folder)
    assert xdp(site) == "native"
