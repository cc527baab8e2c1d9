"""Which failures a change of backends explains."""

from collections.abc import Sequence

from l4lb.balance import maglev
from l4lb.balance.flowhash import flow_hash, seeds, slot_of
from l4lb.lab.traffic import Outcome
from l4lb.model import Endpoint, IPAddress


def unexplained(
    outcome: Outcome, before: Sequence[str], after: Sequence[str], client: IPAddress, service_port: int, seed: int = 0
) -> list[tuple[int, str]]:
    """The failures of flows that go to the same backend before and after a change.

    Those of other flows are to be expected: they were in flight in a slot that moved.

    Args:
        outcome: of requests that went on during the change, there and perhaps back.
        before: the VIP's backends, as ``address:port``, all of weight 1.
        after: the same, after the change.
        client: where the requests came from.
        service_port: the VIP's.
        seed: the daemon's.
    """
    return [
        (port, how)
        for port, how in outcome.failures
        if _choice(before, Endpoint(client, port), service_port, seed)
        == _choice(after, Endpoint(client, port), service_port, seed)
    ]


def _choice(backends: Sequence[str], client: Endpoint, service_port: int, seed: int) -> str:
    table = maglev.build([(backend, 1) for backend in backends], maglev.table_size(len(backends)), seed)
    return backends[table[slot_of(flow_hash(client, service_port, seeds(seed)), len(table))]]
