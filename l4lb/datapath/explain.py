"""Where a packet would go, from what the maps hold now."""

import time

from l4lb.balance.explain import Why, explain
from l4lb.balance.flowhash import flow_hash64, flow_tag, seeds
from l4lb.datapath.maps import Maps
from l4lb.model import Endpoint
from l4lb.plan.planner import ticks
from l4lb.plan.records import BackendRecord, Image, VipRecord


def explain_packet(
    maps: Maps, image: Image, vip: VipRecord, client: Endpoint, begins: bool, seed: int
) -> tuple[BackendRecord | None, Why]:
    """The backend that a packet from `client` would go to, None if there is none, and why.

    Nothing is sent, and nothing changes. `begins` says that the packet is a TCP connection's SYN.
    """
    (number,) = (number for number, record in image.vips.items() if record == vip)
    region = image.tables[number].region
    if not region.slots:
        return None, Why.NO_BACKEND
    constants = seeds(seed)
    hash64 = flow_hash64(client, vip.endpoint.port, constants)
    now = ticks(time.monotonic_ns())
    record = maps.record(flow_tag(hash64, number, constants), number, now, image.idle[number])
    learning = maps.learning_until(region) > now
    found = explain(maps.read_table(region), hash64 >> 32, vip.protocol, begins, record, learning)
    return (None if found.backend is None else image.backends[found.backend]), found.why
