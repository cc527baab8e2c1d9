"""The flow hash spreads what real clients send: runs of ports and of addresses."""

from collections import Counter
from ipaddress import IPv4Address

import pytest

from l4lb.balance.flowhash import address_words, flow_hash, seeds, slot_of
from l4lb.model import Endpoint

SLOTS = 251
CHI_SQUARE_LIMIT = 340  # 250 degrees of freedom: exceeded by chance once in 7,000 tries

CLIENTS = {
    "ports of one client": [Endpoint(IPv4Address("10.1.0.2"), 1024 + n) for n in range(25_100)],
    "every other port": [Endpoint(IPv4Address("10.1.0.2"), 1024 + 2 * n) for n in range(25_100)],
    "addresses in a row": [Endpoint(IPv4Address("10.0.0.0") + n, 4000) for n in range(25_100)],
    "networks in a row": [Endpoint(IPv4Address(n << 16), 4000) for n in range(1, 25_101)],
}


@pytest.mark.parametrize("seed", [0, 1, 2**63])
@pytest.mark.parametrize("clients", CLIENTS.values(), ids=CLIENTS.keys())
def test_spread(clients: list[Endpoint], seed: int) -> None:
    constants = seeds(seed)
    slots = Counter(slot_of(flow_hash(client, 80, constants), SLOTS) for client in clients)
    expected = len(clients) / SLOTS
    assert sum((slots[slot] - expected) ** 2 / expected for slot in range(SLOTS)) < CHI_SQUARE_LIMIT


def test_every_bit_of_the_input_matters() -> None:
    """Changing one bit changes each bit of the hash about every other time."""
    constants = seeds(0)
    for bit in range(48):
        changed = Counter[int]()
        for number in range(400):
            word = number * 0x9E3779B9_7F4A % 2**48
            one, other = (
                flow_hash(Endpoint(IPv4Address(value >> 16), value & 0xFFFF), 80, constants)
                for value in (word, word ^ 1 << bit)
            )
            changed.update(position for position in range(32) if (one ^ other) >> position & 1)
        assert all(120 < changed[position] < 280 for position in range(32)), f"input bit {bit}"


def test_the_seed_decides() -> None:
    client = Endpoint(IPv4Address("10.1.0.2"), 4000)
    assert len({flow_hash(client, 80, seeds(seed)) for seed in range(100)}) == 100


def test_multipliers_are_odd() -> None:
    """An even one would lose a bit."""
    assert all(multiplier % 2 for seed in range(100) for multiplier in seeds(seed)[1:])


def test_address_words() -> None:
    assert address_words(IPv4Address("1.2.3.4")) == (0, 0x04030201_FFFF0000)
