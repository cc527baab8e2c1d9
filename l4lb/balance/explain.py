"""What the program would do with a packet now, and why: ``choose()`` in ``bpf/select.h`` as a pure function."""

import enum
from dataclasses import dataclass

from l4lb.balance.slots import NOBODY, Table, follow
from l4lb.model import Protocol


class Why(enum.StrEnum):
    """Why a flow has its backend."""

    SETTLED = "settled"  # its slot is: all flows in it are at this backend
    TRACKED = "tracked"  # its record says so
    PREVIOUS = "previous"  # it has no record, so it is older than the last change of its slot
    NEW = "new"  # it begins, or may begin, after the last change of its slot
    NO_BACKEND = "no_backend"  # no backend takes it


@dataclass(frozen=True, slots=True)
class Explanation:
    """The number of the backend, None if there is none, and why."""

    backend: int | None
    why: Why


def explain(
    table: Table, hash32: int, protocol: Protocol, begins: bool, record: int | None, learning: bool
) -> Explanation:
    """What becomes of a packet.

    Args:
        table: the VIP's, with at least one slot.
        hash32: the flow's.
        protocol: the flow's.
        begins: whether the packet is the SYN of a TCP connection.
        record: the backend in the flow's record, if it has one that is valid.
        learning: whether UDP flows without a record are still taken for old ones.
    """
    current, previous = follow(table, hash32)
    if not table.unsettled[hash32 * len(table.current) >> 32]:
        chosen, why = current, Why.SETTLED
    elif record is not None and not begins:
        chosen, why = record, Why.TRACKED
    elif not begins and (protocol is Protocol.TCP or learning):
        chosen, why = previous, Why.PREVIOUS
    else:
        chosen, why = current, Why.NEW
    return Explanation(None, Why.NO_BACKEND) if chosen == NOBODY else Explanation(chosen, why)
