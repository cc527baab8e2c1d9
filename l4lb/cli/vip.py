"""`l4lb vip`: virtual IPs."""

import click

from l4lb.cli import common, render
from l4lb.model import MAX_IDLE_TIMEOUT, Mode, Scheduler

_mode = click.Choice([str(mode) for mode in Mode])
_scheduler = click.Choice([str(scheduler) for scheduler in Scheduler])
_idle = click.IntRange(1, MAX_IDLE_TIMEOUT)
_MODE_HELP = "How packets reach a backend."
_IDLE_HELP = "Seconds that a flow may be silent and still keeps its backend when backends change."
_SCHEDULER_HELP = "How a flow's backend is chosen."


@click.group()
def vip() -> None:
    """Virtual IPs: what clients connect to."""


@vip.command()
@common.socket_option
@click.argument("name")
@click.argument("address", type=common.VipAddress(), metavar="ADDRESS:PORT/tcp|udp")
@click.option("--mode", type=_mode, default=str(Mode.NAT), show_default=True, help=_MODE_HELP)
@click.option("--scheduler", type=_scheduler, default=str(Scheduler.MAGLEV), show_default=True, help=_SCHEDULER_HELP)
@click.option("--idle-timeout", type=_idle, help=f"{_IDLE_HELP}  [default: 300 for tcp, 60 for udp]")
def add(name: str, address: tuple[str, str], mode: str, scheduler: str, idle_timeout: int | None) -> None:
    """Add a VIP, as in `l4lb vip add web 192.0.2.10:80/tcp`."""
    endpoint, protocol = address
    options = {} if idle_timeout is None else {"idle_timeout": idle_timeout}
    common.call("vip.add", name=name, address=endpoint, protocol=protocol, mode=mode, scheduler=scheduler, **options)
    common.done(f"VIP {name} added; give it servers with `l4lb backend add {name} ADDRESS[:PORT]`")


@vip.command("set")
@common.socket_option
@click.argument("name", type=common.VipName())
@click.option("--mode", type=_mode, help=_MODE_HELP)
@click.option("--scheduler", type=_scheduler, help=_SCHEDULER_HELP)
@click.option("--idle-timeout", type=_idle, help=_IDLE_HELP)
def set_(name: str, **options: str | int | None) -> None:
    """Change a VIP."""
    changes = {key: value for key, value in options.items() if value is not None}
    if not changes:
        raise click.UsageError("nothing to set: give --mode, --scheduler or --idle-timeout")
    common.call("vip.set", name=name, **changes)
    common.done(f"VIP {name} changed")


@vip.command()
@common.socket_option
@click.argument("name", type=common.VipName())
def remove(name: str) -> None:
    """Remove a VIP with all its backends."""
    common.call("vip.remove", name=name)
    common.done(f"VIP {name} removed")


@vip.command("list")
@common.socket_option
@common.json_option
def list_(as_json: bool) -> None:
    """List the VIPs."""
    vips = common.call("vip.list")
    if as_json:
        common.print_json(vips)
    else:
        render.vips(vips)
