"""Interfaces and VLANs as the kernel's messages tell them, from the bytes on."""

import re
import struct
from typing import Any

import pytest
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from l4lb.datapath.links import TAG_8021AD, Device, Link, choose, device_of, links_on, mac_of
from l4lb.errors import L4lbError

MAC = bytes.fromhex("020000000001")

ETHER, TUNNEL, TUNNEL6, LOOPBACK = 1, 768, 769, 772  # uapi/linux/if_arp.h
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_LINKINFO, IFLA_LINK_NETNSID = 1, 3, 4, 5, 18, 37
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFLA_VLAN_ID, IFLA_VLAN_PROTOCOL = 1, 5


def attribute(number: int, data: bytes) -> bytes:
    """``struct nlattr`` and what follows it."""
    return struct.pack("=HH", 4 + len(data), number) + data + bytes(-len(data) % 4)


def u32(value: int) -> bytes:
    return struct.pack("=I", value)


def new_link(name: str, index: int, *attributes: bytes, kind: int = ETHER, mac: bytes = MAC, up: bool = True) -> Any:
    """RTM_NEWLINK as it comes over the socket, decoded."""
    body = struct.pack("=BxHiII", 0, kind, index, int(up), 0) + attribute(IFLA_IFNAME, name.encode() + b"\0")
    body += attribute(IFLA_MTU, u32(1500)) + attribute(IFLA_ADDRESS, mac) + b"".join(attributes)
    (message,) = MarshalRtnl().parse(struct.pack("=IHHII", 16 + len(body), 16, 0, 0, 0) + body)
    return message


def vlan_on(index: int, tag: int, protocol: int = 0x8100) -> bytes:
    data = attribute(IFLA_VLAN_PROTOCOL, protocol.to_bytes(2, "big")) + attribute(IFLA_VLAN_ID, struct.pack("=H", tag))
    info = attribute(IFLA_INFO_KIND, b"vlan\0") + attribute(IFLA_INFO_DATA, data)
    return attribute(IFLA_LINK, u32(index)) + attribute(IFLA_LINKINFO, info)


def devices(*messages: Any) -> dict[int, Device]:
    return {message["index"]: device_of(message) for message in messages}


@pytest.mark.parametrize(
    ("messages", "parent", "tags"),
    [
        ([new_link("x", 9, vlan_on(2, 5))], 2, (5,)),
        ([new_link("x", 9, vlan_on(2, 4094))], 2, (4094,)),
        ([new_link("x", 9, vlan_on(2, 5, 0x88A8))], 2, (TAG_8021AD | 5,)),
        ([new_link("s", 8, vlan_on(2, 5, 0x88A8)), new_link("x", 9, vlan_on(8, 6))], 2, (TAG_8021AD | 5, 6)),
        ([new_link("s", 8, vlan_on(2, 5)), new_link("x", 9, vlan_on(8, 6))], 2, (5, 6)),
        ([new_link("x", 3, vlan_on(8, 6)), new_link("s", 8, vlan_on(2, 5))], 2, (5, 6)),
        ([new_link("x", 2)], 2, ()),
    ],
)
def test_a_link_has_its_tags_outermost_first(messages: list[Any], parent: int, tags: tuple[int, ...]) -> None:
    found = links_on(devices(new_link("eth0", 2), *messages), {2})
    (link,) = (link for link in found.values() if link.name == "x")
    assert (link.parent, link.tags) == (parent, tags)


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([new_link("x", 9, vlan_on(3, 5))], id="on an interface that is not ours"),
        pytest.param([new_link("x", 9)], id="no VLAN"),
        pytest.param([new_link("x", 9, vlan_on(77, 5))], id="on one that is gone"),
        pytest.param(
            [new_link("a", 7, vlan_on(2, 4)), new_link("b", 8, vlan_on(7, 5)), new_link("x", 9, vlan_on(8, 6))],
            id="three deep",
        ),
        pytest.param(
            [new_link("x", 9, vlan_on(2, 5), attribute(IFLA_LINK_NETNSID, u32(0)))],
            id="on an interface of another namespace",
        ),
    ],
)
def test_what_is_no_vlan_of_ours_is_left_out(messages: list[Any]) -> None:
    found = links_on(devices(new_link("eth0", 2), new_link("eth1", 3), *messages), {2})
    assert "x" not in {link.name for link in found.values()}
    assert found[2] == Link("eth0", 2, MAC, 1500, True, 2, ())


def test_an_index_of_another_namespace_can_be_ones_own_here() -> None:
    """What a container has of its host's VLANs."""
    message = new_link("x", 5, vlan_on(5, 7), attribute(IFLA_LINK_NETNSID, u32(0)))
    assert links_on(devices(message), {2}) == {}


@pytest.mark.parametrize(
    ("kind", "mac"),
    [(TUNNEL, bytes([10, 0, 0, 1])), (TUNNEL6, bytes(16)), (32, bytes(20)), (65534, b""), (LOOPBACK, bytes(6))],
    ids=["ipip", "ip6tnl", "infiniband", "tun", "loopback"],
)
def test_interfaces_of_other_kinds_do_not_disturb(kind: int, mac: bytes) -> None:
    """tunl0 and sit0 are there on many machines without anybody's doing."""
    found = devices(new_link("eth0", 2), new_link("other", 3, kind=kind, mac=mac))
    assert [link.name for link in choose(found, ["eth0"])] == ["eth0"]
    with pytest.raises(L4lbError, match="other is no Ethernet interface: name the interface that packets come in by"):
        choose(found, ["other"])


@pytest.mark.parametrize(
    ("found", "mac"),
    [
        ("02:00:00:00:00:01", MAC),
        ("10.0.0.1", None),
        ("2001:db8::2:1:0:1", None),
        ("::1", None),
        (b"\x08\x00\x01\x00\x0a\x00\x00\x01", None),
        (None, None),
    ],
)
def test_a_neighbours_address_is_a_mac_address_or_none(found: object, mac: bytes | None) -> None:
    assert mac_of(found) == mac


def test_a_vlan_is_named_by_its_interface() -> None:
    """A hint that can be followed at once, also of a VLAN in a VLAN."""
    found = devices(new_link("eth0", 2), new_link("s7", 8, vlan_on(2, 7, 0x88A8)), new_link("s7.8", 9, vlan_on(8, 8)))
    for name in ("s7", "s7.8"):
        with pytest.raises(L4lbError, match=re.escape(f"{name} is a VLAN: name the interface that it is on, eth0")):
            choose(found, [name])


def test_interfaces_come_in_the_order_they_were_named() -> None:
    found = devices(new_link("eth0", 2), new_link("eth1", 3))
    assert [link.name for link in choose(found, ["eth1", "eth0"])] == ["eth1", "eth0"]


def test_what_cannot_be_used_is_refused() -> None:
    found = devices(new_link("lo", 1, kind=LOOPBACK, mac=bytes(6)), new_link("eth0", 2), new_link("eth1", 3, up=False))
    with pytest.raises(L4lbError, match="there is no interface 'eth7': there are eth0, eth1"):
        choose(found, ["eth7"])
    with pytest.raises(L4lbError, match="interface eth1 is down: bring it up with `ip link set eth1 up`"):
        choose(found, ["eth0", "eth1"])
