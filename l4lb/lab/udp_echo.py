"""A UDP server that answers each datagram with its own name and what it was sent: ``udp_echo PORT NAME``."""

import contextlib
import socket
import sys


def main(port: int, name: str) -> None:
    """Answers until it is ended, over IPv6 and (by mapped addresses) IPv4."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # The answer has to come from the address that was asked: with dsr that is the VIP, not the host's own.
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        server.bind(("::", port))
        while True:
            data, info, _, client = server.recvmsg(65_535, socket.CMSG_SPACE(_PKTINFO_BYTES))
            with contextlib.suppress(OSError):  # as a firewall of its own host's may make of it
                server.sendmsg([name.encode() + b" " + data], _from_the_same_address(info), 0, client)


_PKTINFO_BYTES = 20  # struct in6_pktinfo: address, interface index


def _from_the_same_address(info: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    return [(level, kind, data[:16] + bytes(4)) for level, kind, data in info if kind == socket.IPV6_PKTINFO]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
