"""A UDP server that answers each datagram with its own name and what it was sent: ``udp_echo PORT NAME``."""

import socket
import sys


def main(port: int, name: str) -> None:
    """Answers until it is ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        # The answer has to come from the address that was asked: with dsr that is the VIP, not the host's own.
        server.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        server.bind(("0.0.0.0", port))  # noqa: S104 - in a namespace of its own
        while True:
            data, info, _, client = server.recvmsg(65_535, socket.CMSG_SPACE(_PKTINFO_BYTES))
            server.sendmsg([name.encode() + b" " + data], _from_the_same_address(info), 0, client)


_IP_PKTINFO = 8  # uapi/linux/in.h; not in the socket module
_PKTINFO_BYTES = 12  # struct in_pktinfo: interface index, local address, header's destination


def _from_the_same_address(info: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    return [(level, kind, bytes(4) + data[8:12] + bytes(4)) for level, kind, data in info if kind == _IP_PKTINFO]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
