"""The pinned maps: what is in them as an image, and the operations of a plan as stores into memory.

The arrays are mapped into this process, so a store is seen by the next packet with no system call in between. A
store of 8 aligned bytes is one instruction, and on x86-64 no later one overtakes it.
"""

import ctypes
import mmap
import os
import struct
import sys
from array import array
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from ipaddress import IPv6Address
from pathlib import Path

from l4lb.balance.flowhash import address_words
from l4lb.balance.slots import Table
from l4lb.datapath import abi, bpf
from l4lb.datapath.checksum import difference
from l4lb.errors import L4lbError
from l4lb.model import Endpoint, IPAddress, Mode, Protocol
from l4lb.plan import index, tables
from l4lb.plan import planner as plan
from l4lb.plan.limits import Limits
from l4lb.plan.records import BackendRecord, Image, Region, TableRecord, VipRecord
from l4lb.view import Traffic

_ABI = abi.load()
_MODES = {mode: _ABI.enums["mode"][f"MODE_{mode.name}"] for mode in Mode}
_MODE_OF = {number: mode for mode, number in _MODES.items()}
_ENDPOINT, _VIP, _BACKEND = (_ABI.structs[name] for name in ("endpoint", "vip", "backend"))
_TRAFFIC = struct.Struct("<4Q")
_FLOW = struct.Struct("<QII")  # tag, backend, tick
_PROTOCOL_OFFSET = _ENDPOINT.protocol.offset
_LINE = 64


