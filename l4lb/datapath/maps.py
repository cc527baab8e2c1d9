"""The pinned maps: what is in them as an image, and the operations of a plan as stores into memory."""

import struct
import sys
from array import array
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from l4lb.balance.slots import Table
from l4lb.datapath import abi, bpf, flows, values
from l4lb.datapath.arrays import MappedArray, counters, open_array
from l4lb.datapath.links import Link
from l4lb.errors import L4lbError
from l4lb.health.handshakes import BUCKETS, Handshakes
from l4lb.model import Protocol
from l4lb.plan import index, ranges, tables
from l4lb.plan import operations as plan
from l4lb.plan.limits import Limits
from l4lb.plan.records import Image, Pool, Region, TableRecord
from l4lb.view import Traffic

_ABI = abi.load()
_HANDSHAKES = struct.Struct("<6Q16x32I")
_TRAFFIC = struct.Struct("<4Q")
_PORT = struct.Struct("<QQ")
_LINE = 64


class Maps:
    """The maps pinned in one folder.

    Raises:
        L4lbError: a pin is missing or holds something else.
    """

    def __init__(self, pins: Path, limits: Limits) -> None:
        self.limits = limits
        sizes = values.SIZES
        with ExitStack() as files:

            def mapped(name: str, value_size: int, entries: int) -> MappedArray:
                return MappedArray(pins / name, value_size, entries, files)

            def opened(name: str, value_size: int, entries: int) -> int:
                return open_array(pins / name, value_size, entries, files)

            self._index = mapped("service_index", _LINE, limits.index_lines)
            self._filter = mapped("service_filter", 8, index.FILTER_WORDS)
            self._vips = mapped("vips", sizes["vip"], limits.max_vips)
            self._addresses = mapped("addresses", sizes["address"], limits.max_vips)
            self._ranges = mapped("port_ranges", _LINE, limits.range_lines)
            self._slots = mapped("slots", _LINE, limits.slot_lines)
            self._backends = mapped("backends", sizes["backend"], limits.max_backends)
            self._pools = mapped("pools", sizes["pool"], limits.max_backends)
            self._ports = mapped("ports", sizes["port"], limits.max_interfaces)
            self._control = mapped("control", sizes["control"], 1)
            self._connections = mapped("connections", sizes["connection"], limits.max_connections)
            self._traffic = opened("traffic", _TRAFFIC.size, limits.max_backends)
            self._loads = opened("loads", 8, limits.max_backends)
            self._handshakes = opened("handshakes", sizes["handshakes"], limits.max_watched)
            self._reasons = opened("reasons", 8, _ABI.enums["reason"]["REASONS"])
            self._flows = opened("flows", _LINE, limits.flow_lines)
            self._events = opened("events", 8, _ABI.enums["event"]["EVENTS"])
            self._egress = opened("egress", 4, limits.max_interfaces)
            self._files = files.pop_all()

    def close(self) -> None:
        """Lets go of the maps; they stay pinned."""
        self._files.close()

    # What a configuration decides

    def read_image(self) -> Image:
        """What is in the maps now."""
        vips, vip_settings, found = {}, {}, {}
        for number, value in self._vips.used(values.VIP.endpoint.offset + values.ENDPOINT.protocol.offset):
            vips[number], vip_settings[number], word = values.vip_of(value)
            region = tables.region_at(word & 0xFFFFFFFF, word >> 32, self._slots.read, self.limits)
            found[number] = TableRecord(region)
        backends, backend_settings, pools = {}, {}, {}
        for number, value in self._backends.used(values.BACKEND.mode.offset):
            backends[number], backend_settings[number] = values.backend_of(value)
        for number, word in enumerate(array("Q", self._pools.read(0, self.limits.max_backends * 8))):
            if word:
                pools[number] = Pool(word & 0xFFFFFFFF, word >> 32)
        addresses, wide = {}, {}
        for number, value in self._addresses.used(values.ADDRESS.used.offset):
            record = values.ADDRESS.from_buffer_copy(value)
            addresses[number] = values.address_of(record.endpoint.hi, record.endpoint.lo)
            for protocol, word in ((Protocol.TCP, record.tcp_ranges), (Protocol.UDP, record.udp_ranges)):
                if word >> 32:
                    wide[number, protocol] = ranges.decode(word, self._ranges.read)
        entries = array("Q", self._index.read(0, self.limits.index_lines * _LINE))
        words = array("Q", self._filter.read(0, index.FILTER_WORDS * 8))
        return Image(
            vips=vips,
            vip_settings=vip_settings,
            tables=found,
            backends=backends,
            backend_settings=backend_settings,
            pools=pools,
            addresses=addresses,
            ranges=wide,
            index={divmod(place, index.ENTRIES): entry for place, entry in enumerate(entries) if entry},
            filter={number: word for number, word in enumerate(words) if word},
        )

    def apply(self, operation: plan.Operation) -> None:
        """Does one operation of a plan."""
        match operation:
            case plan.WriteBackend(number, record, settings, vip):
                bpf.map_update(self._traffic, number, bytes(_TRAFFIC.size * bpf.possible_cpus()))
                bpf.map_update(self._loads, number, bytes(8))
                self._begin_watching(settings.watch)
                generation = self._generation(number) + 1 & 0xFF
                self._backends.write(number, values.backend_value(record, settings, vip, generation))
            case plan.SetBackend(number, settings):
                value = self._backend(number)
                if values.backend_of(value)[1].watch != settings.watch:
                    self._begin_watching(settings.watch)
                _store(self._backends, number, values.setting_words(value, settings))
            case plan.EmptyPool(pool):
                self._connections.write(pool.first, bytes(pool.size * values.SIZES["connection"]))
            case plan.SetPool(number, pool):
                self._pools.store(number, pool.word)
            case plan.WriteTable(region, slots):
                self._slots.write(region.first_line, slots)
            case plan.WriteVip(number, record, settings, region):
                self._vips.write(number, values.vip_value(record, settings, region))
            case plan.SetVip(number, settings):
                _store(self._vips, number, values.vip_words(self._vips.read(number, values.SIZES["vip"]), settings))
            case plan.SwitchTable(number, region):
                self._vips.store(number, region.word, values.VIP.table.offset)
            case plan.WriteAddress(number, address):
                self._addresses.write(number, values.address_value(address))
            case plan.WriteRanges(table):
                self._ranges.write(table.first_line, ranges.encode(table))
            case plan.SwitchRanges(number, protocol, table):
                field = values.ADDRESS.tcp_ranges if protocol is Protocol.TCP else values.ADDRESS.udp_ranges
                self._addresses.store(number, table.word, field.offset)
            case plan.WriteEntry((line, place), entry):
                self._index.store(line, entry, place * 8)
            case plan.WriteFilter(number, word):
                self._filter.store(number, word)
            case plan.WaitForReaders():
                bpf.wait_for_readers()
            case plan.ClearBackend(number):
                self._backends.write(number, values.no_backend(self._generation(number)))
            case plan.ClearVip(number):
                self._vips.write(number, bytes(values.SIZES["vip"]))
            case plan.ClearAddress(number):
                self._addresses.write(number, bytes(values.SIZES["address"]))

    def _begin_watching(self, watch: int) -> None:
        """Forgets what a place has counted of another backend; place 0 is nobody's."""
        bpf.map_update(self._handshakes, watch, bytes(_HANDSHAKES.size * bpf.possible_cpus()))

    def _backend(self, number: int) -> bytes:
        return self._backends.read(number, values.SIZES["backend"])

    def _generation(self, number: int) -> int:
        """How many records have had this number, modulo 256; also of one that is empty."""
        return self._backend(number)[values.BACKEND.generation.offset]

    def read_contents(self, region: Region) -> tables.Contents:
        """What a region holds."""
        return tables.decode(self._slots.read, region, self.limits)

    def read_table(self, region: Region) -> Table:
        """The table that a region holds."""
        return self.read_contents(region).table

    def _header(self, region: Region) -> tables.Header:
        return tables.Header.decode(self._slots.read(region.first_line, _LINE))

    def learning_until(self, region: Region) -> int:
        """The tick until which UDP flows without a record are taken for old ones."""
        return self._header(region).learning_until

    def record(self, tag: int, vip: int, now: int, idle: int) -> int | None:
        """The number of the backend that a flow's record leads to, if it has one that is valid.

        Args:
            tag: the flow's.
            vip: the number of its VIP.
            now: the tick.
            idle: for how many ticks it may have been silent.
        """
        found = self._flow(tag)
        if found is None or found.is_over(now, idle):
            return None
        number, generation = found.backend & 0xFFFFFF, found.backend >> 24
        value = self._backend(number)
        if not value[values.BACKEND.mode.offset] or self._generation(number) != generation:
            return None
        return number if values.backend_of(value)[0].vip == vip else None

    def is_begun(self, tag: int) -> bool:
        """Whether a flow's record says that nothing but a SYN was seen of it, where states are recorded."""
        found = self._flow(tag)
        return found is not None and found.is_begun

    def _flow(self, tag: int) -> flows.Flow | None:
        line = bpf.map_lookup(self._flows, tag >> 32 & self.limits.flow_lines - 1, _LINE)
        return next((flow for flow in flows.decode(line) if flow.tag == tag), None)

    def begin_period(self, region: Region) -> None:
        """Forgets which previous slots were used."""
        header = self._header(region)
        numbers, _ = self._previous(header)
        self._slots.write(header.previous_line, tables.encode_slots(numbers, bytes(header.previous_slots), self.limits))

    def used_slots(self, region: Region) -> bytes:
        """A 1 for each previous slot that was used since :meth:`begin_period`."""
        return self._previous(self._header(region))[1]

    def _previous(self, header: tables.Header) -> tuple[list[int], bytes]:
        data = self._slots.read(header.previous_line, header.previous_slots * self.limits.slot_bytes)
        return tables.decode_slots(data, self.limits)

    def settle(self, region: Region, table: Table) -> Region:
        """Marks slots as settled under traffic; answers the region, smaller if all are."""
        # Only the flags in the upper bytes change, so no packet sees half a slot.
        slots = tables.encode_slots(table.current, table.unsettled, self.limits)
        self._slots.write(region.first_line + 1, slots)
        if table.previous:
            return region
        self._slots.store(region.first_line, 0)  # line and number of the previous slots
        bpf.wait_for_readers()
        return tables.region_at(region.first_line, region.slots, self._slots.read, self.limits)

    def events(self) -> Mapping[str, int]:
        """What happened to records of flows, all CPUs together."""
        return counters(self._events, _ABI.names("event"))

    # What the network decides

    def set_way(self, backend: int, way: values.Way | None) -> None:
        """Leads a backend's packets to a next hop, or nowhere."""
        _store(self._backends, backend, values.way_words(self._backend(backend), way))

    def set_port(self, link: Link) -> None:
        """Makes an interface one of ours, to receive from and to send by.

        Raises:
            L4lbError: its index is too high.
        """
        if link.ifindex >= self.limits.max_interfaces:
            raise L4lbError(
                f"interface index {link.ifindex} of {link.name} is above {self.limits.max_interfaces - 1}",
                "create the interface again after a reboot",
            )
        word, way = values.port_words(link)
        self._ports.store(link.ifindex, way, 8)
        self._ports.store(link.ifindex, word)
        if link.parent == link.ifindex:
            bpf.map_update(self._egress, link.ifindex, link.ifindex.to_bytes(4, sys.byteorder))

    def ports(self) -> list[int]:
        """The interfaces that are ours."""
        words = _PORT.iter_unpack(self._ports.read(0, self.limits.max_interfaces * _PORT.size))
        return [ifindex for ifindex, (word, _) in enumerate(words) if word]

    def clear_port(self, ifindex: int) -> None:
        """Makes an interface none of ours."""
        is_parent = self._ports.load(ifindex, 8) & 0xFFFFFFFF == ifindex
        self._ports.store(ifindex, 0)
        if is_parent:
            bpf.map_delete(self._egress, ifindex)

    def forget_routes(self) -> None:
        """Makes the program ask the kernel's routing table again for every client."""
        self._control.store(0, (self._control.load(0) + 1) & 0xFFFFFFFF)

    def set_echo(self, echo: bool) -> None:
        """Says whether pings to VIPs are answered by the program, or left to the kernel."""
        flag = _ABI.enums["control_flag"]["CONTROL_NO_ECHO"]
        self._control.store(0, 0 if echo else flag, values.CONTROL.flags.offset)

    # What the program counted

    def traffic(self, backend: int) -> Traffic:
        """What a backend carried since its record was written, all CPUs together."""
        values = bpf.map_lookup(self._traffic, backend, _TRAFFIC.size * bpf.possible_cpus())
        return Traffic(*map(sum, zip(*_TRAFFIC.iter_unpack(values), strict=True)))

    def handshakes(self, watch: int) -> Handshakes:
        """What was counted of handshakes at a place, all CPUs together."""
        data = bpf.map_lookup(self._handshakes, watch, _HANDSHAKES.size * bpf.possible_cpus())
        begun, repeated, answered, refused, requests, replies, *times = map(
            sum, zip(*_HANDSHAKES.iter_unpack(data), strict=True)
        )
        return Handshakes(
            begun, repeated, answered, refused, requests, replies, tuple(times[:BUCKETS]), tuple(times[BUCKETS:])
        )

    def reasons(self) -> Mapping[str, int]:
        """How many packets met each named fate, all CPUs together."""
        found = counters(self._reasons, abi.reason_names())
        del found["forwarded"]  # counted by backend
        return found

    def open_connections(self, backend: int) -> int:
        """How many connections are open at a backend of a scheduler that counts them."""
        (count,) = struct.unpack("<q", bpf.map_lookup(self._loads, backend, 8))
        return max(0, int(count))


def _store(where: MappedArray, number: int, words: Mapping[int, int]) -> None:
    """Stores words of a value, by their offsets, one after another."""
    for offset, word in words.items():
        where.store(number, word, offset)
