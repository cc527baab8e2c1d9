"""`l4lb explain` says what the program does."""

import random
from collections import Counter
from ipaddress import IPv4Address, IPv6Address

from l4lb.balance.explain import Why
from l4lb.datapath.explain import Packet, explain_packet
from l4lb.lab.testbed import Testbed
from l4lb.model import Protocol
from tests.packet.harness import SEED
from tests.packet.test_affinity import ACK, ADDRESSES, SYN, Flow, configure, lb

__all__ = ["lb"]  # a fixture is used by its name


SEEN = (Why.SETTLED, Why.TRACKED, Why.PREVIOUS, Why.NEW, Why.NO_BACKEND)


def explained(bed: Testbed, flow: Flow, begins: bool) -> tuple[IPv4Address | IPv6Address | None, Why]:
    (vip,) = (vip for vip in bed.image.vips.values() if vip.service.protocol is flow.protocol)
    backend, why = explain_packet(bed.maps, bed.image, vip, Packet(flow.client, 80, begins), SEED)
    return (backend.endpoint.address if backend else None), why


def test_it_agrees_with_the_kernel(lb: Testbed) -> None:
    """Random packets, before and after changes, of flows that are new, recorded, and older than the changes."""
    numbers = random.Random(2)
    reasons: Counter[Why] = Counter()
    for weights in (
        dict.fromkeys(ADDRESSES[:3], 1),
        dict.fromkeys(ADDRESSES[:5], 1),
        {**dict.fromkeys(ADDRESSES[:5], 0), ADDRESSES[7]: 3, ADDRESSES[8]: 1},
        dict.fromkeys(ADDRESSES[:9], 0),
        dict.fromkeys(ADDRESSES[2:14], 1),
    ):
        configure(lb, weights)
        for _ in range(400):
            protocol = numbers.choice(list(Protocol))
            begins = protocol is Protocol.TCP and numbers.random() < 0.5
            flow = Flow(lb, numbers.randrange(300), protocol)
            backend, why = explained(lb, flow, begins)
            reasons[why] += 1
            assert flow.send(SYN if begins else ACK) == backend, why
    assert all(reasons[why] > 10 for why in SEEN), reasons
