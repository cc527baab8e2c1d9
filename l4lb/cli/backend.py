"""`l4lb backend`: the servers behind a VIP."""

import click

from l4lb.cli import common, render

_weight_help = "Share of the flows, in proportion to the other backends' weights; 0 for none."
_vip = click.argument("vip", type=common.VipName())
_address = click.argument("address", type=common.BackendAddress(), metavar="ADDRESS[:PORT]")


@click.group()
def backend() -> None:
    """Backends: the servers behind a VIP."""


@backend.command()
@common.socket_option
@_vip
@_address
@click.option("--weight", type=common.weight_type, default=1, show_default=True, help=_weight_help)
def add(vip: str, address: str, weight: int) -> None:
    """Add a backend to a VIP, as in `l4lb backend add web 10.0.0.11:8080`.

    The port is the VIP's if left out; of a VIP with several ports, the one that the client chose.
    """
    common.call("backend.add", vip=vip, address=address, weight=weight)
    common.done(f"backend {address} added to VIP {vip}")


@backend.command("set")
@common.socket_option
@_vip
@_address
@click.option("--weight", type=common.weight_type, required=True, help=_weight_help)
def set_(vip: str, address: str, weight: int) -> None:
    """Change a backend's weight."""
    common.call("backend.set", vip=vip, address=address, weight=weight)
    common.done(f"backend {address} of VIP {vip} has weight {weight}")


@backend.command()
@common.socket_option
@_vip
@_address
def remove(vip: str, address: str) -> None:
    """Remove a backend from a VIP."""
    common.call("backend.remove", vip=vip, address=address)
    common.done(f"backend {address} removed from VIP {vip}")


@backend.command("list")
@common.socket_option
@_vip
@common.json_option
def list_(vip: str, as_json: bool) -> None:
    """List a VIP's backends."""
    backends = common.call("backend.list", vip=vip)
    if as_json:
        common.print_json(backends)
    else:
        render.backends(backends)
