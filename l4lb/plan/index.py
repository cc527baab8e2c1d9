"""The index: an open-addressing hash table from endpoints to numbers, searched by ``find()`` in ``bpf/lookup.h``.

A line has 8 entries of 64 bits, one cache line. An entry is a 40-bit tag (top bit set) over a 24-bit number; 0 is
empty. A key's home line is in its hash; if all of that line's entries are taken it goes to the next, three times at
the most. The search stops at a line whose last entry is 0, so a deleted last entry leaves a mark.
"""

import enum
from collections.abc import Iterable, Mapping

from l4lb.balance.flowhash import address_words
from l4lb.errors import L4lbError
from l4lb.model import Endpoint, IPAddress, Protocol

ENTRIES = 8
PROBES = 4
FILTER_WORDS = 1024
NUMBER_BITS = 24
DELETED = 1  # no tag: matches nothing, but is not empty

_WORD = (1 << 64) - 1
# splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA'14)
_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)

Position = tuple[int, int]  # line, entry in the line


class Way(enum.IntEnum):
    """Which end of a packet the key is compared with (``enum way``)."""

    TO_VIP = 1
    FROM_BACKEND = 2
    TO_ADDRESS = 3


Key = tuple[Endpoint, int, Way]  # the protocol by its number


def address_key(address: IPAddress) -> Key:
    """The key of an address that has VIPs."""
    return Endpoint(address, 0), 0, Way.TO_ADDRESS


def server_key(endpoint: Endpoint, protocol: Protocol) -> Key:
    """The key of whom answers come from."""
    return endpoint, protocol, Way.FROM_BACKEND


def vip_key(endpoint: Endpoint, protocol: Protocol) -> Key:
    """The key of a VIP of one port."""
    return endpoint, protocol, Way.TO_VIP


def hash_of(key: Key) -> int:
    """The 64-bit hash of a key, as ``index_hash()`` computes it."""
    endpoint, protocol, way = key
    high, low = address_words(endpoint.address)
    port = int.from_bytes(endpoint.port.to_bytes(2, "big"), "little")  # as it lies in the packet
    value = high * _MULTIPLIERS[0] & _WORD
    value ^= value >> 32
    value = (value ^ low) * _MULTIPLIERS[1] & _WORD
    value ^= value >> 32
    value = (value ^ (port << 16 | protocol << 8 | way)) * _MULTIPLIERS[2] & _WORD
    return value ^ value >> 32


def entry_of(key: Key, number: int) -> int:
    """The entry that leads from `key` to `number` (below 2**24)."""
    return (hash_of(key) | 1 << 63) >> NUMBER_BITS << NUMBER_BITS | number


def filter_words(keys: Iterable[Key]) -> dict[int, int]:
    """The filter before the index: by position, each word of 64 bits that is not 0. A bit stands for a key's hash."""
    words: dict[int, int] = {}
    for key in keys:
        position, bit = divmod(hash_of(key) >> 48, 64)
        words[position] = words.get(position, 0) | 1 << bit
    return words


def differences(found: Mapping[Position, int], wanted: Mapping[Key, int], lines: int) -> dict[Position, int]:
    """The entries to write so that `found` leads from each wanted key to its number and nowhere else.

    Entries are written one at a time under traffic, in the order of the result: additions, then deletions.

    Raises:
        L4lbError: a key finds no room within its four lines.
    """
    at = {(position[0], entry): position for position, entry in found.items()}
    keep: set[Position] = set()
    missing: list[tuple[int, int]] = []  # home line, entry
    for key, number in wanted.items():
        home, entry = hash_of(key) % lines, entry_of(key, number)
        places = (at.get(((home + probe) % lines, entry)) for probe in range(PROBES))
        position = next((place for place in places if place is not None), None)
        if position is None:
            missing.append((home, entry))
        else:
            keep.add(position)
    taken = dict(found)
    writes: dict[Position, int] = {}
    for home, entry in missing:
        position = _room(taken, home, lines)
        writes[position] = taken[position] = entry
    for position, entry in found.items():
        if position not in keep and entry != DELETED:
            writes[position] = DELETED if position[1] == ENTRIES - 1 else 0
    return writes


def _room(taken: Mapping[Position, int], home: int, lines: int) -> Position:
    for probe in range(PROBES):
        line = (home + probe) % lines
        for place in range(ENTRIES):
            if taken.get((line, place), DELETED) == DELETED:
                return line, place
    raise L4lbError("the index of VIPs and backends is full", "remove VIPs or backends that are not needed")
