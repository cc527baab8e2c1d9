"""`l4lb decap`: for backends of tunnels."""

from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from l4lb.cli import common, render
from l4lb.errors import UsageError
from l4lb.model import GUE_PORT, IPAddress
from l4lb.options import XDP_MODES
from l4lb.ports import MAX_PORT

if TYPE_CHECKING:  # what a command needs is imported when it runs
    from l4lb.datapath.decap import Setup, Status

_PINS = Path("/sys/fs/bpf/l4lb-decap")


class _Address(click.ParamType[Any]):
    """An IP address; one of IPv6 may be in brackets, as it is where a port follows."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> IPAddress:
        """The address."""
        bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        try:
            return ip_address(bare)
        except ValueError:
            raise UsageError(
                f"{value!r} is no IP address", "write it as in 192.0.2.10 or 2001:db8::10, without a port"
            ) from None


@click.command()
@click.option(
    "--interface", "interfaces", multiple=True, metavar="IF", help="Where the balancer's packets come in; may repeat."
)
@click.option(
    "--vip",
    "vips",
    type=_Address(),
    multiple=True,
    metavar="ADDRESS",
    help="A VIP that this host serves; may repeat.  [default: the addresses on lo]",
)
@click.option(
    "--gue-port", type=click.IntRange(1, MAX_PORT), help=f"UDP port of mode gue's packets.  [default: {GUE_PORT}]"
)
@click.option(
    "--xdp-mode",
    type=click.Choice(XDP_MODES),
    help="In the driver, or (slower) on any interface.  [default: native]",
)
@click.option(
    "--pins",
    type=click.Path(path_type=Path),
    default=_PINS,
    show_default=True,
    help="A folder in a BPF file system for program and maps.",
)
@click.option("--status", "show", is_flag=True, help="Show what is at work, and what became of packets.")
@common.json_option
@click.option("--remove", is_flag=True, help="Take the program off all interfaces.")
def decap(
    interfaces: tuple[str, ...],
    vips: tuple[IPAddress, ...],
    gue_port: int | None,
    xdp_mode: str | None,
    pins: Path,
    show: bool,
    as_json: bool,
    remove: bool,
) -> None:
    """On a backend: take off the outer headers of modes ipip and gue, in XDP, with no tunnel device.

    Only packets for the VIPs are touched; all others go to the kernel as they are. The command ends at once and the
    program stays; the next such command replaces interfaces, VIPs and port by what it names, and loses no packet.

    \b
      ip address add 192.0.2.10/32 dev lo
      l4lb decap --interface eth0
      l4lb decap --status
      l4lb decap --remove
    """  # noqa: D301 (click wants the character)
    configures = bool(interfaces or vips or gue_port or xdp_mode)
    if show + remove + configures > 1:
        raise click.UsageError("--status, --remove and what sets it up cannot be combined: give one of them")
    if as_json and not show:
        raise click.UsageError("--json is for --status")
    if not (show or remove or interfaces):
        raise click.UsageError("Missing option '--interface'")
    from l4lb.datapath import decap as datapath

    if show:
        _show(datapath.status(pins), as_json)
    elif remove:
        names = datapath.remove(pins)
        common.done(f"no longer decapsulating on {', '.join(names)}" if names else "nothing was attached")
    else:
        setup, missing = datapath.install(pins, interfaces, vips, gue_port or GUE_PORT, xdp_mode or "native")
        common.done(f"decapsulating on {', '.join(interfaces)} for {_setup(setup)}")
        for line in _missing(missing):
            common.done(line)


def _show(status: "Status", as_json: bool) -> None:
    if as_json:
        common.print_json(
            {
                "interfaces": [
                    {
                        "name": interface.name,
                        "xdp_mode": interface.xdp_mode,
                        "gue_port": interface.setup.gue_port,
                        "vips": _sorted(interface.setup.vips),
                    }
                    for interface in status.interfaces
                ],
                "missing_addresses": _sorted(status.missing),
                "reasons": dict(status.reasons),
            }
        )
        return
    for interface in status.interfaces:
        click.echo(f"{interface.name} ({interface.xdp_mode}): {_setup(interface.setup)}")
    for line in _missing(status.missing):
        click.echo(line)
    rows = [(reason, render.count(number)) for reason, number in status.reasons.items() if number]
    click.echo()
    if rows:
        render.table(("REASON", "PACKETS"), rows)
    else:
        click.echo("no packets yet")


def _setup(setup: "Setup") -> str:
    return f"{', '.join(_sorted(setup.vips))}; GUE by UDP port {setup.gue_port}"


def _missing(addresses: Collection[IPAddress]) -> list[str]:
    return [
        f"{address} is no address of this host: add it with `ip address add {address} dev lo`"
        for address in _sorted(addresses)
    ]


def _sorted(addresses: Collection[IPAddress]) -> list[str]:
    """IPv4 first, in numerical order."""
    return [str(address) for address in sorted(addresses, key=lambda address: (address.version, int(address)))]
