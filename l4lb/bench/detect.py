"""How soon a server that fails gets no more connections, and how many of them fail, beside HAProxy in the same lab."""

import json
import math
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address

import click

from l4lb.lab.arrivals import Arrivals, arrivals
from l4lb.lab.daemon import Daemon
from l4lb.lab.ending import signals_end_it
from l4lb.lab.faults import blackholed, frozen, killed
from l4lb.lab.haproxy import COMMON, HAProxy
from l4lb.lab.servers import HTTP_PORT, start_servers
from l4lb.lab.steady import PATIENCE
from l4lb.lab.topology import CLIENT_ADDRESS, GATEWAY_ADDRESS, GATEWAY_LAN_ADDRESS, Lab, Layout, Server, lab

_SERVERS = 3  # behind each balancer
_BEFORE = 0.5  # seconds of requests before the fault
_ENOUGH = 100  # connections in a row to the others: by chance once in 10^17, where three share them
_LONGEST = 15.0  # seconds: three failed checks in a row come sooner
_SLOW = 0.5  # seconds
_PASSIVE = "l4lb, --passive too"

Fault = Callable[[Lab, Server], AbstractContextManager[None]]
_FAULTS: dict[str, Fault] = {"killed": killed, "frozen": frozen, "blackholed": blackholed}


@dataclass(frozen=True, slots=True)
class Harm:
    """What a fault did to clients.

    Attributes:
        seconds: from the fault to the last connection that was sent to the server; infinite if they went on.
        failed: how many requests.
        slow: how many that did not fail took longer than half a second.
    """

    seconds: float
    failed: float
    slow: float


@dataclass(slots=True)
class _Balancer:
    """One that is compared, with servers of its own.

    Attributes:
        address, port: that clients connect to.
        is_up: tells whether all of the servers are known to be well.
        arrivals: connections that it sends to them.
        busy: while a fault is played with it.
    """

    name: str
    address: IPv4Address
    port: int
    servers: Sequence[Server]
    is_up: Callable[[], bool]
    arrivals: Arrivals
    busy: threading.Lock = field(default_factory=threading.Lock)


@click.command()
@click.option("--rate", default=500, show_default=True, help="New connections per second, over three servers.")
@click.option("--runs", default=3, show_default=True, help="Of each; medians are shown.")
@click.option("--timeout", default=1.0, show_default=True, help="Seconds, of the checks of both.")
@click.option("--fault", "only", type=click.Choice(list(_FAULTS)), help="Only this one.")
def detect(rate: int, runs: int, timeout: float, only: str | None) -> None:
    """What a server that is killed, frozen or cut off costs its clients, with l4lb and with HAProxy."""
    if shutil.which("haproxy") is None:
        raise click.ClickException("haproxy is not installed: run scripts/setup --haproxy")
    faults = [only] if only else list(_FAULTS)
    with lab(Layout.ROUTED, servers=4 * _SERVERS) as made, signals_end_it(), _balancers(made, timeout) as turns:
        found = _measure(made, turns, faults * runs, rate)
    _report(found, rate, runs, timeout)


@contextmanager
def _balancers(made: Lab, timeout: float) -> Iterator[list[list[_Balancer]]]:
    """All four, in the turns that they are measured in: those that go by checks alone together, as it takes seconds."""
    start_servers(made)
    servers = [made.servers[first : first + _SERVERS] for first in range(0, len(made.servers), _SERVERS)]
    daemon = Daemon(made)
    daemon.start()
    inter = "inter 2s fall 3 rise 2"
    observing = "observe layer4 error-limit 10 on-error mark-down"
    haproxy = HAProxy(
        made,
        {"plain": (servers[1], inter), "observing": (servers[3], f"{inter} {observing}")},
        ("option httpchk GET /", f"timeout check {round(1000 * timeout)}ms"),
    )
    with haproxy.running(), ExitStack() as stack:

        def l4lb(name: str, vip: str, number: int, *options: str) -> _Balancer:
            address = GATEWAY_ADDRESS + 100 + number
            check = ("--check", "http:path=/", "--interval", "2s", "--timeout", f"{timeout}s", "--fall", "3")
            daemon.cli("vip", "add", vip, f"{address}:80/tcp", *check, "--rise", "2", *options)
            for server in servers[number]:
                daemon.cli("backend", "add", vip, f"{server.address}:{HTTP_PORT}")
            heard = stack.enter_context(arrivals(servers[number], CLIENT_ADDRESS))
            return _Balancer(name, address, 80, servers[number], partial(_is_up, daemon, vip), heard)

        def proxy(name: str, service: str, number: int) -> _Balancer:
            heard = stack.enter_context(arrivals(servers[number], GATEWAY_LAN_ADDRESS))
            port, is_up = haproxy.ports[service], partial(haproxy.is_up, service)
            return _Balancer(name, GATEWAY_ADDRESS, port, servers[number], is_up, heard)

        yield [
            [l4lb("l4lb, by checks", "plain", 0), proxy("HAProxy, by checks", "plain", 1)],
            [l4lb(_PASSIVE, "passive", 2, "--passive")],
            [proxy("HAProxy, observe layer4 too", "observing", 3)],
        ]


