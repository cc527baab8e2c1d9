"""The addresses that the packet tests speak of."""

from ipaddress import IPv4Address

from l4lb.lab.testbed import CLIENT, CLIENT_MAC, GATEWAY_MAC

__all__ = ["CLIENT", "CLIENT_MAC", "GATEWAY_MAC"]

ROUTER_MAC = "02:00:00:00:00:03"
BACKEND_MAC = "02:00:00:00:00:04"
OTHER_MAC = "02:00:00:00:00:ff"

ROUTER = "10.1.0.254"
FAR_CLIENT = "198.51.100.7"  # behind the router
UNKNOWN_CLIENT = "10.1.5.5"  # its MAC address is not known
UNREACHABLE_CLIENT = "203.0.113.9"  # routed into a black hole

NAT_TCP_VIP = IPv4Address("192.0.2.10")
NAT_UDP_VIP = IPv4Address("192.0.2.11")
DSR_TCP_VIP = IPv4Address("192.0.2.12")
DSR_UDP_VIP = IPv4Address("192.0.2.13")
EMPTY_VIP = IPv4Address("192.0.2.14")
LOST_VIP = IPv4Address("192.0.2.15")  # its backend's next hop is not known

NAT_BACKEND = IPv4Address("10.2.0.11")
DSR_BACKEND = IPv4Address("10.2.0.12")
LOST_BACKEND = IPv4Address("10.2.0.13")
