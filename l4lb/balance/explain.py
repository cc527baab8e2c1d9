"""What the program would do with a packet now, and why: ``choose()`` in ``bpf/choose.h`` as a pure function."""

import enum
from dataclasses import dataclass

from l4lb.balance.flowhash import slot_of
from l4lb.balance.slots import NOBODY, Table, follow
from l4lb.model import Protocol, Scheduler


class Why(enum.StrEnum):
    """Why a flow has its backend."""

    SETTLED = "settled"  # its slot is: all flows in it are at this backend
    TRACKED = "tracked"  # its record says so
    PREVIOUS = "previous"  # it has no record, so it is older than the last change of its slot
    NEW = "new"  # it begins, or may begin, after the last change of its slot
    ROUND_ROBIN = "round_robin"  # the next in turn, which the packet itself will tell
    LEAST_CONNECTIONS = "least_connections"  # the one with the fewest for its weight when the packet comes
    RANDOM = "random"  # chance will tell
    NO_BACKEND = "no_backend"  # no backend takes it


@dataclass(frozen=True, slots=True)
class Explanation:
    """The number of the backend, None if there is none, and why."""

    backend: int | None
    why: Why


@dataclass(frozen=True, slots=True)
class Flow:
    """A packet's flow, and what is known of it.

    Attributes:
        slot_hash: 32 bits, which choose its slot.
        begins: whether the packet is the SYN of a TCP connection.
        record: the backend in the flow's record, if it has one that is valid.
        learning: whether UDP flows without a record are still taken for old ones.
        begun: whether nothing but a SYN has been seen of the flow that has the record, so that another is the same one.
    """

    slot_hash: int
    protocol: Protocol
    begins: bool
    record: int | None
    learning: bool
    begun: bool = False


_BY_CHANCE = {
    Scheduler.ROUND_ROBIN: Why.ROUND_ROBIN,
    Scheduler.LEAST_CONNECTIONS: Why.LEAST_CONNECTIONS,
    Scheduler.RANDOM: Why.RANDOM,
}


def explain(table: Table, scheduler: Scheduler, flow: Flow) -> Explanation:
    """What becomes of a packet to a VIP with this table, of at least one slot."""
    current, previous = follow(table, flow.slot_hash)
    by_chance = scheduler in _BY_CHANCE
    known = flow.record is not None and (not flow.begins or (by_chance and flow.begun))
    if by_chance and not known and (flow.begins or flow.protocol is Protocol.UDP):
        # A slot of nobody's says that no backend takes new flows, so the scheduler has none to choose.
        return Explanation(None, Why.NO_BACKEND if current == NOBODY else _BY_CHANCE[scheduler])
    if known and (by_chance or table.unsettled[slot_of(flow.slot_hash, len(table.current))]):
        chosen, why = flow.record, Why.TRACKED
    elif not table.unsettled[slot_of(flow.slot_hash, len(table.current))]:
        chosen, why = current, Why.SETTLED
    elif not flow.begins and (flow.protocol is Protocol.TCP or flow.learning):
        chosen, why = previous, Why.PREVIOUS
    else:
        chosen, why = current, Why.NEW
    return Explanation(None, Why.NO_BACKEND) if chosen in (NOBODY, None) else Explanation(chosen, why)
