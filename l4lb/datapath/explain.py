"""Where a packet would go, from what the maps hold now."""

import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from l4lb.balance.explain import Flow, Why, explain
from l4lb.balance.flowhash import flow_hash64, flow_tag, seeds
from l4lb.datapath.maps import Maps
from l4lb.model import Endpoint, IPAddress, Scheduler
from l4lb.plan.planner import ticks
from l4lb.plan.records import BackendRecord, Image, VipRecord


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet from a client to a port of a VIP; `begins` says that it is a TCP connection's SYN."""

    client: Endpoint
    port: int
    begins: bool


def explain_packet(
    maps: Maps, image: Image, vip: VipRecord, packet: Packet, seed: int
) -> tuple[BackendRecord | None, Why]:
    """The backend that a packet would go to, None if there is none or only the packet itself will tell, and why.

    Nothing is sent, and nothing changes.
    """
    (number,) = (number for number, record in image.vips.items() if record == vip)
    region = image.tables[number].region
    if not region.slots:
        return None, Why.NO_BACKEND
    constants = seeds(seed)
    settings = image.vip_settings[number]
    hash64 = slot_hash = flow_hash64(packet.client, packet.port, constants)
    if settings.scheduler is Scheduler.SOURCE_HASH:
        network = network_of(packet.client.address, settings.client_bits)
        slot_hash = flow_hash64(Endpoint(network, 0), 0, constants)
    now = ticks(time.monotonic_ns())
    tag = flow_tag(hash64, number, constants)
    flow = Flow(
        slot_hash >> 32,
        vip.service.protocol,
        packet.begins,
        maps.record(tag, number, now, settings.idle_ticks),
        maps.learning_until(region) > now,
        maps.is_begun(tag),
    )
    found = explain(maps.read_table(region), settings.scheduler, flow)
    return (None if found.backend is None else image.backends[found.backend]), found.why


def network_of(address: IPAddress, bits: int) -> IPAddress:
    """The part of an address that source-hash goes by: so many bits of the 16 bytes that it has in the maps."""
    width = address.max_prefixlen
    kept = max(0, bits - (128 - width))
    number = int(address) >> width - kept << width - kept
    return IPv6Address(number) if address.version == 6 else IPv4Address(number)