def _is_up(daemon: Daemon, name: str) -> bool:
    (vip,) = (each for each in daemon.status()["vips"] if each["name"] == name)
    return all(backend["state"] == "up" for backend in vip["backends"])


_Found = Mapping[tuple[str, str], list[Harm]]  # by fault and balancer


def _measure(made: Lab, turns: Sequence[Sequence[_Balancer]], faults: Sequence[str], rate: int) -> _Found:
    """Plays each fault with each balancer, until it is noticed; what becomes of those who wait is seen later."""
    found = defaultdict(list)
    over = threading.Event()
    with ThreadPoolExecutor() as pool, click.progressbar(faults, label="faults", file=sys.stderr) as shown:
        playing: list[tuple[str, str, Future[Harm]]] = []
        try:
            for fault in shown:
                for turn in turns:
                    noticed = [threading.Event() for _ in turn]
                    for balancer, event in zip(turn, noticed, strict=True):
                        future = pool.submit(_play, made, balancer, fault, rate, event, over)
                        playing.append((fault, balancer.name, future))
                    for event in noticed:
                        event.wait()
        finally:
            over.set()
        for fault, name, future in playing:
            found[fault, name].append(future.result())
    return found


def _play(
    made: Lab, balancer: _Balancer, fault: str, rate: int, noticed: threading.Event, over: threading.Event
) -> Harm:
    """One fault, which lasts until the last client has got an answer or gone away."""
    victim, heard = balancer.servers[0], balancer.arrivals

    def until(condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            if over.wait(0.02):
                raise click.Abort
        return condition()

    with balancer.busy, ExitStack() as stack:
        stack.callback(noticed.set)
        if not until(balancer.is_up, 30):
            raise click.ClickException(f"{balancer.name}: its servers are not seen up")
        words = ("-m", "l4lb.lab.steady", str(balancer.address), str(balancer.port), str(rate))
        heard.begin(victim.name)
        client = stack.enter_context(made.client.start(sys.executable, *words, output=subprocess.PIPE))
        stack.callback(client.kill)
        if not until(lambda: heard.last is not None, 10):
            raise click.ClickException(f"{balancer.name}: no connection comes through")
        over.wait(_BEFORE)
        began = time.time()
        stack.enter_context(_FAULTS[fault](made, victim))
        ended = until(lambda: heard.since >= _ENOUGH, _LONGEST)
        seconds = max(0.0, (heard.last or began) - began) if ended else math.inf
        client.send_signal(signal.SIGTERM)
        noticed.set()
        printed, _ = client.communicate(timeout=PATIENCE + 10)
    requests = json.loads(printed)
    return Harm(
        seconds,
        failed=sum(bool(how) for _, how in requests),
        slow=sum(took > _SLOW for took, how in requests if not how),
    )


def _report(found: _Found, rate: int, runs: int, timeout: float) -> None:
    click.echo(
        f"""\
{rate} new connections per second, one HTTP request each, over three servers; one fails. Medians of {runs}.
Checks: HTTP every 2 s, {timeout:g} s for an answer, down after 3 failures; of l4lb and HAProxy alike.
HAProxy besides: mode tcp, {", ".join(COMMON)}.
last: from the fault to the last connection that was sent to that server, as it arrives at its network card.
failed: requests without an answer within {PATIENCE:g} s, or with an error; slow: with one after half a second.
x: times what it is with --passive. Each has servers of its own; the two that go by checks alone fail at the same time.

{"fault":12}{"balancer":30}{"last":>9}{"x":>7}{"failed":>9}{"x":>7}{"slow":>7}"""
    )
    for (fault, name), harms in found.items():
        harm, best = _median(harms), _median(found[fault, _PASSIVE])
        seconds = f"{harm.seconds:.2f} s" if math.isfinite(harm.seconds) else f"> {_LONGEST:.0f} s"
        click.echo(
            f"{fault:12}{name:30}{seconds:>9}{_times(harm.seconds, best.seconds):>7}"
            f"{harm.failed:>9.0f}{_times(harm.failed, best.failed):>7}{harm.slow:>7.0f}"
        )


def _median(harms: Sequence[Harm]) -> Harm:
    return Harm(*(statistics.median(getattr(harm, name) for harm in harms) for name in Harm.__slots__))


def _times(value: float, best: float) -> str:
    return f"{value / best:.1f}" if best and math.isfinite(value) else "-"
