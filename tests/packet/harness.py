"""The real program run on single packets, and what became of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from l4lb.lab.testbed import Testbed
from l4lb.plan.limits import Limits
from l4lb.view import Traffic

LIMITS = Limits(
    max_vips=64,
    max_backends=512,
    max_interfaces=64,
    index_lines=64,
    slot_lines=16_384,
    range_lines=64,
    flow_lines=1024,
    fragment_lines=64,
    max_connections=8192,
    max_watched=64,
    route_lines=64,
)
SEED = 7

XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT = 1, 2, 3, 4
VERDICTS = {"drop": XDP_DROP, "pass": XDP_PASS}


@dataclass(frozen=True)
class Outcome:
    """What became of one packet."""

    verdict: int
    packet: bytes
    reasons: Mapping[str, int]
    traffic: Mapping[str, Traffic]  # by VIP and backend


def run(bed: Testbed, packet: bytes) -> Outcome:
    """Runs the program once; the counters are those of this packet alone."""
    reasons, traffic = bed.maps.reasons(), _traffic(bed)
    answer = bed.send(packet)
    return Outcome(
        answer.verdict,
        answer.packet,
        {name: count - reasons[name] for name, count in bed.maps.reasons().items() if count != reasons[name]},
        {
            account: Traffic(*(getattr(now, name) - getattr(traffic[account], name) for name in Traffic.__slots__))
            for account, now in _traffic(bed).items()
            if now != traffic[account]
        },
    )


def _traffic(bed: Testbed) -> dict[str, Traffic]:
    return {
        f"{bed.image.vips[record.vip].service.place} {record.endpoint}": bed.maps.traffic(number)
        for number, record in bed.image.backends.items()
    }
