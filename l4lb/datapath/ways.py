"""How packets leave for a backend, from what the network says and what the operator chose."""

from l4lb.datapath.nexthops import Answer, NextHop, Unresolved
from l4lb.datapath.values import Way
from l4lb.model import IPAddress, IPNetwork, Mode

_UDP_HEADER = 8
_IP_HEADER = {4: 20, 6: 40}


def usable(answer: Answer, mode: Mode, source: IPNetwork | None) -> Answer:
    """What a mode can make of a next hop.

    dsr addresses the backend's own MAC, so no router may be in between; tunnels and fullnat send from an address of
    the gateway's.
    """
    if not isinstance(answer, NextHop):
        return answer
    if mode is Mode.DSR and answer.router:
        return Unresolved(f"behind router {answer.router}, but dsr needs a backend on the same segment")
    if (mode.tunnels or mode is Mode.FULLNAT) and source is None and answer.source is None:
        return Unresolved(f"{answer.interface} has no address to send from; give one by --source")
    return answer


def way(answer: Answer, backend: IPAddress, mode: Mode, source: IPNetwork | None, link_mtu: int) -> Way | None:
    """The way to a backend, None if there is none.

    Args:
        answer: its next hop, of those that are :func:`usable`.
        backend: its address.
        mode: its VIP's.
        source: where packets are to come from, if that was chosen.
        link_mtu: of the interface, in bytes.
    """
    if not isinstance(answer, NextHop):
        return None
    overhead = _IP_HEADER[backend.version] if mode.tunnels else 0
    overhead += _UDP_HEADER if mode is Mode.GUE else 0
    mtu = min(answer.mtu or link_mtu, link_mtu)
    first = source.network_address if source is not None else answer.source
    mask = int(source.hostmask) & 0xFFFFFFFF if source is not None else 0
    return Way(answer.ifindex, answer.mac, mtu - overhead, first, mask)
