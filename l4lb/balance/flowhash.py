"""The flow hash, as ``flow_hash()`` in ``bpf/lookup.h`` computes it.

Three rounds of multiply and xor-shift over 64-bit words, keyed with secrets made from the seed: an outsider who does
not know the seed cannot choose flows that meet in one slot.
"""

import hashlib

from l4lb.model import Endpoint, IPAddress

_WORD = (1 << 64) - 1

Constants = tuple[int, int, int, int]


def seeds(seed: int) -> Constants:
    """The key and the three multipliers (odd) that a 64-bit seed stands for."""
    digest = hashlib.blake2b(seed.to_bytes(8, "little"), digest_size=32, person=b"l4lb flow hash").digest()
    key, *multipliers = (int.from_bytes(digest[at : at + 8], "little") for at in range(0, 32, 8))
    first, second, third = (multiplier | 1 for multiplier in multipliers)
    return key, first, second, third


def address_words(address: IPAddress) -> tuple[int, int]:
    """An address as the two words in which maps and program hold it.

    16 bytes in network order, IPv4 as ::ffff:a.b.c.d, read as two little-endian numbers.
    """
    packed = address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
    return int.from_bytes(packed[:8], "little"), int.from_bytes(packed[8:], "little")


def flow_hash(client: Endpoint, service_port: int, constants: Constants) -> int:
    """32 bits for the flow from `client` to a VIP's port: what chooses its slot."""
    return flow_hash64(client, service_port, constants) >> 32


def flow_hash64(client: Endpoint, service_port: int, constants: Constants) -> int:
    """64 bits for the flow, of which the upper half chooses its slot."""
    key, first, second, third = constants
    high, low = address_words(client.address)
    value = (high ^ key) * first & _WORD
    value ^= value >> 32
    value = (value ^ low) * second & _WORD
    value ^= value >> 32
    value = (value ^ (client.port << 16 | service_port)) * third & _WORD
    value ^= value >> 32
    return value * first & _WORD


def flow_tag(hash64: int, vip: int, constants: Constants) -> int:
    """What the record of a flow to the VIP of that number is found by, as ``flow_tag()`` in ``bpf/flows.h`` has it."""
    value = (hash64 ^ vip) * constants[2] & _WORD
    return value ^ value >> 32 | 1


def slot_of(hash32: int, size: int) -> int:
    """The slot of a table of `size` slots that a hash falls into: a multiplication in place of a remainder."""
    return hash32 * size >> 32
