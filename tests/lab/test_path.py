"""What the network on the way tells, and is told: path MTU, ping, traceroute."""

import re
from collections.abc import Iterator

import pytest

from l4lb.lab.daemon import Daemon
from l4lb.lab.servers import HTTP_PORT, UDP_PORT, start_servers
from l4lb.lab.topology import GATEWAY_ADDRESS, GATEWAY_ADDRESS6, Lab, Layout, lab
from l4lb.model import Endpoint
from tests.lab.gateway import VIPS, Gateway
from tests.lab.test_modes import SOME, carries

HOP_MTU, LAN_MTU = 1400, 1300
SIZES = {"nat": 100_000_000, "fullnat": SOME}  # bytes each way
GATEWAYS = {4: GATEWAY_ADDRESS, 6: GATEWAY_ADDRESS6}
HOPS = {4: "10.3.0.1", 6: "fd03::1"}


@pytest.fixture(scope="module")
def narrow() -> Iterator[Lab]:
    """A router before the client with a link of 1400 bytes."""
    with lab(Layout.ROUTED, hop_mtu=HOP_MTU) as made:
        start_servers(made, HTTP_PORT, UDP_PORT)
        yield made


@pytest.fixture
def gateway(narrow: Lab) -> Iterator[Gateway]:
    found = Gateway(Daemon(narrow))
    yield found
    found.clean()


def narrow_routes(narrow: Lab) -> None:
    """Towards the servers 1300 bytes fit, which only the gateway knows."""
    narrow.gateway.ip(
        f"route change 10.2.0.0/24 dev lan mtu lock {LAN_MTU}",
        f"route replace fd02::/64 dev lan proto kernel metric 256 mtu lock {LAN_MTU}",
    )
    narrow.client.run("ip", "route", "flush", "cache")
    narrow.client.run("ip", "-6", "route", "flush", "cache")


def add_vips(gateway: Gateway, mode: str = "nat", mss: dict[int, int] | None = None) -> None:
    """One of each family."""
    for version, vip in VIPS.items():
        options = ("--mss", str(mss[version])) if mss else ()
        gateway.add_vip(f"web{version}", f"{Endpoint(vip, 80)}/tcp", mode, version=version, options=options)


@pytest.mark.parametrize("mode", ["nat", "fullnat"])
def test_a_narrow_hop_before_the_client(gateway: Gateway, mode: str) -> None:
    """The router's messages about the VIP's packets reach the server that sent them, which then sends shorter ones."""
    gateway.daemon.start()
    add_vips(gateway, mode)
    for version in VIPS:
        carries(gateway, version, SIZES[mode])
    assert all(vip["packets_back"] > SIZES[mode] / HOP_MTU for vip in gateway.daemon.status()["vips"])


@pytest.mark.parametrize("mode", ["nat", "fullnat"])
def test_a_narrow_way_to_the_servers(gateway: Gateway, mode: str) -> None:
    """The client is told what fits, and sends shorter packets."""
    narrow_routes(gateway.lab)
    gateway.daemon.start()
    add_vips(gateway, mode)
    for version in VIPS:
        before = gateway.daemon.status()["reasons"]["answer_too_big"]
        carries(gateway, version, SIZES[mode])
        assert gateway.daemon.status()["reasons"]["answer_too_big"] > before


def test_a_clamped_mss_saves_the_messages(gateway: Gateway) -> None:
    narrow_routes(gateway.lab)
    gateway.daemon.start()
    add_vips(gateway, "nat", {4: LAN_MTU - 40, 6: LAN_MTU - 60})
    for version in VIPS:
        carries(gateway, version, SOME)
    assert gateway.daemon.status()["reasons"]["answer_too_big"] == 0


@pytest.mark.parametrize("echo", [True, False])
def test_ping(gateway: Gateway, echo: bool) -> None:
    """A VIP's address answers, by the program or by the kernel; and so does the gateway's own."""
    gateway.daemon.start(*([] if echo else ["--no-echo"]))
    add_vips(gateway)
    before = gateway.daemon.status()["reasons"]["answer_echo"]
    for address in (*VIPS.values(), *GATEWAYS.values()):
        gateway.lab.client.run("ping", "-c", "3", "-i", "0.05", "-s", "1000", str(address))
    assert gateway.daemon.status()["reasons"]["answer_echo"] - before == (6 if echo else 0)


def test_traceroute(gateway: Gateway) -> None:
    """By TCP, ICMP and UDP: the router on the way shows itself, and the VIP at the end."""
    gateway.daemon.start()
    add_vips(gateway)
    for version, vip in VIPS.items():
        for kind in (["-T", "-p", "80"], ["-I"], []):
            command = ["traceroute", f"-{version}", "-n", "-q", "1", "-w", "1", "-m", "6", *kind, str(vip)]
            shown = gateway.lab.client.run(*command).stdout
            hops = re.findall(r"^ *\d+ +(\S+) ", shown, re.MULTILINE)
            assert hops == [HOPS[version], str(vip)], shown
