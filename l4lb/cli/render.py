"""Tables for people: aligned, colour only on a terminal that wants it."""

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from ipaddress import ip_address
from typing import Any

import click

from l4lb.cli import common
from l4lb.durations import format_duration
from l4lb.health.rules import NoneLeft
from l4lb.model import GUE_PORT, POOL, Mode, Protocol, Service, Via
from l4lb.view import NO_TRANSMIT

Row = Sequence[str]

_BAR = 20  # characters
_RIGHT = frozenset({"WEIGHT", "OPEN", "PACKETS", "BYTES", "BACK", "SHARE"})


def table(header: Row, rows: Sequence[Row], indent: int = 0, spare: Sequence[str] = ()) -> None:
    """Prints rows below a header; columns of numbers are aligned to the right.

    On a terminal that is too narrow, columns are left out: those named by `spare`, in that order, while it helps.
    """
    widths = [max(len(click.unstyle(row[column])) for row in (header, *rows)) for column in range(len(header))]
    if (
        spare
        and sys.stdout.isatty()
        and indent + sum(widths) + 2 * len(widths) - 2 > shutil.get_terminal_size().columns
    ):
        left = [column for column, title in enumerate(header) if title != spare[0]]
        kept = [[row[column] for column in left] for row in (header, *rows)]
        table(kept[0], kept[1:], indent, spare[1:])
        return
    for row in ([_style(title, dim=True) for title in header], *rows):
        cells = (
            " " * (width - len(click.unstyle(cell))) + cell
            if title in _RIGHT
            else cell + " " * (width - len(click.unstyle(cell)))
            for cell, width, title in zip(row, widths, header, strict=True)
        )
        click.echo(" " * indent + "  ".join(cells).rstrip())


def vips(views: list[dict[str, Any]]) -> None:
    """All VIPs, a line each."""
    if not views:
        click.echo("no VIPs; add one with `l4lb vip add NAME ADDRESS:PORT/tcp`", err=True)
        return
    rows = [
        (
            vip["name"],
            _vip_address(vip),
            vip["mode"],
            vip["scheduler"],
            _backends(vip),
            count(vip["packets"]),
            size(vip["bytes"]),
            ", ".join(_chosen(vip)),
        )
        for vip in views
    ]
    header = ("NAME", "ADDRESS", "MODE", "SCHEDULER", "BACKENDS", "PACKETS", "BYTES", "SETTINGS")
    columns = len(header) if any(row[-1] for row in rows) else len(header) - 1
    table(header[:columns], [row[:columns] for row in rows], spare=("SETTINGS", "BYTES"))


def backends(views: list[dict[str, Any]], indent: int = 0) -> None:
    """The backends of a VIP, a line each, with their shares of its packets."""
    if not views:
        click.echo(" " * indent + _style("no backends: nobody takes its packets", fg="red"))
        return
    judged = any(_remark(backend) for backend in views)
    total = sum(backend["packets"] for backend in views) or 1
    counted = any("open_connections" in backend for backend in views)
    table(
        (
            *("BACKEND", "WEIGHT", "STATE", *(["OPEN"] * counted), "PACKETS", "BYTES", "BACK", "SHARE", "", "NEXT HOP"),
            *(["REASON"] * judged),
        ),
        [
            (
                common.backend_address(backend),
                _weight(backend),
                _state(backend["state"]),
                *([count(backend.get("open_connections", 0))] * counted),
                count(backend["packets"]),
                size(backend["bytes"]),
                size(backend["bytes_back"]),
                f"{100 * backend['packets'] / total:.0f}%",
                bar(backend["packets"] / total),
                _next_hop(backend["next_hop"]),
                *([_remark(backend)] * judged),
            )
            for backend in views
        ],
        indent,
        spare=("", "BACK", "SHARE", "BYTES", "NEXT HOP"),
    )


