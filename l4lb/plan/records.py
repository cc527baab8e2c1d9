"""What the maps hold, as values: the numbers in them are positions in the kernel's arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from l4lb.model import Endpoint, Mode, Protocol


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of the slots map: a VIP's table.

    Attributes:
        slots: how many; 0 for a VIP without a backend to choose.
        lines: how many lines it takes, with its header and the previous slots.
    """

    first_line: int
    slots: int
    lines: int

    @property
    def word(self) -> int:
        """As ``struct vip`` holds it, in one word that changes at once."""
        return self.slots << 32 | self.first_line


EMPTY = Region(0, 0, 0)


@dataclass(frozen=True, slots=True)
class VipRecord:
    """A VIP as the program sees it."""

    endpoint: Endpoint
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class BackendRecord:
    """A backend of one VIP as the program sees it. What changes in it makes another record under another number."""

    vip: int
    endpoint: Endpoint
    protocol: Protocol
    mode: Mode


@dataclass(frozen=True, slots=True)
class TableSource:
    """All that a table depends on: equal sources make equal tables.

    Attributes:
        members: (backend number, identity, weight) of each backend, by number.
    """

    members: tuple[tuple[int, str, int], ...]
    seed: int


@dataclass(frozen=True, slots=True)
class TableRecord:
    """A VIP's table: where it is, and what it was made from; None for one that was found in the maps."""

    region: Region
    source: TableSource | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """Everything in the maps that a configuration decides.

    Attributes:
        vips, backends, tables: by number; tables by their VIP's.
        idle: for how many ticks a VIP's flows may be silent, by its number.
        index: the entries in use, by (line, position).
        filter: the words that are not 0, by position.
    """

    vips: Mapping[int, VipRecord] = field(default_factory=dict)
    backends: Mapping[int, BackendRecord] = field(default_factory=dict)
    tables: Mapping[int, TableRecord] = field(default_factory=dict)
    idle: Mapping[int, int] = field(default_factory=dict)
    index: Mapping[tuple[int, int], int] = field(default_factory=dict)
    filter: Mapping[int, int] = field(default_factory=dict)
