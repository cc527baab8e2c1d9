"""Slots against a model that remembers every flow: under any changes, no flow leaves a backend that is usable."""

import random
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from l4lb.balance.maglev import build
from l4lb.balance.slots import NOBODY, Table, follow, retarget, settle

# All of it is small, so that what can meet does meet.
SIZES = (3, 5)
BACKENDS = range(3)
HASHES = [number * 2**32 // 12 for number in range(12)]
FLOWS = st.sampled_from(HASHES)
IDLE = 1  # ticks that a flow may be silent
# Both begin in the middle of a tick, and end when one begins.
PERIOD = IDLE + 1  # of quiet, after which a slot settles
LEARNING = IDLE + 1  # in which a UDP flow without a record is taken for an old one


@dataclass
class Live:
    """A flow as it has to be: its backend, and when it was last heard of."""

    backend: int
    seen: int


class Flows(RuleBasedStateMachine):
    """A VIP and its flows.

    What is not :mod:`l4lb.balance.slots` is modelled: records and the use of previous slots as in ``bpf/select.h``,
    time as the daemon sees it, a backend's generation as the maps hold it.
    """

    is_tcp = True

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.weights = {0: 1}
        self.down: set[int] = set()
        self.generations = dict.fromkeys(BACKENDS, 0)  # a backend that comes back is another one
        self.size = SIZES[0]
        self.table = Table.settled([0] * self.size)
        self.learning_until = 0
        self.records: dict[int, tuple[int, int, int]] = {}  # by flow: backend, its generation, when last used
        self.used = bytearray()
        self.period_ends: int | None = None
        self.live: dict[int, Live] = {}

    # The program

    def packet(self, flow: int, begins: bool) -> int:
        """Where it goes, with all that follows from it."""
        current, previous = follow(self.table, flow)
        if not self.is_unsettled(flow):
            return current
        record = None if begins else self.record(flow)
        if record is not None:
            chosen = record
            self.remember(flow, chosen)
        elif self.is_tcp and not begins:
            chosen = previous
        else:
            chosen = previous if not self.is_tcp and self.now < self.learning_until else current
            if chosen != NOBODY:
                self.remember(flow, chosen)
        if chosen != current:
            self.used[flow * len(self.table.previous) >> 32] = 1
        return chosen

    def is_unsettled(self, flow: int) -> bool:
        return bool(self.table.unsettled[flow * len(self.table.current) >> 32])

    def remember(self, flow: int, backend: int) -> None:
        self.records[flow] = backend, self.generations[backend], self.now

    def record(self, flow: int) -> int | None:
        backend, generation, seen = self.records.get(flow, (NOBODY, 0, 0))
        if backend not in self.usable or generation != self.generations[backend] or self.now - seen > IDLE:
            return None
        return backend

    # The control plane

    @property
    def usable(self) -> set[int]:
        return self.weights.keys() - self.down

    def change(self) -> None:
        self.live = {flow: live for flow, live in self.live.items() if live.backend in self.usable}
        chosen = [number for number in sorted(self.usable) if self.weights[number]]
        places = build([(f"b{number}", self.weights[number]) for number in chosen], self.size, 0)
        self.table = retarget(self.table, [chosen[place] for place in places] or [NOBODY] * self.size, self.usable)
        self.used = bytearray(len(self.table.previous))
        self.learning_until = self.now + LEARNING
        self.period_ends = None

    def look(self) -> None:
        if not self.table.previous:
            return
        if self.period_ends is not None:
            if self.now < self.period_ends:
                return
            self.table = settle(self.table, bytes(self.used))
        self.used = bytearray(len(self.table.previous))
        self.period_ends = self.now + PERIOD

    @rule(backend=st.sampled_from(BACKENDS), weight=st.integers(0, 3), size=st.sampled_from(SIZES))
    def a_backend_is_added(self, backend: int, weight: int, size: int) -> None:
        if backend not in self.weights:
            self.weights[backend] = weight
            self.size = size
            self.change()

    @rule(backend=st.sampled_from(BACKENDS), size=st.sampled_from(SIZES))
    def a_backend_is_removed(self, backend: int, size: int) -> None:
        if backend in self.weights:
            del self.weights[backend]
            self.down.discard(backend)
            self.generations[backend] += 1
            self.size = size
            self.change()

    @rule(weights=st.dictionaries(st.sampled_from(BACKENDS), st.integers(0, 3), min_size=1))
    def weights_change(self, weights: dict[int, int]) -> None:
        self.weights.update({backend: weight for backend, weight in weights.items() if backend in self.weights})
        self.change()

    @rule(backend=st.sampled_from(BACKENDS))
    def a_backend_dies(self, backend: int) -> None:
        if backend in self.usable:
            self.down.add(backend)
            self.generations[backend] += 1  # its flows are lost, and none may find its way back when it recovers
            self.change()

    @precondition(lambda self: self.down)
    @rule()
    def a_backend_recovers(self) -> None:
        self.down.remove(min(self.down))
        self.change()

    # Clients

    @rule(flows=st.sets(FLOWS, min_size=1))
    def flows_begin(self, flows: set[int]) -> None:
        """Also such as have the addresses and ports of older ones; by UDP these are no others."""
        for flow in sorted(flows):
            if self.is_tcp or flow not in self.live:
                chosen = self.packet(flow, begins=self.is_tcp)
                self.live.pop(flow, None)
                if chosen != NOBODY:
                    self.live[flow] = Live(chosen, self.now)

    @rule(silent=st.lists(st.sets(FLOWS), min_size=1, max_size=3), looks_first=st.booleans())
    def ticks_pass(self, silent: list[set[int]], looks_first: bool) -> None:
        for flows in silent:
            self.a_tick_passes(flows, looks_first)

    def a_tick_passes(self, silent: set[int], looks_first: bool) -> None:
        """Some flows send, others do not; those that have not for too long are forgotten, as is right."""
        self.now += 1
        self.live = {flow: live for flow, live in self.live.items() if self.now - live.seen <= IDLE}
        if looks_first:
            self.look()
        for flow, live in self.live.items():
            if flow not in silent:
                assert self.packet(flow, begins=False) == live.backend
                live.seen = self.now
        if not looks_first:
            self.look()

    @invariant()
    def new_flows_go_to_who_may_have_them(self) -> None:
        takes = {number for number in self.usable if self.weights[number]} or {NOBODY}
        assert set(self.table.current) <= takes

    @invariant()
    def previous_backends_are_usable(self) -> None:
        """A packet is never sent to one that is gone."""
        assert {*self.table.previous} <= {*self.usable, NOBODY}

    def teardown(self) -> None:
        """Every flow that lives is still where it was, and without traffic all slots settle in the end."""
        for flow, live in self.live.items():
            assert self.packet(flow, begins=False) == live.backend
        for _ in range(2 * PERIOD + 1):
            self.now += 1
            self.look()
        assert not self.table.previous


class Datagrams(Flows):
    """UDP, where no packet says that a flow begins."""

    is_tcp = False


both = pytest.mark.parametrize("flows", [Flows, Datagrams])


@both
def test_flows_stay_where_they_are(flows: type[Flows]) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        flows, settings=settings(max_examples=100, stateful_step_count=25, deadline=None)
    )


@both
def test_long_lives(flows: type[Flows]) -> None:
    """More and longer ones of the same, for what takes many steps to go wrong."""
    for seed in range(600):
        numbers = random.Random(seed)
        machine = flows()
        for _ in range(60):
            _step(machine, numbers)
            machine.new_flows_go_to_who_may_have_them()
            machine.previous_backends_are_usable()
        machine.teardown()


def _step(machine: Flows, numbers: random.Random) -> None:
    backend, size = numbers.choice(BACKENDS), numbers.choice(SIZES)
    match numbers.randrange(10):
        case 0:
            machine.a_backend_is_added(backend=backend, weight=numbers.randrange(4), size=size)
        case 1:
            machine.a_backend_is_removed(backend=backend, size=size)
        case 2:
            machine.weights_change(weights={backend: numbers.randrange(4)})
        case 3:
            machine.a_backend_dies(backend=backend)
        case 4:
            if machine.down:
                machine.a_backend_recovers()
        case 5 | 6:
            machine.flows_begin(flows=set(numbers.sample(HASHES, 4)))
        case _:
            silent = set(numbers.sample(HASHES, numbers.choice([0, 4, 8, 12])))
            machine.a_tick_passes(silent, looks_first=numbers.random() < 0.5)


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
