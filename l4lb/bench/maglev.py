"""How long a table takes to make, and how much of it changes when a backend goes."""

import statistics
import time

import click

from l4lb.balance.maglev import build, table_size


@click.command()
@click.option("--runs", default=10, show_default=True)
def maglev(runs: int) -> None:
    """Time to make Maglev tables, and their disruption when one backend is removed."""
    click.echo(f"{'backends':>8}  {'slots':>8}  {'median ms':>9}  {'moved by one removal':>20}")
    for backends, slots in ((backends, table_size(backends)) for backends in (3, 20, 100, 1000)):
        members = [(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:80", 1) for number in range(backends)]
        times = []
        for run in range(runs):
            began = time.perf_counter()
            build(members, slots, run)
            times.append(time.perf_counter() - began)
        before, after = build(members, slots, 0), build(members[:-1], slots, 0)
        moved = sum(old != new for old, new in zip(before, after, strict=True)) / slots
        click.echo(
            f"{backends:>8}  {slots:>8,}  {statistics.median(times) * 1000:>9.1f}  {moved:>12.2%} of {1 / backends:.2%}"
        )
