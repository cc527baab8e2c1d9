"""Every mode over both families with nginx, curl and a UDP echo: requests, megabytes each way, and right checksums."""

from collections.abc import Iterator

import pytest

from l4lb.lab.capture import capture, wrong_checksums
from l4lb.lab.daemon import L4LB
from l4lb.lab.topology import Lab
from l4lb.model import Endpoint
from tests.lab.gateway import VIPS, Gateway

SOME = 10_000_000

# IP version of the VIP, of the backends
SAME = [(4, 4), (6, 6)]
ANY = [(4, 4), (4, 6), (6, 4), (6, 6)]


@pytest.fixture(scope="module")
def decapsulating(segment_lab: Lab) -> Iterator[Lab]:
    """The servers own the VIPs and take off outer headers."""
    for vip in VIPS.values():
        segment_lab.own_vip(vip)
    for server in segment_lab.servers:
        pins = segment_lab.bpf / f"decap-{server.name}"
        server.namespace.run(L4LB, "decap", "--interface", "eth0", "--pins", str(pins))
    yield segment_lab
    for server in segment_lab.servers:
        server.namespace.run(L4LB, "decap", "--remove", "--pins", str(segment_lab.bpf / f"decap-{server.name}"))


def url(version: int, path: str = "") -> str:
    return f"http://{Endpoint(VIPS[version], 80)}/{path}"


def serves(gateway: Gateway, version: int) -> None:
    """All backends answer, over TCP and UDP, and no packet that reaches client or server has a wrong checksum."""
    servers = gateway.lab.servers
    with capture(gateway.lab.client, "eth0") as at_client, capture(servers[0].namespace, "eth0") as at_server:
        http, udp = gateway.http(100, version=version), gateway.udp(60, version=version)
    assert http.failures == udp.failures == []
    assert set(http.answers) == set(udp.answers) == {"b1", "b2", "b3"}
    assert len(at_client) > 600
    assert len(at_server) > 200
    assert wrong_checksums(at_client + at_server) == []


def carries(gateway: Gateway, version: int, size: int) -> None:
    """So many bytes down and up, through whatever the path takes."""
    down = gateway.curl(
        "--max-time", "60", "-r", f"0-{size - 1}", "-o", "/dev/null", "-w", "%{size_download}", url(version, "big")
    )
    assert int(down.stdout) == size
    sending = f"head -c {size} /dev/zero | curl -sS --max-time 60 -T - '{url(version, 'upload')}'"
    gateway.lab.client.run("sh", "-c", sending, timeout=90)
    (uploaded,) = gateway.lab.folder.glob("*/upload")
    assert uploaded.stat().st_size == size
    uploaded.unlink()


@pytest.mark.parametrize(("mode", "families"), [("dsr", SAME), ("fullnat", SAME), ("ipip", ANY), ("gue", ANY)])
def test_on_a_segment(decapsulating: Lab, segment: Gateway, mode: str, families: list[tuple[int, int]]) -> None:
    """The servers answer past the gateway, or by fullnat through it with no route to it."""
    segment.daemon.start()
    for version, outer in families:
        for family in ("-4", "-6"):
            segment.lab.client.run("ip", family, "route", "flush", "cache")  # what it learned of other paths
        before = segment.daemon.status()["reasons"]["answer_too_big"]
        works(segment, mode, version, outer, (80, 53))
        reasons = segment.daemon.status()["reasons"]
        if mode in ("ipip", "gue"):
            assert reasons["answer_too_big"] > before, "the client had to learn what fits"
        assert sum(number for name, number in reasons.items() if name.startswith("drop_")) == 0


@pytest.mark.parametrize("mode", ["nat", "fullnat"])
def test_routed(routed: Gateway, mode: str) -> None:
    routed.daemon.start()
    for version, outer in SAME:
        works(routed, mode, version, outer, (8080, 5353))


def works(gateway: Gateway, mode: str, version: int, outer: int, ports: tuple[int, int]) -> None:
    """A VIP of each protocol, with all servers behind it, at their ports; and takes it away again."""
    gateway.add_vip("web", f"{Endpoint(VIPS[version], 80)}/tcp", mode, ports[0], version=outer)
    gateway.add_vip("dns", f"{Endpoint(VIPS[version], 53)}/udp", mode, ports[1], version=outer)
    serves(gateway, version)
    carries(gateway, version, SOME)
    for name in ("web", "dns"):
        gateway.daemon.cli("vip", "remove", name)
