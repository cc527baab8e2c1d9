"""`l4lb run`: the daemon."""

import logging
from pathlib import Path

import click

from l4lb.cli import common
from l4lb.model import MAX_SEED
from l4lb.options import DEFAULT_PINS, DEFAULT_STATE, XDP_MODES, RunOptions

_path = click.Path(path_type=Path)


@click.command()
@common.socket_option
@click.option(
    "--interface",
    "interfaces",
    multiple=True,
    required=True,
    metavar="IF",
    help="Where packets come in and leave, with the VLANs on it; may repeat.",
)
@click.option(
    "--config",
    type=common.file_type,
    metavar="FILE",
    help="The configuration to start with, as for `l4lb apply`, instead of the saved one; it is saved.",
)
@click.option("--state", type=_path, default=DEFAULT_STATE, show_default=True, help="Where VIPs and backends are kept.")
@click.option("--socket-group", metavar="GROUP", help="A group that may use the control socket besides root.")
@click.option(
    "--xdp-mode",
    type=click.Choice(XDP_MODES),
    default="native",
    show_default=True,
    help="In the driver, or (slower) on any interface.",
)
@click.option(
    "--pins",
    type=_path,
    default=DEFAULT_PINS,
    show_default=True,
    help="A folder in a BPF file system for program and maps.",
)
@click.option(
    "--announce/--no-announce",
    default=True,
    show_default=True,
    help="Put the addresses of VIPs, and of fullnat's sources, on an interface, for hosts on its segment; not needed"
    " where they are routed here.",
)
@click.option(
    "--echo/--no-echo",
    default=True,
    show_default=True,
    help="Answer pings to VIPs in XDP; else they are left to the kernel.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    help="Keys the choice of backends; gateways that share it agree. [default: that of --config, the saved one, or 0]",
)
@click.option("--reset-state", is_flag=True, help="Begin with nothing if the state file is damaged; it is kept aside.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning"]), default="info", show_default=True)
@click.pass_context
def run(
    ctx: click.Context,
    interfaces: tuple[str, ...],
    config: str | None,
    state: Path,
    socket_group: str | None,
    xdp_mode: str,
    pins: Path,
    announce: bool,
    echo: bool,
    seed: int | None,
    reset_state: bool,
    log_level: str,
) -> None:
    """Run the daemon on these interfaces, until SIGTERM or Ctrl-C.

    Forwarding goes on when it stops or is killed; `l4lb unload` ends it.
    """
    logging.basicConfig(level=log_level.upper(), format="l4lb: %(message)s")
    from l4lb.daemon import run as run_now

    run_now(
        RunOptions(
            interfaces=tuple(dict.fromkeys(interfaces)),
            state=state,
            socket=Path(ctx.obj),
            socket_group=socket_group,
            xdp_mode=xdp_mode,
            pins=pins,
            announce=announce,
            echo=echo,
            config=config,
            seed=seed,
            reset_state=reset_state,
        )
    )
