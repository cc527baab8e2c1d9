"""Nanoseconds per packet, net of what the least takes that a forwarding program can do, in the same run."""

import os
import re
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click

from l4lb.bench.frames import SIZES
from l4lb.bench.scenarios import XDP_TX, Row, Scenario, scenarios
from l4lb.bench.wrapper import Wrapper
from l4lb.datapath import bpf
from l4lb.lab.testbed import Testbed, testbed
from l4lb.model import Mode
from l4lb.plan.limits import Limits

_HEADER = f"{'':24}{'':>4} {'packet':10}{'flows':>10}{'ns':>8}{'net':>8}{'lowest':>8}{'highest':>9}"


@dataclass(frozen=True)
class Measured:
    """The times of one row and of the two bare programs, run by run, in nanoseconds per packet.

    Attributes:
        grows: whether the program under test makes room before the packet.
    """

    row: Row
    times: list[int]
    bare: list[int]
    grow: list[int]
    grows: bool

    @property
    def room(self) -> float:
        """What it takes to make room, which the wrapper takes back in the same time."""
        return statistics.median(grow - bare for grow, bare in zip(self.grow, self.bare, strict=True)) / 2

    @property
    def net(self) -> float:
        """Without the wrapper and a bare program; from times that were measured one right after the other."""
        differences = [time - bare for time, bare in zip(self.times, self.bare, strict=True)]
        return statistics.median(differences) - (self.room if self.grows else 0)


@click.command()
@click.option("--runs", default=7, show_default=True, help="Runs of each row, in turns; the median counts.")
@click.option("--repeat", default=2_000_000, show_default=True, help="Packets in each run.")
@click.option("--cpu", default=(os.cpu_count() or 1) - 1, show_default=True, help="The processor to run on.")
@click.option("--only", default="", help="Measure only configurations whose name begins so, as in --only gue.")
def packet(runs: int, repeat: int, cpu: int, only: str) -> None:
    """Nanoseconds per packet for each way through the program, its size, and the memory of its maps."""
    if os.geteuid() != 0:
        raise click.ClickException("this loads BPF programs: run it as root")
    os.sched_setaffinity(0, {cpu})
    chosen = [scenario for scenario in scenarios() if scenario.name.startswith(only)]
    if not chosen:
        raise click.UsageError(f"no configuration has a name that begins with {only!r}")
    click.echo(f"ns per packet on CPU {cpu}, the shortest TCP segments, medians of {runs} runs of {repeat:,} packets")
    click.echo("net: without the wrapper and a bare program that only sends\n")
    click.echo(_HEADER)
    for place, scenario in enumerate(chosen):
        with testbed(scenario.features, 0, Limits()) as bed:
            for measured in _measure(scenario, bed, runs, repeat):
                _report(scenario, measured)
            _report_size(scenario, bed)
            if place == len(chosen) - 1:
                _report_maps(bed)


def _measure(scenario: Scenario, bed: Testbed, runs: int, repeat: int) -> Iterator[Measured]:
    scenario.configure(bed)
    with ExitStack() as stack:
        size = SIZES[scenario.version]
        wrappers = {flows: Wrapper(bed.pins, flows, size, stack) for flows in {row.flows for row in scenario.rows}}
        for row in scenario.rows:
            wrapper = wrappers[row.flows]
            _prepare(scenario, row, bed, wrapper)
            wrapper.load(scenario.frames(row))
            programs = {"bare": wrapper.bare, "grow": wrapper.grow, "": bed.program}
            verdicts = {"": scenario.verdict(row)}
            before = _forwarded(bed)
            times: dict[str, list[int]] = {name: [] for name in programs}
            for _ in range(runs):
                for name, program in programs.items():
                    times[name].append(wrapper.run(program, repeat, verdicts.get(name, XDP_TX)))
            if _forwarded(bed) - before != (runs * repeat if row.kind != "no VIP" else 0):
                raise click.ClickException(f"{scenario.name}, {row.kind}: not every packet was forwarded")
            grows = scenario.mode.tunnels and row.kind != "no VIP"
            yield Measured(row, times[""], times["bare"], times["grow"], grows)


def _prepare(scenario: Scenario, row: Row, bed: Testbed, wrapper: Wrapper) -> None:
    """Makes the maps such that the row's packets are of its kind."""
    if row.kind in ("unsettled", "begins"):
        for turn in (0, 1):
            scenario.configure(bed, turn)
    if row.kind == "unsettled" or scenario.mode is Mode.FULLNAT or "LRU" in scenario.extra:
        wrapper.load(scenario.frames(Row("begins", row.flows), order=4))  # not in the order that they come again
        wrapper.run(bed.program, row.flows, XDP_TX)


def _forwarded(bed: Testbed) -> int:
    return sum(
        traffic.packets + traffic.packets_back
        for traffic in (bed.maps.traffic(number) for number in bed.image.backends)
    )


def _report(scenario: Scenario, measured: Measured) -> None:
    row = measured.row
    _line(scenario.name, f"IPv{scenario.version}", row.kind, row.flows, measured.times, measured.net)
    if row == scenario.rows[0]:
        _line("  a bare program", "", "", row.flows, measured.bare, 0)
        _line("  and room for a header", "", "", row.flows, measured.grow, measured.room)


def _line(name: str, version: str, kind: str, flows: int, times: list[int], net: float) -> None:
    middle = statistics.median(times)
    click.echo(f"{name:24}{version:>4} {kind:10}{flows:>10,}{middle:>8.1f}{net:>8.1f}{min(times):>8}{max(times):>9}")


def _report_size(scenario: Scenario, bed: Testbed) -> None:
    size = bpf.info(bed.program, bpf.ProgramInfo)
    click.echo(f"{'':29}{size.translated_bytes // 8:,} instructions, {size.jited_bytes:,} bytes of machine code\n")


def _report_maps(bed: Testbed) -> None:
    click.echo("map               entries     value    memory")
    total = 0
    for path in sorted((bed.pins / "maps").iterdir()):
        with bpf.opened(path) as fd:
            found = bpf.info(fd, bpf.MapInfo)
            locked = _memory(fd)
        total += locked
        click.echo(f"{path.name:14}{found.max_entries:>11,}{found.value_size:>8} B{locked / 1e6:>7.2f} MB")
    click.echo(f"{'':33}{total / 1e6:>9.2f} MB")


def _memory(fd: int) -> int:
    """Bytes that the kernel holds for a map."""
    found = re.search(r"memlock:\s*(\d+)", Path(f"/proc/self/fdinfo/{fd}").read_text())
    return int(found[1]) if found else 0
