"""Network interfaces as the kernel has them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyroute2 import AsyncIPRoute

from l4lb.errors import L4lbError

IFF_UP = 1


@dataclass(frozen=True, slots=True)
class Link:
    """An interface; `mac` is 6 bytes, `mtu` in bytes.

    Attributes:
        parent: the index of the interface that the program runs on; its own if it is no VLAN.
        tags: the VLAN tags that its packets have there, outermost first: numbers, plus 0x4000 for 802.1ad.
    """

    name: str
    ifindex: int
    mac: bytes
    mtu: int
    up: bool
    parent: int
    tags: tuple[int, ...] = ()


def link_of(message: Mapping[str, Any]) -> Link:
    """From a message of the kernel's."""
    attributes = dict(message["attrs"])
    return Link(
        name=attributes["IFLA_IFNAME"],
        ifindex=message["index"],
        mac=mac_bytes(attributes.get("IFLA_ADDRESS", "00:00:00:00:00:00")),
        mtu=attributes["IFLA_MTU"],
        up=bool(message["flags"] & IFF_UP),
        parent=message["index"],
    )


async def get_links(ipr: AsyncIPRoute, names: Iterable[str]) -> tuple[Link, ...]:
    """The interfaces of these names.

    Raises:
        L4lbError: one is not there, is down, or is no Ethernet interface.
    """
    found = {link.name: link for link in [link_of(message) async for message in await ipr.link("dump")]}
    chosen = []
    for name in names:
        link = found.get(name)
        if link is None:
            others = ", ".join(sorted(other for other in found if other != "lo"))
            raise L4lbError(
                f"there is no interface {name!r}", f"there are {others}" if others else "there is none but lo"
            )
        if len(link.mac) != 6 or name == "lo":
            raise L4lbError(f"{name} is no Ethernet interface", "name the interface that packets come in by")
        if not link.up:
            raise L4lbError(f"interface {name} is down", f"bring it up with `ip link set {name} up`")
        chosen.append(link)
    return tuple(chosen)


async def vlan_links(ipr: AsyncIPRoute, parents: Iterable[Link]) -> tuple[Link, ...]:
    """The VLANs on these interfaces."""
    return ()


def mac_bytes(text: str) -> bytes:
    """``02:00:00:00:00:01`` as bytes."""
    return bytes.fromhex(text.replace(":", ""))


def mac_text(mac: bytes) -> str:
    """Bytes as ``02:00:00:00:00:01``."""
    return mac.hex(":")
