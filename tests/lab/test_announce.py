"""Whether hosts on the VIP's segment find it by ARP."""

import signal

from tests.lab.gateway import VIP, Gateway


def arp_answers(gateway: Gateway) -> bool:
    """Whether anybody answers the client's ARP requests for the VIP."""
    gateway.lab.client.ip("neighbour flush dev eth0")
    gateway.lab.client.run("ping", "-c", "1", "-W", "1", str(VIP), check=False)
    found = gateway.lab.client.run("ip", "neighbour", "show", str(VIP)).stdout
    return "lladdr" in found


def addresses(gateway: Gateway) -> str:
    """The gateway's IPv4 addresses, as `ip` prints them."""
    return gateway.lab.gateway.run("ip", "-brief", "-4", "address").stdout


def test_announced(routed: Gateway) -> None:
    """The gateway answers ARP for a VIP as long as it is configured, also while the daemon is down."""
    routed.daemon.start()
    assert not arp_answers(routed)
    routed.add_vip("web", f"{VIP}:80/tcp", servers=range(1))
    routed.daemon.cli("vip", "add", "dns", f"{VIP}:53/udp")
    assert arp_answers(routed)
    routed.daemon.end(signal.SIGKILL)
    assert arp_answers(routed)
    routed.daemon.start()
    routed.daemon.cli("vip", "remove", "dns")
    assert arp_answers(routed), "the other VIP has the same address"
    routed.daemon.cli("vip", "remove", "web")
    assert not arp_answers(routed)
    assert str(VIP) not in addresses(routed)


def test_announced_gratuitously(routed: Gateway) -> None:
    """A host that had the address with another MAC is told the new one without asking."""
    routed.lab.client.ip(f"neighbour replace {VIP} lladdr 02:00:00:00:99:99 dev eth0 nud stale")
    routed.daemon.start()
    routed.add_vip("web", f"{VIP}:80/tcp", servers=range(1))
    routed.until(lambda: "99:99" not in routed.lab.client.run("ip", "neighbour", "show", str(VIP)).stdout)


def test_not_announced(routed: Gateway) -> None:
    """With --no-announce the address is nobody's; packets that are routed to the gateway are forwarded all the same."""
    routed.daemon.start("--no-announce")
    routed.add_vip("web", f"{VIP}:80/tcp")
    assert str(VIP) not in addresses(routed)
    assert not arp_answers(routed)
    routed.lab.client.ip(f"route add {VIP}/32 via 10.1.0.1")
    try:
        outcome = routed.http(30)
    finally:
        routed.lab.client.ip(f"route delete {VIP}/32")
    assert (outcome.answers.total(), outcome.failures) == (30, [])


def test_an_address_that_was_there_is_left_alone(routed: Gateway) -> None:
    routed.lab.gateway.ip(f"address add {VIP}/32 dev wan")
    try:
        routed.daemon.start()
        routed.daemon.cli("vip", "add", "web", f"{VIP}:80/tcp")
        routed.daemon.cli("vip", "remove", "web")
        assert str(VIP) in addresses(routed)
    finally:
        routed.lab.gateway.ip(f"address delete {VIP}/32 dev wan")
