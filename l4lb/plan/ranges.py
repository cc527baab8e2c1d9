"""VIPs of several ports: which one takes which ports of an address, as ``find_in_ranges()`` in bpf/ asks."""

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from l4lb.errors import L4lbError
from l4lb.model import IPAddress, Protocol, Service
from l4lb.plan.limits import Limits
from l4lb.plan.records import RangeTable
from l4lb.plan.stretches import Stretches

LINE = 64
PER_LINE = 16
NO_VIP = 65_535  # in the map, for ports that are nobody's
_RANGE = struct.Struct("<I")

Of = tuple[int, Protocol]  # the number of an address, and a protocol


def cut(services: Iterable[tuple[Service, int]]) -> tuple[tuple[int, int | None], ...]:
    """The ranges of ports in which one VIP is the narrowest: (first port, VIP), each until the next begins.

    Args:
        services: of one address and protocol, with the VIPs' numbers.
    """
    wide = sorted(services, key=lambda chosen: chosen[0].breadth)
    borders = sorted({port for service, _ in wide for port in (service.first_port, service.last_port + 1)})
    found: list[tuple[int, int | None]] = []
    for port in borders:
        owner = next((number for service, number in wide if service.first_port <= port <= service.last_port), None)
        if port <= 65_535 and (not found or found[-1][1] != owner):
            found.append((port, owner))
    return tuple(found)


def wanted(
    vips: Mapping[int, Service], addresses: Mapping[int, IPAddress]
) -> dict[Of, tuple[tuple[int, int | None], ...]]:
    """The ranges of each address and protocol that has VIPs of several ports."""
    numbers = {address: number for number, address in addresses.items()}
    wide: dict[Of, list[tuple[Service, int]]] = {}
    for number, service in vips.items():
        if not service.is_single:
            wide.setdefault((numbers[service.address], service.protocol), []).append((service, number))
    return {of: cut(services) for of, services in wide.items()}


def place(
    ranges: Mapping[Of, tuple[tuple[int, int | None], ...]], found: Mapping[Of, RangeTable], limits: Limits
) -> dict[Of, RangeTable]:
    """Where the ranges lie: what is right stays, the rest goes where nothing is.

    Raises:
        L4lbError: there is no room.
    """
    free = Stretches(((table.first_line, _lines(table)) for table in found.values()), limits.range_lines)
    placed: dict[Of, RangeTable] = {}
    for of, cuts in ranges.items():
        old = found.get(of)
        if old is not None and old.ranges == cuts:
            placed[of] = old
            continue
        table = RangeTable(0, cuts)
        first_line = free.take(_lines(table))
        if first_line is None:
            raise L4lbError("the maps have no room for another VIP of several ports", "remove VIPs that are not needed")
        placed[of] = replace(table, first_line=first_line)
    return placed


def encode(table: RangeTable) -> bytes:
    """Ranges as they lie in the map."""
    values = (first << 16 | (NO_VIP if number is None else number) for first, number in table.ranges)
    return b"".join(map(_RANGE.pack, values))


def decode(word: int, read: Callable[[int, int], bytes]) -> RangeTable:
    """The ranges that an address's word leads to; `read` answers so many bytes from the start of a line."""
    first_line, count = word & 0xFFFFFFFF, word >> 32
    values = [value for (value,) in _RANGE.iter_unpack(read(first_line, count * _RANGE.size))]
    return RangeTable(
        first_line, tuple((value >> 16, None if value & 0xFFFF == NO_VIP else value & 0xFFFF) for value in values)
    )


def _lines(table: RangeTable) -> int:
    return -(-len(table.ranges) // PER_LINE)
