"""`l4lb status`: everything at a glance."""

import click

from l4lb.cli import common, render


@click.command()
@common.socket_option
@common.json_option
def status(as_json: bool) -> None:
    """Show interfaces, VIPs, backends, traffic, and why packets were not forwarded."""
    answer = common.call("status")
    if as_json:
        common.print_json(answer)
    else:
        render.status(answer)
