"""Slots against a model that remembers every flow: under any changes, no flow leaves a backend that is usable."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from l4lb.balance.slots import NOBODY, Table, follow, retarget, settle

SIZES = (4, 6, 32)
BACKENDS = range(5)
HASHES = st.integers(0, 2**32 - 1)


class Flows(RuleBasedStateMachine):
    """The program's part (records, use of previous slots) is modelled as bpf/select.h does it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Table.settled([0] * SIZES[0])
        self.usable = {0}
        self.flows: dict[int, int] = {}  # every live flow's backend, by hash: what must hold
        self.records: dict[int, tuple[int, int]] = {}  # backend and its generation
        self.generations = dict.fromkeys(BACKENDS, 0)  # a backend that comes back is another one
        self.used = bytearray()

    def packet(self, flow: int, begins: bool) -> int:
        current, previous = follow(self.table, flow)
        slot = flow * len(self.table.current) >> 32
        chosen = current
        if self.table.unsettled[slot]:
            if begins:
                if current != NOBODY:
                    self.records[flow] = current, self.generations[current]
            elif flow in self.records and self.is_there(*self.records[flow]):
                chosen, _ = self.records[flow]
            else:
                chosen = previous
            if chosen != current:
                self.used[flow * len(self.table.previous) >> 32] = 1
        return chosen

    def is_there(self, backend: int, generation: int) -> bool:
        return backend in self.usable and self.generations[backend] == generation

    def change(self, wanted: list[int]) -> None:
        self.table = retarget(self.table, wanted, self.usable)
        self.used = bytearray(len(self.table.previous))

    @rule(flow=HASHES)
    def a_flow_begins(self, flow: int) -> None:
        chosen = self.packet(flow, begins=True)
        if chosen == NOBODY:
            self.flows.pop(flow, None)
        else:
            self.flows[flow] = chosen

    @rule(
        usable=st.sets(st.sampled_from(BACKENDS)),
        size=st.sampled_from(SIZES),
        pattern=st.lists(st.integers(0, 100), min_size=1, max_size=8),
        weightless=st.sets(st.sampled_from(BACKENDS)),
    )
    def the_backends_change(self, usable: set[int], size: int, pattern: list[int], weightless: set[int]) -> None:
        for gone in self.usable - usable:
            self.generations[gone] += 1
        self.usable = usable
        self.flows = {flow: backend for flow, backend in self.flows.items() if backend in usable}
        chosen = sorted(usable - weightless)
        wanted = [chosen[pattern[slot % len(pattern)] % len(chosen)] if chosen else NOBODY for slot in range(size)]
        self.change(wanted)

    @precondition(lambda self: self.table.previous)
    @rule(quiet=st.sets(HASHES))
    def a_period_passes(self, quiet: set[int]) -> None:
        """All flows but some send; the silent ones are forgotten, as is right after so long."""
        self.used = bytearray(len(self.table.previous))
        for flow in list(self.flows):
            if flow in quiet:
                del self.flows[flow]
                self.records.pop(flow, None)
            else:
                self.packet(flow, begins=False)
        self.records = {flow: backend for flow, backend in self.records.items() if flow in self.flows}
        self.table = settle(self.table, bytes(self.used))
        self.used = bytearray(len(self.table.previous))

    @invariant()
    def every_flow_is_where_it_was(self) -> None:
        for flow, backend in self.flows.items():
            assert self.packet(flow, begins=False) == backend


Flows.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestFlows = Flows.TestCase


def test_what_did_not_change_stays_settled() -> None:
    table = retarget(Table.settled([0, 1, 2, 0]), [0, 1, 0, 0], {0, 1, 2})
    assert table == Table([0, 1, 0, 0], bytes([0, 0, 1, 0]), [0, 1, 2, 0])


def test_slots_of_a_lost_backend_settle_at_once() -> None:
    assert retarget(Table.settled([0, 1, 2, 0]), [0, 1, 0, 0], {0, 1}) == Table.settled([0, 1, 0, 0])


def test_a_used_slot_stays_unsettled() -> None:
    table = Table([0, 0, 0], bytes([1, 1, 0]), [1, 2, 0])
    assert settle(table, bytes([1, 0, 0])) == Table([0, 0, 0], bytes([1, 0, 0]), [1, 2, 0])
    assert settle(table, bytes([0, 0, 0])) == Table.settled([0, 0, 0])
    assert settle(table, bytes([0, 0, 1])) == Table.settled([0, 0, 0])


def test_the_first_previous_backend_is_kept_through_further_changes() -> None:
    first = retarget(Table.settled([0]), [1], {0, 1, 2})
    assert retarget(first, [2], {0, 1, 2}) == Table([2], b"\1", [0])
    assert retarget(first, [0], {0, 1, 2}) == Table([0], b"\1", [0]), "flows of the one in between have records"
