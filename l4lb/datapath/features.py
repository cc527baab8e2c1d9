"""What drivers can do with XDP, as they declare it (netdev generic netlink family, kernel 6.3).

A driver without ``ndo_xdp_xmit`` drops every packet that is redirected to it from another interface, after the program
has counted it as forwarded. So this is found out beforehand.
"""

from collections.abc import Iterable

from pyroute2.netlink import genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

_DEV_GET = 1  # uapi/linux/netdev.h
_NDO_XMIT = 4


class _DeviceMessage(genlmsg):  # type: ignore[misc]
    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
    )


def xdp_transmit(ifindexes: Iterable[int]) -> dict[int, bool | None]:
    """Whether packets may be redirected to these interfaces; None where the kernel does not say."""
    answers: dict[int, bool | None] = dict.fromkeys(ifindexes)
    try:
        with GenericNetlinkSocket() as netlink:
            netlink.bind("netdev", _DeviceMessage)
            for ifindex in answers:
                answers[ifindex] = _ask(netlink, ifindex)
    except (NetlinkError, OSError):
        pass  # before 6.3 there is nobody to ask
    return answers


def _ask(netlink: GenericNetlinkSocket, ifindex: int) -> bool:
    request = _DeviceMessage()
    request["cmd"] = _DEV_GET
    request["version"] = 1
    request["attrs"] = [("NETDEV_A_DEV_IFINDEX", ifindex)]
    (message, *_) = netlink.nlm_request(request, msg_type=netlink.prid, msg_flags=1)  # NLM_F_REQUEST
    return bool(message.get_attr("NETDEV_A_DEV_XDP_FEATURES", 0) & _NDO_XMIT)
