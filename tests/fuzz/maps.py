"""The program's memory and counters, as the fuzzer handles them: emptied, made older, read one by one."""

import struct
import time
from array import array
from contextlib import ExitStack

from l4lb.datapath import abi, bpf, values
from l4lb.datapath.arrays import MappedArray
from l4lb.lab.testbed import Testbed
from tests.reference.world import Way

TICKS = 0xFFFFFF  # what is kept of a tick
_LINE = 64
_RECORDS = struct.Struct("<" + "QII" * 4)
_CONNECTION = struct.Struct("<QQHHIQ")
_MONOTONIC_COARSE = 6  # uapi/linux/time.h; Python has no name for it


def tick() -> int:
    """The time as the program has it."""
    return time.clock_gettime_ns(_MONOTONIC_COARSE) >> 30


class Memory:
    """What the program keeps of packets: connections, flows, fragments, and how many it has answered."""

    def __init__(self, bed: Testbed, files: ExitStack) -> None:
        self._limits, folder = bed.limits, bed.pins / "maps"
        self._bed = bed
        self._connections = MappedArray(
            folder / "connections", values.SIZES["connection"], bed.limits.max_connections, files
        )
        self._lines = []
        for name, count in (("flows", bed.limits.flow_lines), ("fragments", bed.limits.fragment_lines)):
            self._lines.append((files.enter_context(bpf.opened(folder / name)), count))
        self._answers = files.enter_context(bpf.opened(folder / "answers"))

    def empty(self) -> None:
        """Forgets everything."""
        for first, size in self._pools():
            self._connections.write(first, bytes(size * values.SIZES["connection"]))
        for fd, count in self._lines:
            nothing = bytes(_LINE)
            for number in range(count):
                bpf.map_update(fd, number, nothing)
        self.allow_answers()

    def allow_answers(self) -> None:
        """Begins a new period of the limit on answers to packets that are too long."""
        bpf.map_update(self._answers, 0, bytes(8 * bpf.possible_cpus()))

    def age(self, ticks: int) -> None:
        """Makes all that is remembered so much older."""
        size = values.SIZES["connection"]
        for first, places in self._pools():
            data = self._connections.read(first, places * size)
            aged = bytearray()
            for *others, state in _CONNECTION.iter_unpack(data):
                seen = (state >> 32 & TICKS) - ticks & TICKS
                aged += _CONNECTION.pack(*others, state & ~(TICKS << 32) | seen << 32 if state else 0)
            self._connections.write(first, bytes(aged))
        for fd, count in self._lines:
            for number in range(count):
                line = bpf.map_lookup(fd, number, _LINE)
                if any(line):
                    bpf.map_update(fd, number, _aged(line, ticks))

    def _pools(self) -> set[tuple[int, int]]:
        return {(pool.first, pool.size) for pool in self._bed.image.pools.values()}


def _aged(line: bytes, ticks: int) -> bytes:
    fields = list(_RECORDS.unpack(line))
    for place in range(2, len(fields), 3):
        if fields[place - 2]:
            fields[place] = fields[place] & ~TICKS | (fields[place] - ticks & TICKS)
    return _RECORDS.pack(*fields)


Account = str | tuple[int, Way]
"""Whom a packet is charged to: a reason, or a backend by its number."""


class Counters:
    """The program's counters, one at a time: reading all of them for each packet would take most of the time."""

    def __init__(self, bed: Testbed, files: ExitStack) -> None:
        folder = bed.pins / "maps"
        self._reasons = files.enter_context(bpf.opened(folder / "reasons"))
        self._traffic = files.enter_context(bpf.opened(folder / "traffic"))
        self._numbers = {name: number for number, name in enumerate(abi.reason_names()) if number}
        ways: tuple[Way, ...] = ("to_vip", "from_backend")
        self.accounts: tuple[Account, ...] = (
            *self._numbers,
            *((backend, way) for backend in bed.image.backends for way in ways),
        )

    def packets(self, account: Account) -> int:
        """How many were charged to an account."""
        if isinstance(account, str):
            return sum(array("Q", bpf.map_lookup(self._reasons, self._numbers[account], 8 * bpf.possible_cpus())))
        return self._of_backend(account)[0]

    def bytes(self, account: Account) -> int:
        """How many bytes they had: of backends only."""
        return 0 if isinstance(account, str) else self._of_backend(account)[1]

    def _of_backend(self, account: tuple[int, Way]) -> tuple[int, int]:
        number, way = account
        words = array("Q", bpf.map_lookup(self._traffic, number, 32 * bpf.possible_cpus()))
        first = 0 if way == "to_vip" else 2
        return sum(words[first::4]), sum(words[first + 1 :: 4])