def backend(view: dict[str, Any]) -> None:
    """One backend, with the last results of its checks."""
    since = f"since {moment(view['since'])}" + (", without a result of late" if view["stale"] else "")
    click.echo(
        f"{_style(common.backend_address(view), bold=True)} of VIP {view['vip']}: {_state(view['state'])}, {since}"
    )
    click.echo(f"  {view['reason']}")
    weight = f"weight {_weight(view)}" + (f", tier {view['priority']}" if view["priority"] else "")
    click.echo(f"  {weight}, next hop {_next_hop(view['next_hop'])}, {count(view['packets'])} packets")
    if "handshakes" in view:
        heard = view["handshakes"]
        told = f"{count(heard['answered'])} of {count(heard['begun'])} handshakes answered"
        click.echo(f"  {told}, half of them within {heard['median_ms']:g} ms, {count(heard['refused'])} refused")
    if not view["checks"]:
        click.echo(f"  no checks; give it some with `l4lb vip set {view['vip']} --check tcp`")
        return
    every = f"every {format_duration(view['interval'])}, timeout {format_duration(view['timeout'])}"
    via = " to the VIP's address, by way of the dataplane" if view["via"] == Via.DATAPLANE else ""
    click.echo(f"  checked {every}, rise {view['rise']}, fall {view['fall']}{via}")
    for check in view["checks"]:
        click.echo(f"\n  {check['check']}: {_state(check['state'])}{', ' * bool(check['why'])}{check['why']}")
        rows = [
            (
                moment(result["time"]),
                _style("ok", fg="green") if result["ok"] else _style("failed", fg="red"),
                f"{result['latency_ms']:.1f} ms",
                result["reason"],
            )
            for result in check["results"]
        ]
        if rows:
            table(("TIME", "RESULT", "LATENCY", "WHAT CAME"), rows, indent=4)


def event(view: dict[str, Any]) -> None:
    """One event, on a line."""
    whose = view["vip"] + (f" {view['backend']}" if view["backend"] is not None else "")
    click.echo(f"{moment(view['time'])}  {whose}  {_state(view['what'])}: {view['why']}; {view['effect']}")


def differences(lines: Iterable[str]) -> None:
    """What is different between two configurations, with colours by the signs that the lines begin with."""
    for line in lines:
        click.echo(_style(line, fg=_SIGNS[line[0]]))


def status(view: dict[str, Any]) -> None:
    """Everything, with what needs attention in red."""
    where = ", ".join(f"{interface['name']} ({interface['xdp_mode']})" for interface in view["interfaces"])
    click.echo(f"l4lb {view['version']}, up {duration(view['uptime_seconds'])}, on {where}")
    for interface in view["interfaces"]:
        if len(view["interfaces"]) > 1 and interface["xdp_transmit"] is False:
            click.echo(_style(NO_TRANSMIT.format(interface["name"]), fg="red"))
    for vip in view["vips"]:
        how = ", ".join([vip["mode"], vip["scheduler"], *_chosen(vip)])
        head = f"{_style(vip['name'], bold=True)}  {_vip_address(vip)}  {how}"
        figures = f"{count(vip['packets'])} packets, {size(vip['bytes'])}{', settling' * vip['settling']}"
        click.echo(f"\n{head}  {figures}")
        if vip["verdict"] != "ok" and vip["backends"]:
            click.echo(_style(f"  {vip['verdict'].upper()}: {vip['verdict_why']}", fg="red", bold=True))
        backends(vip["backends"], indent=2)
    if not view["vips"]:
        click.echo("\nno VIPs; add one with `l4lb vip add NAME ADDRESS:PORT/tcp`")
    reasons = {name: number for name, number in view["reasons"].items() if number}
    if reasons:
        click.echo("\npackets not forwarded")
        table(
            ("REASON", "PACKETS"),
            [
                (_style(name, fg="yellow") if name.startswith("drop") else name, count(number))
                for name, number in sorted(reasons.items(), key=lambda item: (not item[0].startswith("drop"), -item[1]))
            ],
            indent=2,
        )


