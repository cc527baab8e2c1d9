"""Real clients and servers through the real daemon and program."""

import json

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from l4lb.lab.capture import capture, wrong_checksums
from tests.lab.gateway import VIP, Gateway


def ip_packets(frames: list[bytes]) -> list[Packet]:
    """The IPv4 packets among frames."""
    return [packet for packet in map(Ether, frames) if IP in packet]


def test_nat(routed: Gateway) -> None:
    """TCP by nginx and curl, UDP by an echo: every backend serves, and no packet has a wrong checksum."""
    routed.daemon.start()
    routed.add_vip("web", f"{VIP}:80/tcp")
    routed.add_vip("dns", f"{VIP}:53/udp", port=5353)
    with (
        capture(routed.lab.client, "eth0") as at_client,
        capture(routed.lab.servers[0].namespace, "eth0") as at_server,
    ):
        assert routed.curl(f"http://{VIP}/").stdout.strip() in {"b1", "b2", "b3"}
        http, udp = routed.http(200), routed.udp(100)
    assert set(http.answers) == set(udp.answers) == {"b1", "b2", "b3"}
    assert (http.answers.total(), udp.answers.total()) == (200, 100)
    assert len(at_client) > 2000
    assert len(at_server) > 500
    assert wrong_checksums(at_client + at_server) == []
    served = [packet for packet in ip_packets(at_server) if packet[IP].dst == str(routed.lab.servers[0].address)]
    assert {packet[IP].src for packet in served} == {"10.1.0.2"}, "the server sees the client's own address"
    assert {packet[IP].ttl for packet in served} == {63}, "one router on the way"


def test_dsr(segment: Gateway) -> None:
    """The servers answer from the VIP, past the gateway."""
    segment.lab.own_vip(VIP)
    segment.daemon.start()
    segment.add_vip("web", f"{VIP}:80/tcp", "dsr", port=80)
    segment.add_vip("dns", f"{VIP}:53/udp", "dsr", port=53)
    with capture(segment.lab.client, "eth0") as frames:
        http, udp = segment.http(200), segment.udp(100)
    assert set(http.answers) == set(udp.answers) == {"b1", "b2", "b3"}
    assert (http.answers.total(), udp.answers.total()) == (200, 100)
    assert wrong_checksums(frames) == []
    answers = [packet for packet in ip_packets(frames) if packet[IP].src == str(VIP)]
    assert len(answers) > 300
    assert {packet[IP].ttl for packet in answers} == {64}, "no router on the way"
    status = segment.daemon.status()
    assert all(backend["packets"] > 0 for vip in status["vips"] for backend in vip["backends"])
    assert all(backend["packets_back"] == 0 for vip in status["vips"] for backend in vip["backends"])


def test_counters_add_up(routed: Gateway) -> None:
    """What the client's interface carried is what the counters say, packet for packet and byte for byte."""
    routed.daemon.start()
    routed.add_vip("web", f"{VIP}:80/tcp")
    with capture(routed.lab.client, "eth0") as frames:
        routed.http(50)
    seen = [packet for packet in ip_packets(frames) if TCP in packet]
    sent = [packet for packet in seen if packet[IP].dst == str(VIP)]
    got = [packet for packet in seen if packet[IP].src == str(VIP)]
    vip = routed.daemon.status()["vips"][0]
    assert (vip["packets"], vip["bytes"]) == (len(sent), sum(map(len, sent)))
    assert (vip["packets_back"], vip["bytes_back"]) == (len(got), sum(map(len, got)))
    assert vip["packets"] == sum(backend["packets"] for backend in vip["backends"])


def test_every_packet_is_counted(routed: Gateway) -> None:
    """All that the gateway's interfaces received is under a backend or under a reason."""
    routed.daemon.start()
    routed.add_vip("web", f"{VIP}:80/tcp")

    def received() -> int:
        values = [
            routed.lab.gateway.run("cat", f"/sys/class/net/{name}/statistics/rx_packets").stdout
            for name in ("wan", "lan")
        ]
        return sum(map(int, values))

    def counted() -> int:
        status = routed.daemon.status()
        return int(
            sum(status["reasons"].values()) + sum(vip["packets"] + vip["packets_back"] for vip in status["vips"])
        )

    before = received() - counted()
    routed.http(100)
    routed.lab.client.run("ping", "-c", "3", "-i", "0.05", str(VIP))
    routed.lab.client.run("ping", "-c", "3", "-i", "0.05", str(routed.lab.servers[0].address))
    assert received() - counted() == before


def test_the_host_stays_a_host(routed: Gateway) -> None:
    """Routing, ping and the VIP's other ports are the kernel's, as before."""
    routed.daemon.start()
    routed.add_vip("web", f"{VIP}:80/tcp")
    server = str(routed.lab.servers[0].address)
    assert routed.curl("--max-time", "1", f"http://{server}:8080/", check=False).returncode == 28, (
        "answers of nat backends become the VIP's"
    )
    routed.daemon.cli("backend", "remove", "web", f"{server}:8080")
    assert routed.curl(f"http://{server}:8080/").stdout == "b1\n"
    assert routed.lab.client.run("ping", "-c", "1", str(VIP)).returncode == 0
    assert routed.curl(f"http://{VIP}:81/", check=False).returncode == 7, "connection refused by the gateway itself"


@pytest.mark.parametrize("mode", ["generic", "native"])
def test_xdp_modes(routed: Gateway, mode: str) -> None:
    routed.daemon.start("--xdp-mode", mode)
    routed.add_vip("web", f"{VIP}:80/tcp")
    assert routed.http(30).answers.keys() == {"b1", "b2", "b3"}
    flag = {"generic": "xdpgeneric", "native": "xdp"}[mode]
    assert flag in routed.lab.gateway.run("ip", "link", "show", "wan").stdout.split()
    interfaces = routed.daemon.status()["interfaces"]
    assert [(interface["name"], interface["xdp_mode"]) for interface in interfaces] == [("wan", mode), ("lan", mode)]


def test_weights(routed: Gateway) -> None:
    """Shares follow weights; weight 0 gets nothing."""
    routed.daemon.start()
    routed.add_vip("web", f"{VIP}:80/tcp")
    addresses = [f"{server.address}:8080" for server in routed.lab.servers]
    routed.daemon.cli("backend", "set", "web", addresses[0], "--weight", "0")
    routed.daemon.cli("backend", "set", "web", addresses[1], "--weight", "3")
    answers = routed.http(400).answers
    assert answers.keys() == {"b2", "b3"}
    assert 0.65 < answers["b2"] / 400 < 0.85  # 3 of 4; five standard deviations are 0.11


def test_explain(routed: Gateway) -> None:
    """It names the backend that a connection from that port then gets."""
    routed.daemon.start()
    routed.add_vip("web", f"{VIP}:80/tcp")
    names = {f"{server.address}:8080": server.name for server in routed.lab.servers}
    seen = set()
    for port in range(20_000, 20_020):
        told = json.loads(routed.daemon.cli("explain", "tcp", f"10.1.0.2:{port}", f"{VIP}:80", "--json").stdout)
        assert (told["vip"], told["why"]) == ("web", "settled")
        assert routed.curl("--local-port", str(port), f"http://{VIP}/").stdout.strip() == names[told["backend"]]
        seen.add(told["backend"])
    assert len(seen) > 1
    refused = routed.daemon.cli("explain", "tcp", "10.1.0.2:4000", f"{VIP}:81", check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"no VIP listens on {VIP}:81/tcp" in refused.stderr
    assert "settled: all flows" in routed.daemon.cli("explain", "tcp", "10.1.0.2:4000", f"{VIP}:80").stdout
