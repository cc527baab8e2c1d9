"""Weighted Maglev tables (Eisenbud et al., Maglev, NSDI'16, §3.4).

Each backend has a permutation of the slots, made from its identity and the seed. In turns, each takes the next slot
of its permutation that is still free. The table depends on nothing but the set of backends, so every gateway with
the same configuration makes the same one, and a small change of the set changes little of it.
"""

import hashlib
from array import array
from collections.abc import Sequence

# Primes a factor of eight apart: a new size moves most flows, so that the size has to change seldom. It depends on the
# number of backends alone, for gateways to agree on it.
SIZES = (1021, 8191, 65_537, 524_287)

LARGEST = 65_537

SLOTS_PER_BACKEND = 100  # shares then differ by 1 % at the most


def table_size(backends: int, largest: int = LARGEST) -> int:
    """The smallest of the sizes, up to `largest`, that gives each backend 100 slots; `largest` when none does."""
    return next((size for size in SIZES if backends * SLOTS_PER_BACKEND <= size <= largest), largest)


def build(members: Sequence[tuple[str, int]], size: int, seed: int) -> "array[int]":
    """A table: for each slot, the position in `members` of the one that has it.

    Args:
        members: identities, each once, with weights above 0. Each gets its share of the slots by weight, rounded up or
            down. Their order decides nothing but how they are numbered in the result.
        size: how many slots; a prime.
        seed: 64 bits.
    """
    if not members:
        return array("I")
    heaviest = max(weight for _, weight in members)
    # For each member: position, weight, credit, slots still due, next slot of its permutation, step of the permutation.
    turns = [
        [place, members[place][1], 0, due, *_permutation(members[place][0], size, seed)]
        for place, due in _shares(members, size)
    ]
    table = [-1] * size
    while turns:
        for turn in turns:
            place, weight, credit, due, slot, step = turn
            # A turn for each full weight of the heaviest: a member of half its weight has every other turn.
            credit += weight
            if credit < heaviest or not due:
                turn[2] = credit
                continue
            while table[slot] >= 0:  # the inner loop: some size * ln(size) rounds in all
                slot += step
                if slot >= size:
                    slot -= size
            table[slot] = place
            turn[2:5] = credit - heaviest, due - 1, slot
        turns = [turn for turn in turns if turn[3]]
    return array("I", table)


def _shares(members: Sequence[tuple[str, int]], size: int) -> list[tuple[int, int]]:
    """Position and number of slots of each member, by identity; what rounding leaves goes to the largest remainders."""
    total = sum(weight for _, weight in members)
    order = sorted(range(len(members)), key=lambda place: members[place][0])
    shares = {place: size * members[place][1] // total for place in order}
    by_remainder = sorted(order, key=lambda place: -(size * members[place][1] % total))
    for place in by_remainder[: size - sum(shares.values())]:
        shares[place] += 1
    return [(place, shares[place]) for place in order]


def _permutation(identity: str, size: int, seed: int) -> tuple[int, int]:
    """First slot and step; any step from 1 to size - 1 visits all slots of a prime size."""
    digest = hashlib.blake2b(
        identity.encode(), digest_size=16, key=seed.to_bytes(8, "little"), person=b"l4lb maglev"
    ).digest()
    return int.from_bytes(digest[:8], "little") % size, int.from_bytes(digest[8:], "little") % (size - 1) + 1
