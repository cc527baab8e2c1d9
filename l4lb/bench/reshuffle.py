"""What breaks when flows are moved to another gateway that shares the configuration, but no state (ECMP).

Computed with the reference of the program's choice, which the tests hold the program to.
"""

import random

import click

from l4lb.balance.maglev import build, table_size
from l4lb.balance.slots import Table, follow, retarget


@click.command()
@click.option("--backends", default=100, show_default=True)
@click.option("--flows", default=10_000, show_default=True)
def reshuffle(backends: int, flows: int) -> None:
    """Flows that break when they move to another gateway just after one backend of all was removed.

    Compared with a design that hashes new flows and keeps a table of all (LRU) per gateway, on the same tables. Flows
    of the removed backend are lost in any design, and are not counted.
    """
    members = [(f"10.0.{number >> 8}.{number & 255}:80", 1) for number in range(backends)]
    removed = backends // 2
    before = list(build(members, table_size(backends), 0))
    rest = [number for number in range(backends) if number != removed]
    places = build([members[number] for number in rest], table_size(len(rest)), 0)
    after = [rest[place] for place in places]
    table = retarget(Table.settled(before), after, rest)

    numbers = random.Random(1)  # noqa: S311 - the same each time
    candidates = [numbers.getrandbits(32) for _ in range(2 * flows)]
    older = [value for value in candidates if _at(before, value) != removed][:flows]
    newer = [numbers.getrandbits(32) for _ in range(flows)]
    rows = [
        ("began before the removal", older, before),
        ("began after it", newer, after),
    ]
    click.echo(f"{backends} backends, one removed, {len(before):,} slots, {flows:,} flows each\n")
    click.echo(f"{'flows that':26}{'break with l4lb':>16}{'with an LRU table':>19}")
    for name, hashes, begun in rows:
        ours = sum(follow(table, value)[1] != _at(begun, value) for value in hashes) / len(hashes)
        lru = sum(_at(after, value) != _at(begun, value) for value in hashes) / len(hashes)
        click.echo(f"{name:26}{ours:>16.2%}{lru:>19.2%}")


def _at(slots: list[int], hash32: int) -> int:
    return slots[hash32 * len(slots) >> 32]
