"""`l4lb unload`: the end of forwarding."""

from pathlib import Path

import click

from l4lb.cli import common
from l4lb.options import DEFAULT_PINS


@click.command()
@click.option(
    "--pins",
    type=click.Path(path_type=Path),
    default=DEFAULT_PINS,
    show_default=True,
    help="The folder that `l4lb run` was given.",
)
def unload(pins: Path) -> None:
    """End forwarding: take the program off the interfaces and the VIPs' addresses away.

    A stopped daemon leaves both in place, so that nothing is lost while it restarts. The state file stays.
    """
    from l4lb.datapath.unload import unload as unload_now

    names = unload_now(pins)
    common.done(f"no longer forwarding on {', '.join(names)}" if names else "nothing was loaded")
