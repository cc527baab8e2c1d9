"""Weighted Maglev tables (Eisenbud et al., Maglev, NSDI'16, §3.4).

Each backend has a permutation of the slots, made from its identity and the seed. In turns, each takes the next slot
of its permutation that is still free. The table depends on nothing but the set of backends, so every gateway with
the same configuration makes the same one, and a small change of the set changes little of it.
"""

import hashlib
from array import array
from collections.abc import Sequence

# Primes about a factor of two apart: a few backends more or less keep the size, and a new size moves most flows.
SIZES = (251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_537, 131_071, 262_139, 524_287, 1_048_573)

LARGEST = 65_537

SLOTS_PER_BACKEND = 100  # shares then differ by 1 % at the most


def table_size(backends: int, largest: int = LARGEST) -> int:
    """The smallest of the sizes, up to `largest`, that gives each backend 100 slots; `largest` when none does."""
    return next((size for size in SIZES if backends * SLOTS_PER_BACKEND <= size <= largest), largest)


def build(members: Sequence[tuple[str, int]], size: int, seed: int) -> "array[int]":
    """A table: for each of `size` slots (a prime), the position in `members` of the one that has it.

    Args:
        members: identities, each once, with weights above 0. Shares are in proportion to the weights to within a slot
            or two. Their order decides nothing but how they are numbered in the result.
        seed: 64 bits.
    """
    if not members:
        return array("I")
    heaviest = max(weight for _, weight in members)
    equal = all(weight == heaviest for _, weight in members)
    # [position in members, weight, credit, next slot of the permutation, step of the permutation]
    turns = [
        [place, weight, 0, *_permutation(identity, size, seed)]
        for place, (identity, weight) in sorted(enumerate(members), key=lambda item: item[1][0])
    ]
    table = [-1] * size
    free = size
    while True:
        for turn in turns:
            place, weight, credit, slot, step = turn
            if not equal:
                # A turn for each full weight of the heaviest: a member of half its weight has every other turn.
                credit += weight
                if credit < heaviest:
                    turn[2] = credit
                    continue
                turn[2] = credit - heaviest
            while table[slot] >= 0:  # the inner loop: some size * ln(size) rounds in all
                slot += step
                if slot >= size:
                    slot -= size
            table[slot] = place
            turn[3] = slot
            free -= 1
            if not free:
                return array("I", table)


def _permutation(identity: str, size: int, seed: int) -> tuple[int, int]:
    """First slot and step; any step from 1 to size - 1 visits all slots of a prime size."""
    digest = hashlib.blake2b(identity.encode(), digest_size=16, key=seed.to_bytes(8, "little"), person=b"l4lb maglev").digest()
    return int.from_bytes(digest[:8], "little") % size, int.from_bytes(digest[8:], "little") % (size - 1) + 1
