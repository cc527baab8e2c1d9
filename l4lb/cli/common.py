"""What the commands share: options, argument types, and the way to the daemon."""

import json
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from l4lb import settings
from l4lb.client import PATIENCE, Client
from l4lb.errors import L4lbError
from l4lb.model import MAX_WEIGHT, Endpoint, Service

_Function = TypeVar("_Function", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, whose keys are a stable interface.")
file_type = click.Path(allow_dash=True)  # what it holds is looked at when it is read
weight_type = click.IntRange(0, MAX_WEIGHT)


def _remember_socket(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.obj = value


def socket_option(function: _Function) -> _Function:
    """``--socket`` behind a command too, where it is looked for."""
    return click.option(
        "--socket", metavar="PATH", expose_value=False, callback=_remember_socket, help="The daemon's control socket."
    )(function)


def call(operation: str, patience: float = PATIENCE, /, **arguments: object) -> Any:
    """The daemon's answer, within so many seconds."""
    return Client(Path(click.get_current_context().obj), patience).call(operation, **arguments)


def done(text: str) -> None:
    """Tells a person at a terminal what was done; a script has the exit status."""
    if sys.stderr.isatty():
        click.echo(text, err=True)


def print_json(value: object) -> None:
    """JSON for programs and people."""
    click.echo(json.dumps(value, indent=2))


def backend_address(view: dict[str, Any]) -> str:
    """A backend's address as users write it, from what the daemon shows of it."""
    return str(Endpoint(ip_address(view["address"]), view["port"] or 0))


class VipAddress(click.ParamType[Any]):
    """``ADDRESS:PORTS/tcp`` or ``ADDRESS:PORTS/udp``, where PORTS is ``80``, ``8000-8999`` or ``*``."""

    name = "address"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Address and ports in one, and the protocol."""
        service = Service.parse_whole(value)
        return service.place, service.protocol.label


class Network(click.ParamType[Any]):
    """``NETWORK/BITS``, or a single address."""

    name = "network"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As given, checked."""
        return str(settings.parse_network(value))


class FlowEnd(click.ParamType[Any]):
    """``ADDRESS:PORT``, one end of a flow."""

    name = "address"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As given, checked."""
        return str(Endpoint.parse(value))


class BackendAddress(click.ParamType[Any]):
    """``ADDRESS[:PORT]``; the port is the VIP's if it is left out, or the client's if the VIP has several."""

    name = "address"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As given, checked."""
        Endpoint.parse(value, default_port=1)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The backends of the VIP named before it."""
        vips = [vip for vip in _known_vips(ctx) if vip["name"] == ctx.params.get("vip")]
        known = [backend_address(backend) for vip in vips for backend in vip["backends"]]
        return [CompletionItem(address) for address in known if address.startswith(incomplete)]


class VipName(click.ParamType[Any]):
    """The name of a VIP that there is."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As given: the daemon knows which there are."""
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that the daemon knows."""
        return [
            CompletionItem(vip["name"], help=vip["address"])
            for vip in _known_vips(ctx)
            if vip["name"].startswith(incomplete)
        ]


def _known_vips(ctx: click.Context) -> list[dict[str, Any]]:
    """For completion, which stays silent when there is no daemon."""
    try:
        vips: list[dict[str, Any]] = Client(Path(ctx.find_root().params["socket"]), timeout=1).call("vip.list")  # type: ignore[assignment]
    except L4lbError:
        return []
    return vips
