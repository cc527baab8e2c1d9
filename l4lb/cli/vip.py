"""`l4lb vip`: virtual IPs."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from l4lb.cli import common, render
from l4lb.cli.health_options import health_options
from l4lb.health.check import Check
from l4lb.health.rules import MAX_TIER_SHARE, NoneLeft, Panic, VipRules
from l4lb.model import GUE_PORT, MAX_IDLE_TIMEOUT, POOL, POOL_SIZES, Mode, Scheduler, Via
from l4lb.ports import MAX_PORT
from l4lb.rules import MSS_RANGE

_Function = TypeVar("_Function", bound=Callable[..., Any])

_mode = click.Choice([str(mode) for mode in Mode])
_scheduler = click.Choice([str(scheduler) for scheduler in Scheduler])
_pool = click.Choice([str(size) for size in POOL_SIZES])

# name, type, what it is, and what it is for a new VIP if it is left out
_SETTINGS: tuple[tuple[str, click.ParamType[Any], str, str], ...] = (
    ("mode", _mode, "How packets reach a backend.", str(Mode.NAT)),
    ("scheduler", _scheduler, "How a flow's backend is chosen.", str(Scheduler.MAGLEV)),
    (
        "idle-timeout",
        click.IntRange(1, MAX_IDLE_TIMEOUT),
        "Seconds that a flow may be silent and still keeps its backend when backends change.",
        "300 for tcp, 60 for udp",
    ),
    ("gue-port", click.IntRange(1, MAX_PORT), "UDP port at which backends take packets in mode gue.", str(GUE_PORT)),
    (
        "mss",
        click.IntRange(0, MSS_RANGE[1]),
        "Largest TCP segment, in bytes, that a SYN through the gateway may announce; 0 for any.",
        "0",
    ),
    (
        "client-prefix",
        click.IntRange(0, 128),
        "Bits of a client's address that source-hash goes by, so that a network keeps one backend; 0 for all.",
        "0",
    ),
    (
        "pool",
        _pool,
        "Places for connections to each server, in mode fullnat and for servers of several VIPs in mode nat.",
        str(POOL),
    ),
    (
        "panic-share",
        click.IntRange(0, 100),
        "Percent of the weight that has to be healthy, or the VIP is in panic; 0 for never.",
        str(VipRules().panic_share),
    ),
    (
        "panic",
        click.Choice([str(choice) for choice in Panic]),
        "What it does then: spread new flows over all backends, or refuse them.",
        str(VipRules().panic),
    ),
    (
        "tier-share",
        click.IntRange(100, MAX_TIER_SHARE),
        "Percent of its healthy weight that a tier carries before the next one has to help (--priority of backends).",
        str(VipRules().tier_share),
    ),
    (
        "via",
        click.Choice([str(choice) for choice in Via]),
        "How probes reach a backend: at its own address, or at the VIP's in the way that traffic takes.",
        str(Via.DIRECT),
    ),
    (
        "none-left",
        click.Choice([str(choice) for choice in NoneLeft]),
        "What clients get while no backend takes new flows: nothing, or a TCP reset or ICMP port unreachable.",
        str(NoneLeft.DROP),
    ),
)


def _settings(*, new: bool) -> Callable[[_Function], _Function]:
    """The options of all settings; None is passed for those that are left out."""

    def decorate(function: _Function) -> _Function:
        function = click.option(
            "--source",
            "sources",
            type=common.Network(),
            multiple=True,
            metavar="NETWORK",
            help="Where packets to backends come from in modes fullnat, ipip and gue; one for each of IPv4 and IPv6."
            + ("  [default: the gateway's address]" if new else ""),
        )(function)
        function = click.option(
            "--passive/--no-passive",
            default=None,
            help="Suspect a backend whose handshakes stop being answered, and probe it at once (nat, fullnat).",
        )(function)
        function = health_options(new=new)(function)
        function = click.option(
            "--check",
            "checks",
            multiple=True,
            metavar="CHECK",
            help="What is looked for in each backend, as http:path=/health,status=200; may repeat, all have to pass;"
            " none for no checks. `l4lb checks` has all kinds.",
        )(function)
        for name, kind, text, default in reversed(_SETTINGS):
            text += f"  [default: {default}]" if new else ""
            function = click.option(f"--{name}", type=kind, help=text)(function)
        return function

    return decorate


def _given(options: dict[str, Any]) -> dict[str, object]:
    """The settings that were given, as the daemon takes them."""
    found = {name: value for name, value in options.items() if value not in (None, ())}
    if "pool" in found:
        found["pool"] = int(found["pool"])
    if "checks" in found:
        found["checks"] = _checks(options["checks"])
    return found


def _checks(texts: tuple[str, ...]) -> list[str]:
    """As given, checked; "none" alone stands for no checks."""
    if texts == ("none",):
        return []
    if "none" in texts:
        raise click.UsageError("--check none ends all checks: leave it out, or the other checks")
    return [str(Check.parse(text)) for text in texts]


@click.group()
def vip() -> None:
    """Virtual IPs: what clients connect to."""


@vip.command()
@common.socket_option
@click.argument("name")
@click.argument("address", type=common.VipAddress(), metavar="ADDRESS:PORTS/tcp|udp")
@_settings(new=True)
def add(name: str, address: tuple[str, str], **options: Any) -> None:
    """Add a VIP. PORTS is one port, a range, or * for all; the narrowest VIP that fits a packet takes it.

    \b
      l4lb vip add web 192.0.2.10:80/tcp
      l4lb vip add media '[2001:db8::10]:8000-8999/udp' --mode dsr
      l4lb vip add all '192.0.2.11:*/tcp' --mode ipip --scheduler source-hash
    """  # noqa: D301 (click wants the character)
    place, protocol = address
    common.call("vip.add", name=name, address=place, protocol=protocol, **_given(options))
    common.done(f"VIP {name} added; give it servers with `l4lb backend add {name} ADDRESS[:PORT]`")


@vip.command("set")
@common.socket_option
@click.argument("name", type=common.VipName())
@_settings(new=False)
@click.option("--no-source", is_flag=True, help="Take all sources back: packets come from the gateway's address.")
def set_(name: str, no_source: bool, **options: Any) -> None:
    """Change a VIP's settings; those that are left out stay."""
    changes = _given(options)
    if no_source:
        if "sources" in changes:
            raise click.UsageError("--source and --no-source cannot both be: give one of them")
        changes["sources"] = []
    if not changes:
        raise click.UsageError("nothing to set: give --mode, --scheduler or another option")
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