def _vip_address(vip: dict[str, Any]) -> str:
    last = vip.get("last_port", vip["port"])
    return str(Service(ip_address(vip["address"]), vip["port"], last, Protocol.parse(vip["protocol"])))


def _chosen(vip: dict[str, Any]) -> list[str]:
    """Of the settings beside mode and scheduler, those that are not as they always are, and have an effect."""
    found = []
    if vip["client_prefix"]:
        found.append(f"clients by /{vip['client_prefix']}")
    if vip["sources"]:
        found.append(f"from {' and '.join(vip['sources'])}")
    if vip["mode"] == Mode.GUE and vip["gue_port"] != GUE_PORT:
        found.append(f"GUE port {vip['gue_port']}")
    if vip["mode"] == Mode.FULLNAT and vip["pool"] != POOL:
        found.append(f"pool {vip['pool']}")
    if vip["mss"]:
        found.append(f"MSS {vip['mss']}")
    if vip["idle_timeout"] != Protocol.parse(vip["protocol"]).idle_timeout:
        found.append(f"idle after {duration(vip['idle_timeout'])}")
    if vip["checks"]:
        way = " by way of the dataplane" if vip["via"] == Via.DATAPLANE else ""
        found.append(f"checked by {' and '.join(vip['checks'])} every {format_duration(vip['interval'])}{way}")
    if vip["passive"]:
        found.append("handshakes watched")
    if vip["panic_share"]:
        found.append(f"{vip['panic']} if less than {vip['panic_share']} % is healthy")
    if vip["none_left"] != NoneLeft.DROP:
        found.append(f"{vip['none_left']} if no backend is left")
    return found


def _backends(vip: dict[str, Any]) -> str:
    """How many take new flows."""
    number = sum(backend["effective_weight"] > 0 for backend in vip["backends"])
    return f"{number} of {len(vip['backends'])}" if number else _style("none", fg="red")


def _weight(backend: dict[str, Any]) -> str:
    """As configured, and what share of it counts, if not all."""
    share = backend["weight_share"]
    return str(backend["weight"]) + (f" ({100 * share:.0f}%)" if share not in (0.0, 1.0) else "")


_SIGNS = {"+": "green", "-": "red", "~": "yellow"}
_STATES = {"up": "green", "down": "red", "disabled": "yellow", "draining": "yellow", "none": "red", "refused": "red"}


def _state(text: str) -> str:
    return _style(text, fg=_STATES[text]) if text in _STATES else text


def _remark(backend: dict[str, Any]) -> str:
    """Why a backend is not simply up, in a few words, where the other columns do not tell it."""
    reason: str = backend["reason"]
    return "" if reason in ("up", "unknown", "weight 0", backend["state"]) else reason


def moment(seconds: float) -> str:
    """A time of this day or an earlier one, local."""
    then = datetime.fromtimestamp(seconds).astimezone()
    today = then.date() == datetime.now().astimezone().date()
    return then.strftime("%H:%M:%S.%f" if today else "%Y-%m-%d %H:%M:%S.%f")[:-3]


def _next_hop(text: str) -> str:
    return _style(text, fg="red") if text.startswith("unresolved") else text


def bar(share: float) -> str:
    """A share of 1 as a bar, to an eighth of a character."""
    eighths = round(share * _BAR * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(_BAR)


def count(number: int) -> str:
    """A number with its thousands set apart."""
    return f"{number:,}"


def size(number: float) -> str:
    """Bytes in decimal units, as networks are measured."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds in the two largest units that say something."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour}h"
    if hours:
        return f"{hour}h {minute}m"
    return f"{minute}m {second}s" if minute else f"{second}s"


def _style(text: str, **style: Any) -> str:
    wanted = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return click.style(text, **style) if wanted else text
