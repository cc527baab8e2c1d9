"""Whether the program loads with every combination of its switches, and how large it is then."""

import asyncio
import itertools
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from l4lb.datapath import bpf, programs
from l4lb.datapath.layout import FEATURES, Features, balancer_source, every_program
from l4lb.errors import ProgramError
from l4lb.lab.bpf_folder import bpf_folder
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
    max_watched=64,
    route_lines=64,
)


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
def load_command() -> None:
    """Load every program that a configuration can ask for, and print how large each is."""
    asyncio.run(_report(list(every_program())))


async def _report(combinations: list[Features]) -> None:
    click.echo(f"{len(combinations)} programs\n\n{'instructions':>12}  {'seconds':>7}  switches")
    failed = 0
    async for loaded in load_all(combinations):
        if loaded.detail:
            failed += 1
            click.echo(loaded.detail[-2000:], err=True)
        size = f"{loaded.instructions:,}" if loaded.instructions else "refused"
        click.echo(f"{size:>12}  {loaded.seconds:>7.1f}  {named(loaded.features)}")
    if failed:
        raise click.ClickException(f"{failed} programs cannot be loaded")


def named(features: Features) -> str:
    """A combination in words."""
    return " ".join(name for name in FEATURES if name in features) or "none"
