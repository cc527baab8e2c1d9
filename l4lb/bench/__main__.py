"""``scripts/bench``: chooses a measurement."""

import sys

import click

from l4lb.bench import detect, health, load, maglev, packet, reshuffle
from l4lb.errors import L4lbError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """Measure; as root, on a machine that does nothing else."""


bench.add_command(packet.packet)
bench.add_command(load.load_command)
bench.add_command(maglev.maglev)
bench.add_command(reshuffle.reshuffle)
bench.add_command(health.health)
bench.add_command(detect.detect)

if __name__ == "__main__":
    try:
        bench(prog_name="scripts/bench")
    except L4lbError as error:
        sys.exit(f"scripts/bench: {error}")
