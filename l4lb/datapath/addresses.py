"""The gateway's own addresses for VIPs and fullnat, on its interfaces, so that the kernel answers ARP and discovery.

Each is put on the interface or VLAN whose network it is in, as a single address, with a mark that it is ours. An
address that was there before is left alone. Neighbours that remember another host for it are told: by gratuitous ARP
(RFC 5227 §3) or unsolicited neighbour advertisements (RFC 4861 §7.2.6).

IPv4 addresses are marked by their label (``eth0:l4lb``), IPv6 ones by a protocol number of our own (IFA_PROTO). Kernels
before 5.18 forget that number: there, ours are those that are deprecated for ever, with neither duplicate detection nor
a route for their prefix, which hardly anybody else makes.

The kernel should not send from them by itself. IPv4 ones have the scope of the host, which keeps them from being
chosen, while ARP is answered for them (unless arp_ignore is 3 or 8). IPv6 ones are deprecated, so that they are chosen
only where there is no other (RFC 6724 §5 rule 3).
"""

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Collection, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from l4lb.datapath.checksum import sum_words
from l4lb.datapath.links import Link, links_on, read_devices
from l4lb.datapath.requirements import kernel_version
from l4lb.errors import L4lbError
from l4lb.model import IPAddress

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_FOREVER = 0xFFFFFFFF
_IPV6_FLAGS = 0x02 | 0x200  # IFA_F_NODAD, IFA_F_NOPREFIXROUTE
_IPV6_PROTOCOL = 0x4C  # of IFA_PROTO; those up to 3 are the kernel's
_REMEMBERS_PROTOCOL = (5, 18)  # the first kernel that does
_MARK = "l4lb"
_RT_SCOPE_HOST = 254  # uapi/linux/rtnetlink.h
_LABEL_LENGTH = 15  # IFNAMSIZ without the final 0
_ANNOUNCEMENTS = 3
_ANNOUNCEMENT_SECONDS = 1.0


class VipAddresses:
    """The addresses of the VIPs on these interfaces, and on the VLANs that there are on them."""

    def __init__(self, links: Sequence[Link]) -> None:
        self._links = links
        self._announcing: dict[IPAddress, asyncio.Task[None]] = {}

    async def reconcile(self, addresses: Collection[IPAddress]) -> None:
        """Puts what is missing where it belongs, and takes away what is ours and not wanted.

        Raises:
            L4lbError: the kernel refuses.
        """
        async with AsyncIPRoute() as ipr:
            found = [message async for message in await ipr.addr("dump") if message["family"] in _FAMILIES]
            links = links_on(await read_devices(ipr), {link.ifindex for link in self._links})
            for message in found:
                if is_ours(message) and address_of(message) not in addresses:
                    await self._remove(ipr, message)
            for wanted in set(addresses) - {address_of(message) for message in found}:
                place = _place(wanted, found, links) or self._links[0].ifindex
                await self._add(ipr, wanted, links.get(place, self._links[0]))

    async def _add(self, ipr: AsyncIPRoute, address: IPAddress, link: Link) -> None:
        mark = _ipv4_mark(link.name) if address.version == 4 else _IPV6_MARK
        prefix = address.max_prefixlen
        try:
            await ipr.addr("add", index=link.ifindex, address=str(address), prefixlen=prefix, **mark)
        except NetlinkError as error:
            if address.version == 6 and error.code == errno.EACCES:
                setting = f"net.ipv6.conf.{link.name.replace('.', '/')}.disable_ipv6"  # as sysctl wants a VLAN's dot
                raise L4lbError(
                    f"cannot put {address} on {link.name}, where IPv6 is off",
                    f"turn it on with `sysctl -w {setting}=0`",
                ) from error
            raise L4lbError(
                f"cannot put {address} on {link.name} ({_reason(error)})",
                "put it there yourself and run with --no-announce",
            ) from error
        self._announcing[address] = asyncio.create_task(_announce(address, link))

    async def _remove(self, ipr: AsyncIPRoute, message: Mapping[str, Any]) -> None:
        address = address_of(message)
        if address in self._announcing:
            self._announcing.pop(address).cancel()
        try:
            await ipr.addr("delete", index=message["index"], address=str(address), prefixlen=message["prefixlen"])
        except NetlinkError as error:
            if error.code not in (errno.EADDRNOTAVAIL, errno.ENODEV):  # gone already
                raise L4lbError(
                    f"cannot take {address} away ({_reason(error)})", f"do it by `ip address delete {address}`"
                ) from error

    async def close(self) -> None:
        """Ends announcements; the addresses stay, since forwarding goes on."""
        for task in self._announcing.values():
            task.cancel()
        await asyncio.gather(*self._announcing.values(), return_exceptions=True)


_IPV6_MARK = {"flags": _IPV6_FLAGS, "preferred": 0, "valid": _FOREVER, "proto": _IPV6_PROTOCOL}


def _ipv4_mark(interface: str) -> dict[str, object]:
    label = f"{interface}:{_MARK}"
    return {"label": label if len(label) <= _LABEL_LENGTH else _MARK, "scope": _RT_SCOPE_HOST}


def _reason(error: NetlinkError) -> str:
    return os.strerror(error.code)


def address_of(message: Mapping[str, Any]) -> IPAddress:
    """The address that a message of the kernel's (RTM_NEWADDR) is about."""
    attributes = dict(message["attrs"])
    return ip_address(attributes.get("IFA_LOCAL") or attributes["IFA_ADDRESS"])


def is_ours(message: Mapping[str, Any]) -> bool:
    """Whether l4lb put the address there that a message of the kernel's is about."""
    attributes = dict(message["attrs"])
    if message["family"] == socket.AF_INET:
        label = attributes.get("IFA_LABEL", "")
        return bool(label == _MARK or label.endswith(f":{_MARK}"))
    if message["family"] != socket.AF_INET6:
        return False
    if kernel_version(os.uname().release) >= _REMEMBERS_PROTOCOL:
        return bool(attributes.get("IFA_PROTO") == _IPV6_PROTOCOL)
    lifetimes = attributes.get("IFA_CACHEINFO", {})
    return bool(
        attributes.get("IFA_FLAGS", 0) & _IPV6_FLAGS == _IPV6_FLAGS
        and message["prefixlen"] == 128
        and lifetimes.get("ifa_preferred") == 0
        and lifetimes.get("ifa_valid") == _FOREVER
    )


def _place(address: IPAddress, found: Sequence[Mapping[str, Any]], links: Collection[int]) -> int:
    """Of the interfaces, the one whose network the address is in, the narrowest if it is in several; else 0."""
    networks = [
        (message["prefixlen"], message["index"])
        for message in found
        if message["index"] in links and message["prefixlen"] < address.max_prefixlen
        if address in ip_interface(f"{address_of(message)}/{message['prefixlen']}").network
    ]
    return max(networks, default=(0, 0))[1]


async def _announce(address: IPAddress, link: Link) -> None:
    frame = gratuitous_arp(address, link.mac) if address.version == 4 else unsolicited_advertisement(address, link.mac)
    with contextlib.suppress(OSError):  # while the interface is down or gone, there is nobody to tell
        for _ in range(_ANNOUNCEMENTS):
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
                wire.bind((link.name, 0))
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
