"""How a packet leaves: by which interface, with which MAC addresses and VLAN tags."""

from dataclasses import dataclass

from l4lb.datapath.links import TAG_8021AD
from tests.reference.world import Hop, Port, World

_ETHER_TYPE = {False: b"\x08\x00", True: b"\x86\xdd"}  # by whether it is IPv6


@dataclass(frozen=True, slots=True)
class Exit:
    """The way out.

    Attributes:
        egress: index of the interface that the program runs on.
        header: the addresses and tags of the Ethernet header.
    """

    egress: int
    header: bytes
    mtu: int

    def frame(self, packet: bytes, v6: bool) -> bytes:
        """An IP packet as it leaves."""
        return self.header + _ETHER_TYPE[v6] + packet


def exit_by(world: World, hop: Hop, ingress: int) -> Exit | None:
    """The way out to a next hop, None if the interface is not one of ours."""
    port = world.ports.get(hop.ifindex)
    if port is None:
        return None
    here = hop.ifindex == ingress
    tags = () if here else port.tags
    header = hop.mac + port.mac + b"".join(map(_tag, tags))
    return Exit(ingress if here else port.parent, header, min(port.mtu, 0xFFFF))


def _tag(tag: int) -> bytes:
    return (b"\x88\xa8" if tag & TAG_8021AD else b"\x81\x00") + (tag & 0xFFF).to_bytes(2, "big")


def is_addressed_to_us(frame: bytes, port: Port | None) -> bool:
    """Whether a frame has the MAC address of the interface that it came in by."""
    return frame[:6] == (port.mac if port is not None else bytes(6))
