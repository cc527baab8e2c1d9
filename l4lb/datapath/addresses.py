"""The gateway's own addresses for VIPs and fullnat, on its interfaces, so that the kernel answers ARP and discovery.

Each is put on the interface whose network it is in, as a single address, with a mark that it is ours. An address that
was there before is left alone. Neighbours that remember another host for it are told: by gratuitous ARP (RFC 5227 §3)
or unsolicited neighbour advertisements (RFC 4861 §7.2.6).

IPv4 addresses are marked by their label (``eth0:l4lb``). IPv6 has no labels: ours are those that are deprecated from
the beginning, with neither duplicate detection nor a route for their prefix, of which nobody else makes any.
Deprecated also means that the kernel never sends from them by itself (RFC 6724 rule 3).
"""

import asyncio
import socket
import struct
from collections.abc import Collection, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from l4lb.datapath.checksum import sum_words
from l4lb.datapath.links import Link
from l4lb.errors import L4lbError
from l4lb.model import IPAddress

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_FOREVER = 0xFFFFFFFF
_IPV6_FLAGS = 0x02 | 0x200  # IFA_F_NODAD, IFA_F_NOPREFIXROUTE
_MARK = "l4lb"
_LABEL_LENGTH = 15  # IFNAMSIZ without the final 0
_ANNOUNCEMENTS = 3
_ANNOUNCEMENT_SECONDS = 1.0


class VipAddresses:
    """The addresses of the VIPs on these interfaces."""

    def __init__(self, links: Sequence[Link]) -> None:
        self._links = links
        self._announcing: set[asyncio.Task[None]] = set()

    async def reconcile(self, addresses: Collection[IPAddress]) -> None:
        """Puts what is missing where it belongs, and takes away what is ours and not wanted.

        Raises:
            L4lbError: the kernel refuses.
        """
        try:
            await self._reconcile(addresses)
        except NetlinkError as error:
            reason = error.args[1] if len(error.args) > 1 else error
            raise L4lbError(
                f"cannot put VIP addresses on {', '.join(link.name for link in self._links)} ({reason})",
                "put them there yourself and run with --no-announce",
            ) from error

    async def _reconcile(self, addresses: Collection[IPAddress]) -> None:
        async with AsyncIPRoute() as ipr:
            found = [
                message for family in _FAMILIES.values() async for message in await ipr.addr("dump", family=family)
            ]
            for message in found:
                if _is_ours(message) and _address(message) not in addresses:
                    address = _address(message)
                    await ipr.addr(
                        "delete", index=message["index"], address=str(address), prefixlen=address.max_prefixlen
                    )
            for wanted in set(addresses) - {_address(message) for message in found}:
                link = self._link_for(wanted, found)
                await ipr.addr(
                    "add",
                    index=link.ifindex,
                    address=str(wanted),
                    prefixlen=wanted.max_prefixlen,
                    **(_ipv4_mark(link.name) if wanted.version == 4 else _IPV6_MARK),
                )
                self._announce(wanted, link)

    async def close(self) -> None:
        """Ends announcements; the addresses stay, since forwarding goes on."""
        for task in self._announcing:
            task.cancel()
        await asyncio.gather(*self._announcing, return_exceptions=True)

    def _link_for(self, address: IPAddress, found: Sequence[Mapping[str, Any]]) -> Link:
        """The interface whose network the address is in, else the first."""
        for message in found:
            network = ip_interface(f"{_address(message)}/{message['prefixlen']}").network
            for link in self._links:
                if link.ifindex == message["index"] and network.num_addresses > 1 and address in network:
                    return link
        return self._links[0]

    def _announce(self, address: IPAddress, link: Link) -> None:
        task = asyncio.create_task(_announce(address, link))
        self._announcing.add(task)
        task.add_done_callback(self._announcing.discard)


_IPV6_MARK = {"flags": _IPV6_FLAGS, "preferred": 0, "valid": _FOREVER}


def _ipv4_mark(interface: str) -> dict[str, object]:
    return {"label": _label(interface)}


def _address(message: Mapping[str, Any]) -> IPAddress:
    attributes = dict(message["attrs"])
    return ip_address(attributes.get("IFA_LOCAL") or attributes["IFA_ADDRESS"])


def _is_ours(message: Mapping[str, Any]) -> bool:
    attributes = dict(message["attrs"])
    if message["family"] == socket.AF_INET:
        label = attributes.get("IFA_LABEL", "")
        return bool(label == _MARK or label.endswith(f":{_MARK}"))
    lifetimes = attributes.get("IFA_CACHEINFO", {})
    return bool(
        attributes.get("IFA_FLAGS", 0) & _IPV6_FLAGS == _IPV6_FLAGS
        and message["prefixlen"] == 128
        and lifetimes.get("ifa_preferred") == 0
        and lifetimes.get("ifa_valid") == _FOREVER
    )


def _label(interface: str) -> str:
    label = f"{interface}:{_MARK}"
    return label if len(label) <= _LABEL_LENGTH else _MARK


async def _announce(address: IPAddress, link: Link) -> None:
    frame = gratuitous_arp(address, link.mac) if address.version == 4 else unsolicited_advertisement(address, link.mac)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((link.name, 0))
        for _ in range(_ANNOUNCEMENTS):
            wire.send(frame)
            await asyncio.sleep(_ANNOUNCEMENT_SECONDS)


def gratuitous_arp(address: IPv4Address, mac: bytes) -> bytes:
    """An ARP request for one's own address, to all: the form that hosts and switches heed most widely."""
    ethernet = b"\xff" * 6 + mac + b"\x08\x06"
    arp = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mac, address.packed, bytes(6), address.packed)
    return (ethernet + arp).ljust(60, b"\0")


def unsolicited_advertisement(address: IPv6Address, mac: bytes) -> bytes:
    """A neighbour advertisement to all nodes on the link that overrides what they remember."""
    override, link_layer_option, in_units_of_8 = 0x20000000, 2, 1
    body = struct.pack("!I16sBB6s", override, address.packed, link_layer_option, in_units_of_8, mac)
    all_nodes = IPv6Address("ff02::1").packed
    pseudo_header = address.packed + all_nodes + struct.pack("!II", len(body) + 4, socket.IPPROTO_ICMPV6)
    checksum = ~sum_words(pseudo_header + struct.pack("!BBH", 136, 0, 0) + body) & 0xFFFF
    message = struct.pack("!BB", 136, 0) + struct.pack("<H", checksum) + body
    header = struct.pack("!IHBB", 0x60000000, len(message), socket.IPPROTO_ICMPV6, 255) + address.packed + all_nodes
    return b"\x33\x33\x00\x00\x00\x01" + mac + b"\x86\xdd" + header + message
