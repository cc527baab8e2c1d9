"""Records of flows, as ``bpf/flows.h`` makes and judges them."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from l4lb.datapath import abi

_FLOW = struct.Struct("<QII")
_TICK_MASK = 0xFFFFFF
_STATES = abi.load().enums["flow_state"]
# How many ticks of silence a record outlives, where that is less than the VIP's idle timeout.
_LIFETIMES = {_STATES["FLOW_BEGUN"]: 60, _STATES["FLOW_CLOSING"]: 60, _STATES["FLOW_CLOSED"]: 10}


@dataclass(frozen=True, slots=True)
class Flow:
    """A record: whose (`tag`), the backend as recorded (generation << 24 | number), state and time."""

    tag: int
    backend: int
    state: int
    tick: int

    @property
    def is_begun(self) -> bool:
        """Whether nothing but a SYN, or a first datagram, was seen."""
        return self.state == _STATES["FLOW_BEGUN"]

    def is_over(self, now: int, idle: int) -> bool:
        """Whether it counts no more, at tick `now`, if a flow may be silent for `idle` ticks."""
        return (now - self.tick) & _TICK_MASK > min(idle, _LIFETIMES.get(self.state, idle))


def decode(line: bytes) -> Iterator[Flow]:
    """The records in a line of the map."""
    for tag, backend, seen in _FLOW.iter_unpack(line):
        yield Flow(tag, backend, seen >> 24, seen & _TICK_MASK)
