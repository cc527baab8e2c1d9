"""What a plan is made of: single writes, after each of which the maps work."""

from dataclasses import dataclass

from l4lb.model import IPAddress, Protocol
from l4lb.plan import index
from l4lb.plan.records import BackendRecord, BackendSettings, Pool, RangeTable, Region, VipRecord, VipSettings


@dataclass(frozen=True, slots=True)
class WriteBackend:
    """Fill a backend's record, which nothing points to yet, and set its counters to 0."""

    number: int
    record: BackendRecord
    settings: BackendSettings
    vip: VipRecord


@dataclass(frozen=True, slots=True)
class SetBackend:
    """Change what of a backend may change under traffic."""

    number: int
    settings: BackendSettings


@dataclass(frozen=True, slots=True)
class EmptyPool:
    """Free all places of a pool, which nothing points to yet."""

    pool: Pool


@dataclass(frozen=True, slots=True)
class SetPool:
    """Give a backend's server this pool."""

    backend: int
    pool: Pool


@dataclass(frozen=True, slots=True)
class WriteTable:
    """Fill a region, which nothing points to yet."""

    region: Region
    slots: bytes


@dataclass(frozen=True, slots=True)
class WriteVip:
    """Fill a VIP's record, which nothing points to yet."""

    number: int
    record: VipRecord
    settings: VipSettings
    region: Region


@dataclass(frozen=True, slots=True)
class SetVip:
    """Change what of a VIP may change under traffic."""

    number: int
    settings: VipSettings


@dataclass(frozen=True, slots=True)
class SwitchTable:
    """Lead a VIP's traffic to another region, at once."""

    vip: int
    region: Region


@dataclass(frozen=True, slots=True)
class WriteAddress:
    """Fill the record of an address, which nothing points to yet."""

    number: int
    address: IPAddress


@dataclass(frozen=True, slots=True)
class WriteRanges:
    """Fill a stretch of the port_ranges map, which nothing points to yet."""

    table: RangeTable


@dataclass(frozen=True, slots=True)
class SwitchRanges:
    """Give an address these ranges for a protocol, at once."""

    address: int
    protocol: Protocol
    table: RangeTable


@dataclass(frozen=True, slots=True)
class WriteEntry:
    """Set one entry of the index."""

    position: index.Position
    entry: int


@dataclass(frozen=True, slots=True)
class WriteFilter:
    """Set one word of the filter before the index."""

    number: int
    word: int


@dataclass(frozen=True, slots=True)
class WaitForReaders:
    """Wait until no packet is in flight that has read what was changed before."""


@dataclass(frozen=True, slots=True)
class ClearBackend:
    """Empty a backend's record; what its counters hold is handed on."""

    number: int


@dataclass(frozen=True, slots=True)
class ClearVip:
    """Empty a VIP's record."""

    number: int


@dataclass(frozen=True, slots=True)
class ClearAddress:
    """Empty an address's record."""

    number: int


Operation = (
    WriteBackend
    | SetBackend
    | EmptyPool
    | SetPool
    | WriteTable
    | WriteVip
    | SetVip
    | SwitchTable
    | WriteAddress
    | WriteRanges
    | SwitchRanges
    | WriteEntry
    | WriteFilter
    | WaitForReaders
    | ClearBackend
    | ClearVip
    | ClearAddress
)
