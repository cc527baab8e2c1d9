"""How soon a server that fails gets no more connections, and how many of them fail, beside HAProxy in the same lab."""

import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import click

from l4lb.lab.daemon import L4LB, Daemon
from l4lb.lab.faults import blackholed, frozen, killed
from l4lb.lab.servers import HTTP_PORT, UDP_PORT, start_servers
from l4lb.lab.topology import Lab, Layout, Server, lab

VIP = "10.1.0.100"
_BEFORE, _AFTER = 1.5, 14.0  # seconds of requests before and after the fault: longer than any check takes
_SLOW = 0.5  # seconds
_CHECK = "option httpchk GET /"

_HAPROXY = """\
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 1s
    timeout client 5s
    timeout server 5s
    retries 3
    option redispatch
listen web
    bind {vip}:80
    balance roundrobin
    {check}
{servers}
"""

Fault = Callable[[Lab, Server], AbstractContextManager[None]]
_FAULTS: dict[str, Fault] = {"killed": killed, "frozen": frozen, "blackholed": blackholed}


@dataclass(frozen=True, slots=True)
class Harm:
    """What a fault did to clients.

    Attributes:
        seconds: from the fault to the last request that failed; 0 if none did.
        failed: how many requests.
        slow: how many that did not fail took longer than half a second.
        asked: of how many.
    """

    seconds: float
    failed: int
    slow: int
    asked: int


@contextmanager
def _l4lb(made: Lab, *options: str) -> Iterator[None]:
    """The daemon with a VIP that is checked as HAProxy does it by default: every two seconds, three failures."""
    daemon = Daemon(made)
    daemon.state.unlink(missing_ok=True)
    daemon.start()
    try:
        check = ("--check", "http:path=/", "--interval", "2s", "--timeout", "1s", "--fall", "3", "--rise", "2")
        daemon.cli("vip", "add", "web", f"{VIP}:80/tcp", *check, *options)
        for server in made.servers:
            daemon.cli("backend", "add", "web", f"{server.address}:{HTTP_PORT}")
        while any(backend["state"] != "up" for backend in daemon.status()["vips"][0]["backends"]):
            time.sleep(0.1)
        yield
    finally:
        daemon.end(signal.SIGTERM)
        made.gateway.run(L4LB, "unload", "--pins", str(daemon.pins))


@contextmanager
def _haproxy(made: Lab, *options: str) -> Iterator[None]:
    """HAProxy as a Layer 4 balancer, with what is usually set so that it tries other servers."""
    path = made.folder / "haproxy.cfg"
    how = " ".join(("check inter 2s fall 3 rise 2", *options))
    servers = "\n".join(f"    server {server.name} {server.address}:{HTTP_PORT} {how}" for server in made.servers)
    path.write_text(_HAPROXY.format(vip=VIP, check=_CHECK, servers=servers))
    made.gateway.ip(f"address replace {VIP}/32 dev wan")
    process = made.gateway.start("haproxy", "-db", "-f", str(path))
    try:
        while f"{VIP}:80 " not in made.gateway.run("ss", "-Hlnt").stdout:
            if process.poll() is not None:
                raise click.ClickException(f"haproxy ended: see `haproxy -c -f {path}`")
            time.sleep(0.05)
        time.sleep(3)  # its first checks
        yield
    finally:
        process.kill()
        process.wait()
        made.gateway.ip(f"address delete {VIP}/32 dev wan")


_Contender = Callable[[Lab], AbstractContextManager[None]]
_CONTENDERS: dict[str, _Contender] = {
    "l4lb, http check every 2 s": _l4lb,
    "l4lb, the same and --passive": lambda made: _l4lb(made, "--passive", "--fast-interval", "500ms"),
    "HAProxy, http check every 2 s": _haproxy,
    "HAProxy, the same and observe layer4": lambda made: _haproxy(
        made, "observe layer4 error-limit 10 on-error mark-down"
    ),
}


@click.command()
@click.option("--rate", default=500, show_default=True, help="New connections per second, over three servers.")
@click.option("--runs", default=1, show_default=True, help="Of each; medians are shown.")
@click.option("--fault", "only", type=click.Choice(list(_FAULTS)), help="Only this one.")
def detect(rate: int, runs: int, only: str | None) -> None:
    """What a server that is killed, frozen or cut off costs its clients, with l4lb and with HAProxy."""
    if shutil.which("haproxy") is None:
        raise click.ClickException("haproxy is not installed: apt-get install --no-install-recommends haproxy")
    click.echo(f"{rate} new connections per second, one request each, patience 2 s; one of three servers fails.")
    click.echo("HAProxy: mode tcp, timeout connect 1s, retries 3, option redispatch.")
    click.echo("As clients see it: from the fault to the last request that failed; how many did; how many took long.\n")
    click.echo(f"{'fault':12}{'balancer':40}{'until':>8}{'failed':>8}{'slow':>8}{'of':>8}")
    for fault in _FAULTS if only is None else (only,):
        for name, contender in _CONTENDERS.items():
            harms = [_harm(contender, _FAULTS[fault], rate) for _ in range(runs)]
            seconds = statistics.median(harm.seconds for harm in harms)
            failed = statistics.median(harm.failed for harm in harms)
            slow = statistics.median(harm.slow for harm in harms)
            click.echo(f"{fault:12}{name:40}{seconds:>6.2f} s{failed:>8.0f}{slow:>8.0f}{harms[0].asked:>8}")


def _harm(contender: _Contender, fault: Fault, rate: int) -> Harm:
    with lab(Layout.ROUTED) as made:
        start_servers(made, HTTP_PORT, UDP_PORT)
        with contender(made):
            words = ("-m", "l4lb.lab.steady", VIP, "80", str(rate), str(_BEFORE + _AFTER))
            client = made.client.start(sys.executable, *words, output=subprocess.PIPE)
            try:
                time.sleep(_BEFORE)
                at = time.monotonic()
                with fault(made, made.servers[0]):
                    printed, _ = client.communicate(timeout=60)
            finally:
                client.kill()
                client.wait()
    requests = json.loads(printed)
    failed = [began for began, _, how in requests if how]
    slow = sum(took > _SLOW for _, took, how in requests if not how)
    return Harm(max(0.0, max(failed, default=at) - at), len(failed), slow, len(requests))
