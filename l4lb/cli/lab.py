"""`l4lb lab`: the laboratory of network namespaces."""

import os
from pathlib import Path

import click

from l4lb.cli import common
from l4lb.errors import L4lbError


@click.group()
def lab() -> None:
    """Labs of network namespaces, as `scripts/demo --shell` leaves them."""


@lab.command("list")
def list_() -> None:
    """List the labs that there are."""
    from l4lb.lab.topology import labs, state_of

    for folder in labs():
        click.echo(f"{folder.name}  {state_of(folder).value}")


@lab.command()
@click.argument("name", required=False)
@click.option("--host", default="gateway", show_default=True, help="client, gateway, b1, b2 ...")
def shell(name: str | None, host: str) -> None:
    """Open a shell in a lab; NAME can be left out when there is only one."""
    from l4lb.lab.shell import open_shell

    open_shell(_one(name), host)


@lab.command()
@click.argument("names", nargs=-1)
def down(names: tuple[str, ...]) -> None:
    """Take labs down: their processes, namespaces and files. Without NAMES, all that no process is using."""
    from l4lb.lab.topology import State, labs, state_of, take_down

    folders = [_one(name) for name in names] or [each for each in labs() if state_of(each) is not State.IN_USE]
    if folders and os.geteuid() != 0:
        raise L4lbError("taking down a lab needs root", "use sudo")
    for folder in folders:
        take_down(folder)
        common.done(f"{folder.name} taken down")


def _one(name: str | None) -> Path:
    """The lab of this name, or the only one."""
    from l4lb.lab.topology import labs

    there = {folder.name: folder for folder in labs()}
    if name is None and len(there) == 1:
        return next(iter(there.values()))
    if not there:
        raise L4lbError("there is no lab", "scripts/demo --shell makes one")
    if name not in there:
        known = f"labs that there are: {', '.join(there)}"
        raise L4lbError(f"there is no lab {name!r}" if name else "there are several labs", known)
    return there[name]
