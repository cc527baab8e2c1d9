"""`l4lb events`: what happened to backends and VIPs."""

import json
from typing import Any

import click

from l4lb.cli import common, render

_PATIENCE = 20  # seconds that the daemon may wait for something to happen


@click.command()
@common.socket_option
@click.option("--follow", "-f", is_flag=True, help="Go on, and show what happens as it does; Ctrl-C ends it.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, whose keys are a stable interface.")
def events(follow: bool, as_json: bool) -> None:
    """Show what happened to backends and VIPs, with cause and effect, the newest last."""
    since = 0
    while True:
        found = common.call("events", since=since, wait=_PATIENCE if follow and since else 0)
        if found["lost"]:
            click.echo(f"l4lb: {found['lost']:,} older events are not kept any more", err=True)
        for event in found["events"]:
            _show(event, as_json)
        since = found["next"]
        if not follow:
            return


def _show(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(event))
    else:
        render.event(event)
