"""What the maps hold, as values: the numbers in them are positions in the kernel's arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from l4lb.model import GUE_PORT, Endpoint, IPAddress, Mode, Protocol, Scheduler, Service


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of the slots map: a VIP's table.

    Attributes:
        slots: how many; 0 for a VIP without a backend to choose.
        previous: how many previous slots; 0 if all slots are settled.
        lines: how many lines it takes, with its header, turns and previous slots.
    """

    first_line: int
    slots: int
    previous: int
    lines: int

    @property
    def word(self) -> int:
        """As ``struct vip`` holds it, in one word that changes at once."""
        return self.slots << 32 | self.first_line


EMPTY = Region(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class VipRecord:
    """A VIP as the program sees it: what does not change as long as it has its number."""

    service: Service


@dataclass(frozen=True, slots=True)
class VipSettings:
    """What of a VIP may change under traffic.

    Attributes:
        idle_ticks: for how long a flow may be silent.
        mss: the largest segment in bytes that SYNs may announce; 0: any.
        client_bits: of an address of 16 bytes (IPv4: mapped), how many source-hash goes by.
        refuses: whether a client is told if there is no backend for it.
    """

    idle_ticks: int
    scheduler: Scheduler
    mss: int
    client_bits: int
    refuses: bool = False


@dataclass(frozen=True, slots=True)
class BackendRecord:
    """A backend of one VIP as the program sees it. What changes in it makes another record under another number."""

    vip: int
    endpoint: Endpoint
    protocol: Protocol
    mode: Mode

    @property
    def server(self) -> "Server":
        """Whom its answers come from."""
        return self.endpoint, self.protocol


Server = tuple[Endpoint, Protocol]


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """What of a backend may change under traffic.

    Attributes:
        shared: whether its server answers for other VIPs too, by nat.
        gue_port: UDP port that it takes tunnelled packets at.
        watch: where its handshakes are counted; 0: nowhere.
    """

    shared: bool = False
    gue_port: int = GUE_PORT
    watch: int = 0


@dataclass(frozen=True, slots=True)
class Pool:
    """Places for the connections to a server: a stretch of the connections map. `size` is a power of two."""

    first: int
    size: int

    @property
    def word(self) -> int:
        """As ``struct pool`` holds it."""
        return self.size << 32 | self.first


@dataclass(frozen=True, slots=True)
class RangeTable:
    """Which VIP takes which ports of an address: a stretch of the port_ranges map.

    Attributes:
        ranges: (first port, VIP's number or None) in order; each lasts until the next begins.
    """

    first_line: int = 0
    ranges: tuple[tuple[int, int | None], ...] = ()

    @property
    def word(self) -> int:
        """As ``struct address`` holds it, in one word that changes at once."""
        return len(self.ranges) << 32 | self.first_line


@dataclass(frozen=True, slots=True)
class TableSource:
    """All that a table depends on: equal sources make equal tables.

    Attributes:
        members: (backend number, identity, weight) of each backend, by number.
        size: how many slots, if any member has a weight.
        turns: the scheduler that the table has turns for, if that needs any.
    """

    members: tuple[tuple[int, str, int], ...]
    seed: int
    size: int
    turns: Scheduler | None = None


@dataclass(frozen=True, slots=True)
class TableRecord:
    """A VIP's table: where it is, and what it was made from; None for one that was found in the maps."""

    region: Region
    source: TableSource | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """Everything in the maps that a configuration decides.

    Attributes:
        vips, vip_settings, tables: by the VIP's number.
        backends, backend_settings, pools: by the backend's number.
        addresses: those that have VIPs, by number.
        ranges: for VIPs of several ports, by the number of the address and the protocol; none that is empty.
        index: the entries in use, by (line, position).
        filter: the words that are not 0, by position.
    """

    vips: Mapping[int, VipRecord] = field(default_factory=dict)
    vip_settings: Mapping[int, VipSettings] = field(default_factory=dict)
    tables: Mapping[int, TableRecord] = field(default_factory=dict)
    backends: Mapping[int, BackendRecord] = field(default_factory=dict)
    backend_settings: Mapping[int, BackendSettings] = field(default_factory=dict)
    pools: Mapping[int, Pool] = field(default_factory=dict)
    addresses: Mapping[int, IPAddress] = field(default_factory=dict)
    ranges: Mapping[tuple[int, Protocol], RangeTable] = field(default_factory=dict)
    index: Mapping[tuple[int, int], int] = field(default_factory=dict)
    filter: Mapping[int, int] = field(default_factory=dict)
