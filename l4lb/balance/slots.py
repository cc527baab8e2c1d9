"""Settled and unsettled slots: just enough memory of what a table was, for flows to keep their backends.

A slot is *settled* when every flow in it is at its current backend. When its backend changes, it becomes *unsettled*:
it remembers the previous one, to which flows go that began before the change. Flows that begin after it are recorded,
so that they keep theirs through further changes. A slot is settled again when nothing in it has gone anywhere but to
the current backend for as long as a flow may be silent.

Published relatives: Beamer (NSDI'18), JET (CoNEXT'21).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

NOBODY = -1  # the backend of a slot that has none


@dataclass(frozen=True, slots=True)
class Table:
    """A VIP's slots.

    Attributes:
        current: the backend of each slot, by number.
        unsettled: 1 for each slot that is, else 0.
        previous: where older flows are, of as many slots as the table had when it was last settled; none when all
            slots are.
    """

    current: Sequence[int]
    unsettled: bytes
    previous: Sequence[int] = ()

    @classmethod
    def settled(cls, current: Sequence[int]) -> "Table":
        """A table that has been as it is for long."""
        return cls(current, bytes(len(current)))


def retarget(old: Table, wanted: Sequence[int], usable: Collection[int]) -> Table:
    """The table that has `wanted` as its current backends and forgets no flow to a usable one.

    Args:
        old: what it was.
        wanted: the new backend of each slot; may be more or fewer slots than before.
        usable: the backends that still serve. The flows of others are lost, so their slots settle at once.
    """
    usable = frozenset(usable)
    if not old.previous:
        before: Sequence[int] = old.current
        moved_before = False
    elif len(old.previous) == len(old.current):
        before = [
            previous if unsettled else current
            for previous, current, unsettled in zip(old.previous, old.current, old.unsettled, strict=True)
        ]
        moved_before = True
    else:
        before, moved_before = old.previous, True
    if len(before) != len(wanted):
        return _resized(before, wanted, usable, moved_before)
    # A slot that was unsettled stays so, even when its first backend comes back: flows of others have records.
    was = old.unsettled if moved_before and len(old.unsettled) == len(wanted) else bytes([moved_before]) * len(wanted)
    unsettled = bytes(
        flag or (previous != new and previous in usable)
        for flag, previous, new in zip(was, before, wanted, strict=True)
    )
    if not any(unsettled):
        return Table.settled(wanted)
    return Table(
        wanted,
        unsettled,
        [previous if previous in usable else new for previous, new in zip(before, wanted, strict=True)],
    )


def _resized(before: Sequence[int], wanted: Sequence[int], usable: Collection[int], moved_before: bool) -> Table:
    """Slots of another size overlap several of the old: all of them are unsettled."""
    if not moved_before and not any(previous in usable for previous in before):
        return Table.settled(wanted)
    middle = [wanted[(2 * place + 1) * len(wanted) // (2 * len(before))] for place in range(len(before))]
    previous = [old if old in usable else new for old, new in zip(before, middle, strict=True)]
    return Table(wanted, b"\1" * len(wanted), previous)


def settle(table: Table, used: bytes) -> Table:
    """What is left unsettled after a time in which no previous slots were used but those that `used` has a 1 for."""
    if not table.previous:
        return table
    if len(table.previous) != len(table.current):
        return table if any(used) else Table.settled(table.current)
    unsettled = bytes(map(int.__and__, table.unsettled, used))
    if not any(unsettled):
        return Table.settled(table.current)
    return Table(table.current, unsettled, table.previous)


def follow(table: Table, hash32: int) -> tuple[int, int]:
    """Where a flow with this hash goes that begins now, and where one that is older than the last change."""
    slot = hash32 * len(table.current) >> 32
    current = table.current[slot]
    if not table.unsettled[slot]:
        return current, current
    return current, table.previous[hash32 * len(table.previous) >> 32]
