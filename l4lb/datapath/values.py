"""Values of the maps, to and from bytes, as ``bpf/abi.h`` lays them out."""

import ctypes
import struct
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from l4lb.balance.flowhash import address_words
from l4lb.datapath import abi
from l4lb.datapath.checksum import difference, sum_words
from l4lb.datapath.links import Link
from l4lb.model import Endpoint, IPAddress, Mode, Protocol, Scheduler, Service
from l4lb.plan.records import BackendRecord, BackendSettings, Region, VipRecord, VipSettings

_ABI = abi.load()
ENDPOINT, VIP, ADDRESS, BACKEND, CONTROL = (
    _ABI.structs[name] for name in ("endpoint", "vip", "address", "backend", "control")
)
SIZES = {name: ctypes.sizeof(struct_) for name, struct_ in _ABI.structs.items()}
_MODES = {mode: _ABI.enums["mode"][f"MODE_{mode.name}"] for mode in Mode}
_MODE_OF = {number: mode for mode, number in _MODES.items()}
_SCHEDULERS = {scheduler: _ABI.enums["scheduler"][f"SCHEDULER_{scheduler.name}"] for scheduler in Scheduler}
_SCHEDULER_OF = {number: scheduler for scheduler, number in _SCHEDULERS.items()}
_FLAGS = _ABI.enums["backend_flag"]
_REFUSES = _ABI.enums["vip_flag"]["VIP_REFUSES"]
_TAG_PRESENT = 0x8000  # in bpf/forward.h

# Fields that are stored together, in one word: where it begins.
_BACKEND_WORD = BACKEND.port.offset  # port to room
_SOURCE_WORD = BACKEND.source_mask.offset  # source_mask to the end


def endpoint_value(endpoint: Endpoint, protocol: int) -> ctypes.Structure:
    """``struct endpoint``."""
    high, low = address_words(endpoint.address)
    return ENDPOINT(hi=high, lo=low, port=_big_endian(endpoint.port), protocol=protocol)


def address_of(high: int, low: int) -> IPAddress:
    """An address from the two words in which maps hold it."""
    address = IPv6Address(struct.pack("<QQ", high, low))
    return address.ipv4_mapped or address


def _big_endian(port: int) -> int:
    """A port as it lies in a packet, read as a little-endian number; and back."""
    return int.from_bytes(port.to_bytes(2, "big"), "little")


def vip_value(record: VipRecord, settings: VipSettings, region: Region) -> bytes:
    """``struct vip``."""
    service = record.service
    vip = VIP(
        endpoint=endpoint_value(service.endpoint, service.protocol),
        table=region.word,
        last_port=0 if service.is_single else service.last_port,
    )
    _set_vip(vip, settings)
    return bytes(vip)


def _set_vip(vip: Any, settings: VipSettings) -> None:
    vip.idle = settings.idle_ticks
    vip.mask_hi, vip.mask_lo = client_masks(settings.client_bits)
    vip.scheduler = _SCHEDULERS[settings.scheduler]
    vip.flags = _REFUSES if settings.refuses else 0
    vip.mss = settings.mss


def client_masks(bits: int) -> tuple[int, int]:
    """The masks that let through so many bits of an address, as they lie in memory."""
    packed = ((1 << 128) - (1 << 128 - bits)).to_bytes(16, "big")
    return int.from_bytes(packed[:8], "little"), int.from_bytes(packed[8:], "little")


def vip_words(value: bytes, settings: VipSettings) -> dict[int, int]:
    """The words of a ``struct vip`` that hold its settings, by their offsets."""
    vip = VIP.from_buffer_copy(value)
    _set_vip(vip, settings)
    return _words(bytes(vip), VIP.idle.offset, VIP.mask_hi.offset, VIP.mask_lo.offset, VIP.scheduler.offset)


def vip_of(value: bytes) -> tuple[VipRecord, VipSettings, int]:
    """Record, settings and table word from a ``struct vip``."""
    vip = VIP.from_buffer_copy(value)
    first = _big_endian(vip.endpoint.port)
    address = address_of(vip.endpoint.hi, vip.endpoint.lo)
    service = Service(address, first, vip.last_port or first, Protocol(vip.endpoint.protocol))
    bits = (vip.mask_hi << 64 | vip.mask_lo).bit_count()
    refuses = bool(vip.flags & _REFUSES)
    return VipRecord(service), VipSettings(vip.idle, _SCHEDULER_OF[vip.scheduler], vip.mss, bits, refuses), vip.table


def address_value(address: IPAddress) -> bytes:
    """``struct address``, with no ranges yet."""
    return bytes(ADDRESS(endpoint=endpoint_value(Endpoint(address, 0), 0), used=1))


