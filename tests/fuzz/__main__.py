"""``scripts/fuzz``: the command line."""

import multiprocessing
import os
import queue
import sys
import time
from collections.abc import Iterable, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue

import click

from tests.fuzz.coverage import never
from tests.fuzz.reproduction import from_option
from tests.fuzz.session import Result, replay
from tests.fuzz.worker import Message, work
from tests.fuzz.worlds import WORLDS

_LONG = 500_000  # packets of all worlds, in which all that is possible has to come up
_PROGRESS = 5  # seconds


def _listen(messages: "Queue[Message]", running: Sequence[BaseProcess]) -> tuple[Result, list[str]]:
    """Shows how far the workers are, until all have ended."""
    total, failures = Result(), list[str]()
    begin = shown = time.monotonic()
    packets = ended = 0
    while ended < len(running):
        try:
            message = messages.get(timeout=1)
        except queue.Empty:
            if not any(process.is_alive() for process in running):
                failures.append("a worker ended without a result")
                break
            message = 0
        if isinstance(message, int):
            packets += message
        elif isinstance(message, str):
            failures.append(message)
        else:
            total.add(message)
            ended += 1
        now = time.monotonic()
        if now - shown > _PROGRESS:
            shown = now
            click.echo(f"{packets:>12,} packets, {now - begin:.0f} s", err=True)
    return total, failures


def _steps(texts: Iterable[str]) -> list[bytes | int]:
    try:
        return [from_option(text) for text in texts]
    except ValueError as error:
        raise click.UsageError(f"--packet: {error}; use hexadecimal digits, or +TICKS for time that passes") from None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--packets", default=1_000_000, show_default=True, type=click.IntRange(1), help="How many, by all workers together."
)
@click.option("--seconds", default=float("inf"), help="End after so long, loading included.")
@click.option("--seed", default=1, show_default=True, help="Other packets; each worker has one of its own.")
@click.option("--world", "worlds", multiple=True, type=click.IntRange(0, len(WORLDS) - 1), help="Only this one.")
@click.option("--packet", "texts", multiple=True, help="Not random ones but this frame (hex), or +TICKS: time passes.")
@click.option("--workers", default=len(os.sched_getaffinity(0)), show_default=True, type=click.IntRange(1))
@click.option("--list", "list_worlds", is_flag=True, help="Show the worlds.")
def main(
    packets: int,
    seconds: float,
    seed: int,
    worlds: tuple[int, ...],
    texts: tuple[str, ...],
    workers: int,
    list_worlds: bool,
) -> None:
    """Send random packets through the program and a reference of it in Python, and compare what becomes of them."""
    if list_worlds:
        for number, world in enumerate(WORLDS):
            click.echo(f"{number}  {world.name}: {len(world.vips)} VIPs, {', '.join(sorted(world.features))}")
        return
    if texts:
        if len(worlds) != 1:
            raise click.UsageError("--packet needs one --world")
        differs = False
        for agreed, text in replay(worlds[0], _steps(texts)):
            click.echo(text)
            differs |= not agreed
        sys.exit(int(differs))
    chosen = worlds or tuple(range(len(WORLDS)))
    context = multiprocessing.get_context("spawn")
    messages: Queue[Message] = context.Queue()
    cpus = sorted(os.sched_getaffinity(0))
    running = [
        context.Process(
            target=work, args=(chosen, packets // workers, seed + number, seconds, messages, cpus[number % len(cpus)])
        )
        for number in range(workers)
    ]
    begin = time.monotonic()
    for process in running:
        process.start()
    try:
        result, failures = _listen(messages, running)
    except BaseException:
        for process in running:
            process.terminate()
        raise
    finally:
        for process in running:
            process.join()
    for name, count in sorted(result.coverage.items()):
        click.echo(f"{count:>12,}  {name}")
    for text in result.reports + failures:
        click.echo(text)
    missing = never(result.coverage) if not worlds and result.packets >= _LONG else []
    if missing:
        click.echo(f"never seen: {', '.join(missing)}")
    click.echo(
        f"{result.packets:,} packets in {time.monotonic() - begin:.0f} s, seed {seed}:"
        f" {result.differences:,} differences"
    )
    sys.exit(1 if result.reports or failures or missing else 0)


if __name__ == "__main__":
    main(prog_name="scripts/fuzz")
