"""`l4lb explain`: where a packet would go, and why."""

import click

from l4lb.cli import common
from l4lb.errors import UsageError

_WHY = {
    "settled": "all flows in its slot are at this backend",
    "tracked": "the flow's record says so",
    "previous": "the flow has no record, so it is older than the last change of its slot",
    "new": "a flow that begins now goes to the scheduler's current choice",
    "round_robin": "a flow that begins goes to the next backend in turn",
    "least_connections": "a flow that begins goes to the backend with the fewest open connections for its weight",
    "random": "a flow that begins goes to a backend by chance",
    "no_backend": "no backend has a weight above 0",
}


@click.command()
@common.socket_option
@common.json_option
@click.argument("protocol", type=click.Choice(["tcp", "udp"]), metavar="tcp|udp")
@click.argument("client", type=common.FlowEnd(), metavar="CLIENT:PORT")
@click.argument("service", type=common.FlowEnd(), metavar="VIP_ADDRESS:PORT")
@click.option("--syn", is_flag=True, help="Ask about the first packet of a TCP connection.")
def explain(as_json: bool, protocol: str, client: str, service: str, syn: bool) -> None:
    """Tell which backend a packet would go to now, and why, as in `l4lb explain tcp 10.1.0.2:4000 192.0.2.10:80`.

    Nothing is sent, and nothing changes. IPv6 addresses are written in brackets, as in `[2001:db8::1]:80`.
    """
    if syn and protocol != "tcp":
        raise UsageError("only a TCP packet can be a SYN", "leave --syn out")
    answer = common.call("explain", protocol=protocol, client=client, service=service, begins=syn)
    if as_json:
        common.print_json(answer)
        return
    nobody = "no backend" if answer["why"] == "no_backend" else "one of its backends"
    click.echo(f"VIP {answer['vip']}: {answer['backend'] or nobody} ({answer['why']}: {_WHY[answer['why']]})")
    if answer["next_hop"]:
        click.echo(f"next hop {answer['next_hop']}")
