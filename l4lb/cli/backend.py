"""`l4lb backend`: the servers behind a VIP."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from l4lb.cli import common, health_options, render
from l4lb.model import MAX_PRIORITY

_Function = TypeVar("_Function", bound=Callable[..., Any])

_weight_help = "Share of the flows, in proportion to the other backends' weights; 0 for none."
_vip = click.argument("vip", type=common.VipName())
_address = click.argument("address", type=common.BackendAddress(), metavar="ADDRESS[:PORT]")


def _settings(function: _Function) -> _Function:
    """The options of settings; None is passed for those that are left out."""
    function = health_options.health_options(new=False)(function)
    return click.option(
        "--priority",
        type=click.IntRange(0, MAX_PRIORITY),
        help="Tier: 0 serves first; a lower one helps when too little of the ones above is healthy.",
    )(function)


def _given(options: dict[str, Any]) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


@click.group()
def backend() -> None:
    """Backends: the servers behind a VIP."""


@backend.command()
@common.socket_option
@_vip
@_address
@click.option("--weight", type=common.weight_type, default=1, show_default=True, help=_weight_help)
@_settings
def add(vip: str, address: str, **options: Any) -> None:
    """Add a backend to a VIP, as in `l4lb backend add web 10.0.0.11:8080`.

    The port is the VIP's if left out; of a VIP with several ports, the one that the client chose.
    """
    common.call("backend.add", vip=vip, address=address, **_given(options))
    common.done(f"backend {address} added to VIP {vip}")


@backend.command("set")
@common.socket_option
@_vip
@_address
@click.option("--weight", type=common.weight_type, help=_weight_help)
@_settings
@click.option(
    "--inherit",
    type=click.Choice([name.replace("_", "-") for name in health_options.NAMES]),
    multiple=True,
    metavar="OPTION",
    help="Take back what is set here, as --inherit interval: it is the VIP's again. May repeat.",
)
def set_(vip: str, address: str, inherit: tuple[str, ...], **options: Any) -> None:
    """Change a backend's settings; those that are left out stay."""
    changes = _given(options)
    for name in (name.replace("-", "_") for name in inherit):
        if name in changes:
            raise click.UsageError(f"--{name.replace('_', '-')} cannot be both given and inherited: leave one out")
        changes[name] = None
    if not changes:
        raise click.UsageError("nothing to set: give --weight or another option")
    common.call("backend.set", vip=vip, address=address, **changes)
    common.done(f"backend {address} of VIP {vip} changed")


@backend.command()
@common.socket_option
@_vip
@_address
def drain(vip: str, address: str) -> None:
    """Give a backend no new flows; those that it has stay."""
    common.call("backend.drain", vip=vip, address=address)
    common.done(f"backend {address} of VIP {vip} gets no new flows")


@backend.command()
@common.socket_option
@_vip
@_address
def disable(vip: str, address: str) -> None:
    """Take a backend out at once, with the flows that it has."""
    common.call("backend.disable", vip=vip, address=address)
    common.done(f"backend {address} of VIP {vip} is out")


@backend.command()
@common.socket_option
@_vip
@_address
def resume(vip: str, address: str) -> None:
    """End drain or disable: the backend's health decides again."""
    common.call("backend.resume", vip=vip, address=address)
    common.done(f"backend {address} of VIP {vip} is back")


@backend.command()
@common.socket_option
@_vip
@_address
def remove(vip: str, address: str) -> None:
    """Remove a backend from a VIP."""
    common.call("backend.remove", vip=vip, address=address)
    common.done(f"backend {address} removed from VIP {vip}")


@backend.command()
@common.socket_option
@_vip
@_address
@common.json_option
def show(vip: str, address: str, as_json: bool) -> None:
    """Show a backend's state, why it is so and since when, and the last results of its checks."""
    found = common.call("backend.show", vip=vip, address=address)
    if as_json:
        common.print_json(found)
    else:
        render.backend(found)


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