class _Array:
    """One map in memory: an array of values whose sizes are multiples of 8 bytes."""

    def __init__(self, path: Path, value_size: int, entries: int, files: ExitStack) -> None:
        fd = _open(path, value_size, entries, files)
        self._size = value_size
        self._memory = mmap.mmap(fd, -(-entries * value_size // mmap.PAGESIZE) * mmap.PAGESIZE)
        files.callback(self._memory.close)

    def read(self, number: int, length: int) -> bytes:
        """`length` bytes from the start of a value."""
        return self._memory[number * self._size : number * self._size + length]

    def write(self, number: int, data: bytes) -> None:
        """Copies `data` over the array from the start of a value; a packet may see a part of it."""
        self._memory[number * self._size : number * self._size + len(data)] = data

    def store(self, number: int, word: int, offset: int = 0) -> None:
        """Stores 8 bytes at once."""
        ctypes.c_uint64.from_buffer(self._memory, number * self._size + offset).value = word

    def used(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """The values whose byte at `offset` is not 0, by number."""
        marks = self._memory[offset :: self._size]
        return ((number, self.read(number, self._size)) for number, mark in enumerate(marks) if mark)


def _open(path: Path, value_size: int, entries: int, files: ExitStack) -> int:
    """Opens a pinned map and makes sure that it is the one expected there."""
    fd = bpf.open_pin(path)
    files.callback(os.close, fd)
    found = bpf.info(fd, bpf.MapInfo)
    if (found.value_size, found.max_entries) != (value_size, entries):
        raise L4lbError(
            f"{path} holds {found.max_entries:,} values of {found.value_size} bytes"
            f" instead of {entries:,} of {value_size}",
            "remove the pins with `l4lb unload`",
        )
    return fd


class Maps:
    """The maps pinned in one folder.

    Raises:
        L4lbError: a pin is missing or holds something else.
    """

    def __init__(self, pins: Path, limits: Limits) -> None:
        self.limits = limits
        with ExitStack() as files:
            self._index = _Array(pins / "service_index", _LINE, limits.index_lines, files)
            self._filter = _Array(pins / "service_filter", 8, index.FILTER_WORDS, files)
            self._vips = _Array(pins / "vips", ctypes.sizeof(_VIP), limits.max_vips, files)
            self._slots = _Array(pins / "slots", _LINE, limits.slot_lines, files)
            self._backends = _Array(pins / "backends", ctypes.sizeof(_BACKEND), limits.max_backends, files)
            self._ports = _Array(pins / "ports", 8, limits.max_interfaces, files)
            self._control = _Array(pins / "control", 8, 1, files)
            self._traffic = _open(pins / "traffic", _TRAFFIC.size, limits.max_backends, files)
            self._reasons = _open(pins / "reasons", 8, _ABI.enums["reason"]["REASONS"], files)
            self._flows = _open(pins / "flows", _LINE, limits.flow_lines, files)
            self._events = _open(pins / "events", 8, _ABI.enums["event"]["EVENTS"], files)
            self._egress = _open(pins / "egress", 4, limits.max_interfaces, files)
            self._files = files.pop_all()

    def close(self) -> None:
        """Lets go of the maps; they stay pinned."""
        self._files.close()

    # What a configuration decides

    def read_image(self) -> Image:
        """What is in the maps now."""
        vips: dict[int, VipRecord] = {}
        found: dict[int, TableRecord] = {}
        idle: dict[int, int] = {}
        for number, value in self._vips.used(_PROTOCOL_OFFSET):
            vip = _VIP.from_buffer_copy(value)
            vips[number] = VipRecord(*_endpoint(vip.endpoint))
            idle[number] = vip.idle
            first_line, slots = vip.table & 0xFFFFFFFF, vip.table >> 32
            _, previous_slots, _ = tables.decode_header(self._slots.read(first_line, _LINE))
            found[number] = TableRecord(tables.region_of(first_line, slots, previous_slots, self.limits))
        backends: dict[int, BackendRecord] = {}
        for number, value in self._backends.used(_BACKEND.mode.offset):
            backend = _BACKEND.from_buffer_copy(value)
            backends[number] = BackendRecord(backend.vip, *_endpoint(backend.endpoint), _MODE_OF[backend.mode])
        entries = array("Q", self._index.read(0, self.limits.index_lines * _LINE))
        used = {divmod(place, index.ENTRIES): entry for place, entry in enumerate(entries) if entry}
        words = array("Q", self._filter.read(0, index.FILTER_WORDS * 8))
        filtered = {number: word for number, word in enumerate(words) if word}
        return Image(vips, backends, found, idle, used, filtered)

    def apply(self, operation: plan.Operation) -> None:
        """Does one operation of a plan."""
        match operation:
            case plan.WriteBackend(number, record, vip):
                bpf.map_update(self._traffic, number, bytes(_TRAFFIC.size * bpf.possible_cpus()))
                generation = self._generation(number) + 1 & 0xFF
                self._backends.write(number, _backend_value(record, vip, generation))
            case plan.WriteTable(region, slots):
                self._slots.write(region.first_line, slots)
            case plan.WriteVip(number, record, region):
                self._vips.write(
                    number, bytes(_VIP(endpoint=_endpoint_value(record.endpoint, record.protocol), table=region.word))
                )
            case plan.SwitchTable(number, region):
                self._vips.store(number, region.word, _VIP.table.offset)
            case plan.SetIdle(number, ticks):
                self._vips.store(number, ticks, _VIP.idle.offset)
            case plan.WriteEntry((line, place), entry):
                self._index.store(line, entry, place * 8)
            case plan.WriteFilter(number, word):
                self._filter.store(number, word)
            case plan.WaitForReaders():
                bpf.wait_for_readers()
            case plan.ClearBackend(number):
                self._backends.write(number, bytes(_BACKEND(generation=self._generation(number))))
            case plan.ClearVip(number):
                self._vips.write(number, bytes(ctypes.sizeof(_VIP)))

    def _generation(self, number: int) -> int:
        """How many records have had this number, modulo 256; also of one that is empty."""
        return self._backends.read(number, ctypes.sizeof(_BACKEND))[_BACKEND.generation.offset]

    def read_table(self, region: Region) -> Table:
        """What a region holds."""
        current, unsettled = self._read_slots(region.first_line + 1, region.slots)
        line, slots, _ = tables.decode_header(self._slots.read(region.first_line, _LINE))
        return Table(current, unsettled, self._read_slots(line, slots)[0] if slots else ())

    def learning_until(self, region: Region) -> int:
        """The tick until which UDP flows without a record are taken for old ones."""
        return tables.decode_header(self._slots.read(region.first_line, _LINE))[2]

    def record(self, tag: int, vip: int, now: int, idle: int) -> int | None:
        """The number of the backend that a flow's record leads to, if it has one that is valid.

        Args:
            tag: the flow's.
            vip: the number of its VIP.
            now: the tick.
            idle: for how many ticks it may have been silent.
        """
        line = bpf.map_lookup(self._flows, tag >> 32 & self.limits.flow_lines - 1, _LINE)
        for found, recorded, seen in _FLOW.iter_unpack(line):
            number, generation = recorded & 0xFFFFFF, recorded >> 24
            if found == tag and now - seen & 0xFFFFFFFF <= idle and self._generation(number) == generation:
                backend = _BACKEND.from_buffer_copy(self._backends.read(number, ctypes.sizeof(_BACKEND)))
                return number if backend.mode and backend.vip == vip else None
        return None

    def begin_period(self, region: Region) -> None:
        """Forgets which previous slots were used."""
        line, slots, _ = tables.decode_header(self._slots.read(region.first_line, _LINE))
        numbers, _ = self._read_slots(line, slots)
        self._slots.write(line, tables.encode_slots(numbers, bytes(slots), self.limits))

    def used_slots(self, region: Region) -> bytes:
        """A 1 for each previous slot that was used since :meth:`begin_period`."""
        line, slots, _ = tables.decode_header(self._slots.read(region.first_line, _LINE))
        return self._read_slots(line, slots)[1]

    def settle(self, region: Region, table: Table) -> Region:
        """Marks slots as settled under traffic; answers the region, smaller if all are."""
        # Only the flags in the upper bytes change, so no packet sees half a slot.
        slots = tables.encode_slots(table.current, table.unsettled, self.limits)
        self._slots.write(region.first_line + 1, slots)
        if table.previous:
            return region
        self._slots.store(region.first_line, 0)
        bpf.wait_for_readers()
        return tables.region_of(region.first_line, region.slots, 0, self.limits)

    def _read_slots(self, first_line: int, slots: int) -> tuple[list[int], bytes]:
        return tables.decode_slots(self._slots.read(first_line, slots * self.limits.slot_bytes), self.limits)

    def events(self) -> Mapping[str, int]:
        """What happened to records of flows, all CPUs together."""
        size = 8 * bpf.possible_cpus()
        return {
            name.lower(): sum(array("Q", bpf.map_lookup(self._events, number, size)))
            for name, number in _ABI.enums["event"].items()
            if name != "EVENTS"
        }

    # What the network decides

    def set_next_hop(self, backend: int, ifindex: int, mac: bytes) -> None:
        """Leads a backend's packets to an interface and MAC address; interface 0 and 6 zero bytes: nowhere."""
        self._backends.store(backend, ifindex << 48 | int.from_bytes(mac, "little"), _BACKEND.next_hop.offset)

    def set_port(self, ifindex: int, mac: bytes, mtu: int) -> None:
        """Makes an interface one of ours, to receive from and to send by; `mtu` in bytes."""
        if ifindex >= self.limits.max_interfaces:
            raise L4lbError(
                f"interface index {ifindex} is above {self.limits.max_interfaces - 1}",
                "create the interface again after a reboot",
            )
        self._ports.store(ifindex, min(mtu, 0xFFFF) << 48 | int.from_bytes(mac, "little"))
        bpf.map_update(self._egress, ifindex, ifindex.to_bytes(4, sys.byteorder))

    def ports(self) -> list[int]:
        """The interfaces that are ours."""
        words = array("Q", self._ports.read(0, self.limits.max_interfaces * 8))
        return [ifindex for ifindex, word in enumerate(words) if word]

    def clear_port(self, ifindex: int) -> None:
        """Makes an interface none of ours."""
        self._ports.store(ifindex, 0)
        bpf.map_delete(self._egress, ifindex)

    def forget_routes(self) -> None:
        """Makes the program ask the kernel's routing table again for every client."""
        (generation,) = struct.unpack("<Q", self._control.read(0, 8))
        self._control.store(0, (generation + 1) & 0xFFFFFFFF)

    # What the program counted

    def traffic(self, backend: int) -> Traffic:
        """What a backend carried since its record was written, all CPUs together."""
        values = bpf.map_lookup(self._traffic, backend, _TRAFFIC.size * bpf.possible_cpus())
        return Traffic(*map(sum, zip(*_TRAFFIC.iter_unpack(values), strict=True)))

    def reasons(self) -> Mapping[str, int]:
        """How many packets met each named fate, all CPUs together."""
        size = 8 * bpf.possible_cpus()
        return {
            name: sum(array("Q", bpf.map_lookup(self._reasons, number, size)))
            for number, name in enumerate(abi.reason_names())
            if number
        }


def _endpoint_value(endpoint: Endpoint, protocol: Protocol) -> ctypes.Structure:
    high, low = address_words(endpoint.address)
    return _ENDPOINT(
        hi=high, lo=low, port=int.from_bytes(endpoint.port.to_bytes(2, "big"), "little"), protocol=protocol
    )


def _endpoint(value: ctypes.Structure) -> tuple[Endpoint, Protocol]:
    address = IPv6Address(struct.pack("<QQ", value.hi, value.lo))
    port = int.from_bytes(value.port.to_bytes(2, "little"), "big")
    return Endpoint(address.ipv4_mapped or address, port), Protocol(value.protocol)


def _backend_value(record: BackendRecord, vip: VipRecord, generation: int) -> bytes:
    old, new = vip.endpoint, record.endpoint
    return bytes(
        _BACKEND(
            endpoint=_endpoint_value(new, record.protocol),
            vip=record.vip,
            address_delta=difference(old.address.packed, new.address.packed),
            transport_delta=difference(_wire(old.address, old.port), _wire(new.address, new.port)),
            mode=_MODES[record.mode],
            generation=generation,
        )
    )


def _wire(address: IPAddress, port: int) -> bytes:
    return address.packed + port.to_bytes(2, "big")
