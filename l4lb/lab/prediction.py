"""Which failures a removed backend explains."""

from collections.abc import Sequence

from l4lb.balance import maglev
from l4lb.balance.flowhash import flow_hash, seeds, slot_of
from l4lb.lab.traffic import Outcome
from l4lb.model import Endpoint, IPAddress


def unexplained(
    outcome: Outcome, backends: Sequence[str], removed: str, client: IPAddress, service_port: int, seed: int = 0
) -> list[tuple[int, str]]:
    """The failures of flows that were not at a backend that was taken away.

    Args:
        outcome: of requests that went on while the backend was removed, and perhaps added again.
        backends: the VIP's before, as ``address:port``, all of weight 1.
        removed: the one of them that was.
        client: where the requests came from.
        service_port: the VIP's.
        seed: the daemon's.
    """
    table = maglev.build([(backend, 1) for backend in backends], maglev.table_size(len(backends)), seed)

    def at(port: int) -> str:
        hash32 = flow_hash(Endpoint(client, port), service_port, seeds(seed))
        return backends[table[slot_of(hash32, len(table))]]

    return [(port, how) for port, how in outcome.failures if at(port) != removed]
