"""By which way probes reach a backend that are to go as traffic does."""

from collections.abc import Collection, Mapping

from l4lb.datapath.nexthops import Answer, NextHop
from l4lb.model import IPAddress, Mode, Vip
from l4lb.probes.target import NoWay, Way


def probe_way(
    vip: Vip, backend: IPAddress, answer: Answer, own: Mapping[IPAddress, int], vips: Collection[IPAddress]
) -> Way | NoWay:
    """The way to a VIP at one of its backends.

    Args:
        vip: in mode dsr, ipip or gue.
        backend: its address.
        answer: its next hop, of those that are usable in this mode.
        own: the gateway's addresses, and the indexes of their interfaces.
        vips: addresses that clients connect to: what comes to them may be forwarded, so nothing is sent from them.
    """
    if not isinstance(answer, NextHop):
        return NoWay(f"next hop {answer}")
    source = answer.source
    if source is None or source in vips or source.version != vip.service.address.version:
        source = _source(vip.service.address.version, answer.ifindex, own, vips)
    if source is None:
        return NoWay(f"the gateway has no IPv{vip.service.address.version} address of its own to probe from")
    chosen = vip.source_for(backend)
    outer = (chosen.network_address if chosen is not None else answer.source) if vip.mode is not Mode.DSR else None
    return Way(
        interface=answer.interface,
        mac=answer.mac,
        source=str(source),
        mode=str(vip.mode),
        outer_source=str(outer) if outer is not None else "",
        gue_port=vip.gue_port,
    )


def _source(version: int, ifindex: int, own: Mapping[IPAddress, int], vips: Collection[IPAddress]) -> IPAddress | None:
    """An address of this IP version, of the interface that the backend is reached by if it has one."""
    found = [address for address in own if address.version == version and address not in vips]
    return min(found, key=lambda address: own[address] != ifindex, default=None)
