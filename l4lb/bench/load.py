"""Whether the program loads with every combination of its switches, and how large it is then."""

import asyncio
import itertools
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from l4lb.datapath import bpf, programs
from l4lb.datapath.layout import FEATURES, Features, balancer_source
from l4lb.errors import ProgramError
from l4lb.lab.bpf_folder import bpf_folder
from l4lb.model import Mode
from l4lb.plan.limits import Limits

_SMALL = Limits(
    max_vips=64,
    max_backends=64,
    max_interfaces=64,
    index_lines=64,
    slot_lines=64,
    range_lines=64,
    flow_lines=64,
    fragment_lines=64,
    max_connections=64,
    route_lines=64,
)
_SAMPLE = 40
_MODES = tuple(mode.name for mode in Mode)


def possible(features: Features) -> bool:
    """Whether there is a configuration that needs these: what is about VIPs needs one, and sharing needs nat."""
    about_vips = features - {"ECHO", "VLAN"}
    return ("NAT" in features or "SHARED" not in features) and (
        not about_vips or any(mode in features for mode in _MODES)
    )


def every_combination() -> Iterator[Features]:
    """All that a configuration can ask for."""
    for chosen in itertools.product((False, True), repeat=len(FEATURES)):
        features = frozenset(itertools.compress(FEATURES, chosen))
        if possible(features):
            yield features


def covering(strength: int) -> list[Features]:
    """A few combinations in which any so many switches have all the values together that they can have."""
    missing: set[tuple[tuple[str, bool], ...]] = set()
    everything = list(every_combination())

    def values(features: Features) -> Iterable[tuple[tuple[str, bool], ...]]:
        return itertools.combinations([(name, name in features) for name in FEATURES], strength)

    for features in everything:
        missing.update(values(features))
    found: list[Features] = []
    while missing:
        wanted = min(missing)
        fitting = [features for features in everything if all((name in features) is value for name, value in wanted)]
        # The best of a sample is good enough, and found soon.
        sample = fitting[:: max(1, len(fitting) // _SAMPLE)]
        best = max(sample, key=lambda features: sum(value in missing for value in values(features)))
        missing.difference_update(values(best))
        found.append(best)
    return found


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of one combination.

    Attributes:
        instructions: of the fast way; 0 if the program was refused.
        detail: the compiler's and the verifier's words, if it was.
    """

    features: Features
    instructions: int
    seconds: float
    detail: str = ""


async def load_all(combinations: Iterable[Features]) -> AsyncIterator[Loaded]:
    """Compiles and loads the program in each of these combinations, several at a time."""
    todo = iter(combinations)
    with bpf_folder() as folder:
        running: set[asyncio.Task[Loaded]] = set()
        for number in itertools.count():
            for features in itertools.islice(todo, (os.cpu_count() or 1) - len(running)):
                running.add(asyncio.create_task(_load(features, folder / f"{number}_{len(running)}")))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()


async def _load(features: Features, folder: Path) -> Loaded:
    began = time.monotonic()
    maps = folder / "maps"
    os.makedirs(maps)  # noqa: PTH103 - as pathlib's would be refused in a coroutine, though it blocks no longer
    try:
        await programs.ensure(balancer_source(features, 0, maps, _SMALL), folder / "program")
        with bpf.opened(folder / "program") as program:
            size = bpf.info(program, bpf.ProgramInfo).translated_bytes // 8
        return Loaded(features, size, time.monotonic() - began)
    except ProgramError as error:
        return Loaded(features, 0, time.monotonic() - began, error.detail)
    finally:
        shutil.rmtree(folder)


@click.command("load")
@click.option("--together", default=2, show_default=True, help="So many switches have all values together.")
@click.option("--all", "walk_all", is_flag=True, help="Every combination there is, which takes hours.")
def load_command(together: int, walk_all: bool) -> None:
    """Load the program with many combinations of its switches, and print how large it is."""
    asyncio.run(_report(list(every_combination()) if walk_all else covering(together)))


async def _report(combinations: list[Features]) -> None:
    click.echo(f"{len(combinations):,} combinations\n\n{'instructions':>12}  {'seconds':>7}  switches")
    failed = 0
    async for loaded in load_all(combinations):
        if loaded.detail:
            failed += 1
            click.echo(loaded.detail[-2000:], err=True)
        size = f"{loaded.instructions:,}" if loaded.instructions else "refused"
        click.echo(f"{size:>12}  {loaded.seconds:>7.1f}  {named(loaded.features)}")
    if failed:
        raise click.ClickException(f"{failed} combinations cannot be loaded")


def named(features: Features) -> str:
    """A combination in words."""
    return " ".join(name for name in FEATURES if name in features) or "none"
