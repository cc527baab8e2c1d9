"""VIP addresses on the gateway's interfaces, so that the kernel answers ARP for them.

Each is put on the interface whose network it is in, as a single address, under a label that marks it as ours
(``eth0:l4lb``). An address that was there before is left alone. Neighbours that remember another host for it are told
by gratuitous ARP (RFC 5227 §3).
"""

import asyncio
import socket
import struct
from collections.abc import Collection, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from l4lb.datapath.links import Link
from l4lb.errors import L4lbError
from l4lb.model import IPAddress

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
            found = [message async for message in await ipr.addr("dump", family=socket.AF_INET)]
            present = {IPv4Address(dict(message["attrs"])["IFA_LOCAL"]) for message in found}
            for message in found:
                attributes = dict(message["attrs"])
                address = IPv4Address(attributes["IFA_LOCAL"])
                if _is_ours(message) and address not in addresses:
                    await ipr.addr("delete", index=message["index"], address=str(address), prefixlen=32)
            for wanted in addresses:
                if wanted not in present and isinstance(wanted, IPv4Address):
                    link = self._link_for(wanted, found)
                    await ipr.addr(
                        "add", index=link.ifindex, address=str(wanted), prefixlen=32, label=_label(link.name)
                    )
                    self._announce(wanted, link)

    async def close(self) -> None:
        """Ends announcements; the addresses stay, since forwarding goes on."""
        for task in self._announcing:
            task.cancel()
        await asyncio.gather(*self._announcing, return_exceptions=True)

    def _link_for(self, address: IPv4Address, found: Sequence[Mapping[str, Any]]) -> Link:
        """The interface whose network the address is in, else the first."""
        for message in found:
            interface = IPv4Interface(f"{dict(message['attrs'])['IFA_LOCAL']}/{message['prefixlen']}")
            for link in self._links:
                if link.ifindex == message["index"] and message["prefixlen"] < 32 and address in interface.network:
                    return link
        return self._links[0]

    def _announce(self, address: IPv4Address, link: Link) -> None:
        task = asyncio.create_task(_announce(address, link))
        self._announcing.add(task)
        task.add_done_callback(self._announcing.discard)


def _is_ours(message: Mapping[str, Any]) -> bool:
    label = dict(message["attrs"]).get("IFA_LABEL", "")
    return bool(label == _MARK or label.endswith(f":{_MARK}"))


def _label(interface: str) -> str:
    label = f"{interface}:{_MARK}"
    return label if len(label) <= _LABEL_LENGTH else _MARK


async def _announce(address: IPv4Address, link: Link) -> None:
    frame = gratuitous_arp(address, link.mac)
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
