"""The network around the fuzzed program: what its namespace is told, and the same as the reference asks for it."""

import subprocess
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

from l4lb.datapath.links import mac_bytes
from l4lb.lab.testbed import CLIENT, CLIENT6, CLIENT_MAC, Testbed
from l4lb.model import IPAddress
from tests.reference import Hop

ROUTER_MAC = "02:00:00:00:00:03"
SIDE = "fuzz-side"  # an interface that is none of the balancer's

_ROUTES = f"""
    neighbour replace 10.1.0.254 lladdr {ROUTER_MAC} dev wan nud permanent
    neighbour replace fd01::254 lladdr {ROUTER_MAC} dev wan nud permanent
    route replace 198.51.100.7/32 via 10.1.0.254 dev wan
    route replace 198.51.100.8/32 via 10.1.0.254 dev wan mtu lock 1400
    route replace 10.1.5.5/32 dev wan
    route replace blackhole 203.0.113.9/32
    route replace unreachable 203.0.113.10/32
    route replace prohibit 203.0.113.11/32
    -6 route replace fd05::7/128 via fd01::254 dev wan
    -6 route replace fd05::8/128 via fd01::254 dev wan mtu lock 1400
    -6 route replace fd01:5::5/128 dev wan
    -6 route replace blackhole fd05::9/128
    address replace 10.3.0.1/24 dev {SIDE}
    address replace fd03::1/64 dev {SIDE} nodad
    neighbour replace 10.3.0.2 lladdr {ROUTER_MAC} dev {SIDE} nud permanent
    neighbour replace fd03::2 lladdr {ROUTER_MAC} dev {SIDE} nud permanent
"""

# Most packets are about clients that can be reached, the first ones of each family.
CLIENTS: dict[int, tuple[IPAddress, ...]] = {
    version: tuple(map(ip_address, texts.split()))
    for version, texts in {
        4: f"""{CLIENT} 198.51.100.7 198.51.100.8 10.1.5.5 203.0.113.9 203.0.113.10 203.0.113.11 10.3.0.2 10.1.0.1
            10.1.0.77 127.0.0.1 224.0.0.1 0.0.0.0 100.64.0.1""",
        6: f"""{CLIENT6} fd05::7 fd05::8 fd01:5::5 fd05::9 fd03::2 fd01::1 fd01::77 ff02::1 :: ::1 2001:db8:77::1""",
    }.items()
}
_ON_LINK = (IPv4Network("10.1.0.0/24"), IPv6Network("fd01::/64"), IPv6Network("fe80::/64"))
_SIDE_LINK = (IPv4Network("10.3.0.0/24"), IPv6Network("fd03::/64"))
_OWN = frozenset(
    map(ip_address, ("10.1.0.1", "10.1.0.255", "fd01::1", "fd01::", "10.3.0.1", "10.3.0.255", "fd03::1", "fd03::"))
)


def prepare(bed: Testbed) -> None:
    """Makes interfaces, routes and neighbours in the testbed's namespace, which the calling thread is in."""
    if not Path("/sys/class/net", SIDE).exists() and SIDE not in _interfaces():
        _ip(f"link add {SIDE} type veth peer name {SIDE}-far\nlink set {SIDE} up\nlink set {SIDE}-far up")
    _ip(_ROUTES)
    bed.maps.forget_routes()


def set_forwarding(on: bool) -> None:
    """The kernel's, of both families, in the namespace that the calling thread is in."""
    for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        Path("/proc/sys/net", setting).write_text(str(int(on)))


def _interfaces() -> str:
    return subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout


def _ip(commands: str) -> None:
    for line in filter(None, map(str.strip, commands.splitlines())):
        subprocess.run(["ip", *line.split()], check=True)


class Routes:
    """The routing table as the reference asks for it; `wan` is the index of the interface towards clients."""

    def __init__(self, wan: int) -> None:
        client, router = Hop(wan, mac_bytes(CLIENT_MAC)), Hop(wan, mac_bytes(ROUTER_MAC))
        side = Hop(-1, mac_bytes(ROUTER_MAC))  # by an interface that is no port
        known: dict[str, Hop | str] = {
            CLIENT: client,
            CLIENT6: client,
            "10.1.0.254": router,
            "fd01::254": router,
            "198.51.100.7": router,
            "198.51.100.8": router._replace(mtu=1400),
            "fd05::7": router,
            "fd05::8": router._replace(mtu=1400),
            "10.1.5.5": "pass_resolve_neighbour",
            "fd01:5::5": "pass_resolve_neighbour",
            "203.0.113.9": "drop_no_route",
            "203.0.113.10": "drop_no_route",
            "203.0.113.11": "drop_no_route",
            "fd05::9": "drop_no_route",
            "10.3.0.2": side,
            "fd03::2": side,
        }
        self._known = {ip_address(text): answer for text, answer in known.items()}

    def __call__(self, client: IPAddress) -> Hop | str:
        """The way to a client; what the table has no route for is the kernel's, as the gateway's own addresses are."""
        if client in self._known:
            return self._known[client]
        if client not in _OWN and any(client in network for network in _ON_LINK + _SIDE_LINK):
            return "pass_resolve_neighbour"
        return "pass_local"
