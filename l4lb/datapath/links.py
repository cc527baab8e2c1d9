"""Network interfaces as the kernel has them, and the VLANs on them."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyroute2 import AsyncIPRoute

from l4lb.errors import L4lbError

IFF_UP = 1
MAX_TAGS = 2  # that the program reads and writes
TAG_8021AD = 0x4000  # in a tag: 802.1ad, the "service" tag; else 802.1Q
_ETH_P_8021AD = 0x88A8
_ARPHRD_ETHER = 1  # uapi/linux/if_arp.h; tunnels have addresses of other kinds
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Link:
    """An interface; `mac` is 6 bytes, `mtu` in bytes.

    Attributes:
        parent: the index of the interface that the program runs on; its own if it is no VLAN.
        tags: the VLAN tags that its packets have there, outermost first: numbers, plus :data:`TAG_8021AD`.
    """

    name: str
    ifindex: int
    mac: bytes
    mtu: int
    up: bool
    parent: int
    tags: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """What a message of the kernel's says of an interface.

    Attributes:
        mac: empty if it is no Ethernet interface.
        below: the index of the interface that it is a VLAN on; 0 if it is none, or a VLAN on one of another namespace.
        tag: its own VLAN tag.
    """

    name: str
    ifindex: int
    mac: bytes
    mtu: int
    up: bool
    below: int = 0
    tag: int = 0


def device_of(message: Mapping[str, Any]) -> Device:
    """From a message of the kernel's (RTM_NEWLINK)."""
    attributes = dict(message["attrs"])
    info = dict(attributes["IFLA_LINKINFO"]["attrs"]) if "IFLA_LINKINFO" in attributes else {}
    below = tag = 0
    # With a namespace, IFLA_LINK is an index there, which another interface may have here.
    if info.get("IFLA_INFO_KIND") == "vlan" and "IFLA_LINK_NETNSID" not in attributes:
        vlan = dict(info["IFLA_INFO_DATA"]["attrs"])
        below = attributes["IFLA_LINK"]
        tag = vlan["IFLA_VLAN_ID"] | (TAG_8021AD if vlan.get("IFLA_VLAN_PROTOCOL") == _ETH_P_8021AD else 0)
    return Device(
        name=attributes["IFLA_IFNAME"],
        ifindex=message["index"],
        mac=(message["ifi_type"] == _ARPHRD_ETHER and mac_of(attributes.get("IFLA_ADDRESS"))) or b"",
        mtu=attributes["IFLA_MTU"],
        up=bool(message["flags"] & IFF_UP),
        below=below,
        tag=tag,
    )


async def read_devices(ipr: AsyncIPRoute) -> dict[int, Device]:
    """All interfaces there are, by index."""
    return {message["index"]: device_of(message) async for message in await ipr.link("dump")}


def links_on(devices: Mapping[int, Device], named: Collection[int]) -> dict[int, Link]:
    """The named interfaces, and the VLANs of up to two tags on them, by index."""
    links = {}
    for device in devices.values():
        tags: tuple[int, ...] = ()
        parent: Device | None = device
        while parent is not None and parent.ifindex not in named and parent.below:
            tags = (parent.tag, *tags)
            parent = devices.get(parent.below)
        if parent is not None and parent.ifindex in named and len(tags) <= MAX_TAGS:
            links[device.ifindex] = Link(
                device.name, device.ifindex, device.mac, device.mtu, device.up, parent.ifindex, tags
            )
    return links


def choose(devices: Mapping[int, Device], names: Iterable[str]) -> tuple[Link, ...]:
    """The interfaces of these names, in their order.

    Raises:
        L4lbError: one is not there, is down, or is none that packets come in by.
    """
    found = {device.name: device for device in devices.values()}
    chosen = []
    for name in names:
        device = found.get(name)
        if device is None:
            others = ", ".join(sorted(other for other in found if other != "lo"))
            raise L4lbError(
                f"there is no interface {name!r}", f"there are {others}" if others else "there is none but lo"
            )
        if not device.mac:
            raise L4lbError(f"{name} is no Ethernet interface", "name the interface that packets come in by")
        if device.below:
            parent = device
            while parent.below:
                parent = devices[parent.below]
            hint = f"name the interface that it is on, {parent.name}: its VLANs are served too"
            raise L4lbError(f"{name} is a VLAN", hint)
        if not device.up:
            raise L4lbError(f"interface {name} is down", f"bring it up with `ip link set {name} up`")
        chosen.append(Link(name, device.ifindex, device.mac, device.mtu, device.up, device.ifindex))
    return tuple(chosen)


def mac_of(found: object) -> bytes | None:
    """What a message has as a link-layer address, if it is a MAC address: that of a tunnel is an IP address."""
    return mac_bytes(found) if isinstance(found, str) and _MAC.fullmatch(found) else None


def mac_bytes(text: str) -> bytes:
    """``02:00:00:00:00:01`` as bytes."""
    return bytes.fromhex(text.replace(":", ""))


def mac_text(mac: bytes) -> str:
    """Bytes as ``02:00:00:00:00:01``."""
    return mac.hex(":")
