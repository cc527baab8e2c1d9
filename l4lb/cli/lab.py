"""`l4lb lab`: the laboratory of network namespaces."""

import click

from l4lb.cli import common


@click.group()
def lab() -> None:
    """Labs of network namespaces, as `scripts/demo --shell` leaves them."""


@lab.command("list")
def list_() -> None:
    """List the labs that are up."""
    from l4lb.lab.topology import labs

    for folder in labs():
        click.echo(folder.name)


@lab.command()
def down() -> None:
    """Take all labs down: their processes, namespaces and files."""
    from l4lb.lab.topology import labs, take_down

    found = labs()
    for folder in found:
        take_down(folder)
    common.done(f"{len(found)} labs taken down")
