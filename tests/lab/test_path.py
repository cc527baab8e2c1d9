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
BIG = 100_000_000
GATEWAYS = {4: GATEWAY_ADDRESS, 6: GATEWAY_ADDRESS6}
HOPS = {4: "10.3.0.1", 6: "fd03::1"}
versions = pytest.mark.parametrize("version", [4, 6])


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


@versions
@pytest.mark.parametrize("mode", ["nat", "fullnat"])
def test_a_narrow_hop_before_the_client(gateway: Gateway, mode: str, version: int) -> None:
    """The router's messages about the VIP's packets reach the server that sent them, which then sends shorter ones."""
    gateway.daemon.start()
    gateway.add_vip("web", f"{Endpoint(VIPS[version], 80)}/tcp", mode, version=version)
    carries(gateway, version, BIG)
    vip = gateway.daemon.status()["vips"][0]
    assert vip["packets_back"] > BIG / HOP_MTU


@versions
@pytest.mark.parametrize("mode", ["nat", "fullnat"])
def test_a_narrow_way_to_the_servers(gateway: Gateway, mode: str, version: int) -> None:
    """The client is told what fits, and sends shorter packets."""
    narrow_routes(gateway.lab)
    gateway.daemon.start()
    gateway.add_vip("web", f"{Endpoint(VIPS[version], 80)}/tcp", mode, version=version)
    carries(gateway, version, BIG)
    assert gateway.daemon.status()["reasons"]["answer_too_big"] > 0


@versions
def test_a_clamped_mss_saves_the_messages(gateway: Gateway, version: int) -> None:
    narrow_routes(gateway.lab)
    gateway.daemon.start()
    mss = str(LAN_MTU - (40 if version == 4 else 60))
    web = f"{Endpoint(VIPS[version], 80)}/tcp"
    gateway.add_vip("web", web, "nat", version=version, options=("--mss", mss))
    carries(gateway, version, SOME)
    assert gateway.daemon.status()["reasons"]["answer_too_big"] == 0


@versions
@pytest.mark.parametrize("echo", [True, False])
def test_ping(gateway: Gateway, version: int, echo: bool) -> None:
    """A VIP's address answers, by the program or by the kernel; and so does the gateway's own."""
    gateway.daemon.start(*([] if echo else ["--no-echo"]))
    gateway.add_vip("web", f"{Endpoint(VIPS[version], 80)}/tcp", version=version)
    before = gateway.daemon.status()["reasons"]["answer_echo"]
    for address in (VIPS[version], GATEWAYS[version]):
        gateway.lab.client.run("ping", "-c", "3", "-i", "0.05", "-s", "1000", str(address))
    assert gateway.daemon.status()["reasons"]["answer_echo"] - before == (3 if echo else 0)


@versions
@pytest.mark.parametrize("kind", [["-T", "-p", "80"], ["-I"], []], ids=["TCP", "ICMP", "UDP"])
def test_traceroute(gateway: Gateway, version: int, kind: list[str]) -> None:
    """The router on the way shows itself, and the VIP at the end."""
    gateway.daemon.start()
    gateway.add_vip("web", f"{Endpoint(VIPS[version], 80)}/tcp", version=version)
    command = ["traceroute", f"-{version}", "-n", "-q", "1", "-w", "1", "-m", "6", *kind, str(VIPS[version])]
    shown = gateway.lab.client.run(*command).stdout
    hops = re.findall(r"^ *\d+ +(\S+) ", shown, re.MULTILINE)
    assert hops == [HOPS[version], str(VIPS[version])], shown