def backend_value(record: BackendRecord, settings: BackendSettings, vip: VipRecord, generation: int) -> bytes:
    """``struct backend``, with no next hop and no source yet."""
    high, low = address_words(record.endpoint.address)
    backend = BACKEND(
        hi=high,
        lo=low,
        port=_big_endian(record.endpoint.port),
        protocol=record.protocol,
        mode=_MODES[record.mode],
        generation=generation,
        vip=record.vip,
        address_delta=_address_delta(vip.service.address, record),
        outer_sum=_outer_sum(record),
    )
    _set_backend(backend, record, settings)
    return bytes(backend)


def _set_backend(backend: Any, record: BackendRecord, settings: BackendSettings) -> None:
    backend.flags = _FLAGS["BACKEND_IPV6"] if record.endpoint.address.version == 6 else 0
    backend.flags |= _FLAGS["BACKEND_SHARED"] if settings.shared else 0
    backend.tunnel_port = _big_endian(settings.gue_port)
    backend.watch = settings.watch


def backend_of(value: bytes) -> tuple[BackendRecord, BackendSettings]:
    """Record and settings from a ``struct backend``."""
    backend = BACKEND.from_buffer_copy(value)
    endpoint = Endpoint(address_of(backend.hi, backend.lo), _big_endian(backend.port))
    shared = bool(backend.flags & _FLAGS["BACKEND_SHARED"])
    return (
        BackendRecord(backend.vip, endpoint, Protocol(backend.protocol), _MODE_OF[backend.mode]),
        BackendSettings(shared, _big_endian(backend.tunnel_port), backend.watch),
    )


def setting_words(value: bytes, settings: BackendSettings) -> dict[int, int]:
    """The words of a ``struct backend`` that hold its settings, by their offsets."""
    record, _ = backend_of(value)
    backend = BACKEND.from_buffer_copy(value)
    _set_backend(backend, record, settings)
    return _words(bytes(backend), _BACKEND_WORD, BACKEND.vip.offset, _SOURCE_WORD)


def no_backend(generation: int) -> bytes:
    """A ``struct backend`` that stands for none; it remembers how many had the number."""
    return bytes(BACKEND(generation=generation))


def _words(value: bytes, *offsets: int) -> dict[int, int]:
    return {offset: int.from_bytes(value[offset : offset + 8], "little") for offset in offsets}


def _address_delta(vip: IPAddress, record: BackendRecord) -> int:
    """What translating the VIP's address into the backend's adds to a sum; a tunnel translates nothing."""
    if not record.mode.translates:
        return 0
    return difference(vip.packed, record.endpoint.address.packed)


def _outer_sum(record: BackendRecord) -> int:
    """What all outer IPv4 headers to the backend have in common: version, DF, TTL 64, GUE's protocol, destination."""
    if not record.mode.tunnels or record.endpoint.address.version == 6:
        return 0
    header = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 0, 0, 0x4000, 64, 17 if record.mode is Mode.GUE else 0, 0, bytes(4)),
        record.endpoint.address.packed,
    )
    return sum_words(header)


@dataclass(frozen=True, slots=True)
class Way:
    """How packets leave for a backend.

    Attributes:
        ifindex, mac: the next hop.
        room: the longest IP packet that can be sent there, without outer headers, in bytes.
        source: of outer headers, and by fullnat; the first, if there are several.
        source_mask: which of its last 32 bits are a flow's own.
    """

    ifindex: int
    mac: bytes
    room: int
    source: IPAddress | None
    source_mask: int


def way_words(value: bytes, way: Way | None) -> dict[int, int]:
    """The words of a ``struct backend`` that lead its packets that way, or nowhere, by their offsets, in order."""
    backend = BACKEND.from_buffer_copy(value)
    if way is None:
        return {BACKEND.next_hop.offset: 0}
    backend.room = min(way.room, 0xFFFF)
    if way.source is not None:
        backend.source_hi, backend.source_lo = address_words(way.source)
        backend.source_mask = int.from_bytes(way.source_mask.to_bytes(4, "big"), "little")
    backend.next_hop = way.ifindex << 48 | int.from_bytes(way.mac, "little")
    return _words(
        bytes(backend),
        _BACKEND_WORD,
        BACKEND.source_hi.offset,
        BACKEND.source_lo.offset,
        _SOURCE_WORD,
        BACKEND.next_hop.offset,
    )


def port_words(link: Link) -> tuple[int, int]:
    """The two words of a ``struct port``."""
    tags = [_TAG_PRESENT | tag for tag in link.tags]
    outer, inner = (*tags, 0, 0)[:2]
    word = min(link.mtu, 0xFFFF) << 48 | int.from_bytes(link.mac, "little")
    return word, outer << 48 | inner << 32 | link.parent
