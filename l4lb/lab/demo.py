"""`scripts/demo`: l4lb at work between a client and three servers, all in network namespaces of this machine."""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter

from l4lb.errors import L4lbError
from l4lb.lab.bars import bars
from l4lb.lab.daemon import Daemon
from l4lb.lab.ending import signals_end_it
from l4lb.lab.faults import frozen
from l4lb.lab.namespace import Namespace
from l4lb.lab.prediction import unexplained
from l4lb.lab.servers import HTTP_PORT, UDP_PORT, start_servers
from l4lb.lab.shell import open_shell
from l4lb.lab.topology import CLIENT_ADDRESS, Lab, keep, set_up, take_down
from l4lb.lab.traffic import Outcome, going_on, requests

VIP = "10.1.0.100"
REQUESTS = 2000

PICTURE = """
     client                  gateway                 servers

    10.1.0.2 ─────────── wan  l4lb  lan ───────┬─── b1  10.2.0.11
                    10.1.0.1  XDP  10.2.0.1    ├─── b2  10.2.0.12
                                               └─── b3  10.2.0.13
"""


class Terminal:
    """Where the demo is shown: colours and block characters only if it has them."""

    def __init__(self) -> None:
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.blocks = "utf" in (sys.stdout.encoding or "").lower()

    def show(self, text: str = "", style: str = "") -> None:
        """Prints a line."""
        if not self.blocks:
            text = text.translate(_PLAIN)
        print(f"\033[{style}m{text}\033[0m" if style and self._colours else text, flush=True)

    def heading(self, text: str) -> None:
        """Prints what comes next."""
        self.show()
        self.show(text, _BOLD)

    def command(self, host: str, *words: str) -> None:
        """Prints a command as its user types it."""
        prompt, line = f"  {host}#", shlex.join(words)
        self.show(f"\033[2m{prompt}\033[0;{_CYAN}m {line}\033[0m" if self._colours else f"{prompt} {line}")

    def outcome(self, outcome: Outcome, seconds: float, moved: int = 0) -> None:
        """Prints which server answered how many requests, and what failed; `moved` failures are to be expected."""
        for line in bars(outcome.answers, self.blocks):
            self.show(f"    {line}", _GREEN)
        if not outcome.failures:
            self.show(f"    {outcome.total:,} requests in {seconds:.1f} s, none failed", _BOLD)
            return
        how = ", ".join(f"{count} {how}" for how, count in Counter(how for _, how in outcome.failures).items())
        self.show(f"    {outcome.total:,} requests in {seconds:.1f} s, {len(outcome.failures)} failed ({how})", _RED)
        if moved:
            self.show(f"    {moved} of these were at the server that went", _YELLOW)


_QUICKLY = ("--fast-interval", "200ms", "--timeout", "300ms")
_BOLD, _RED, _GREEN, _YELLOW, _CYAN = "1", "31", "32", "33", "36"
_PLAIN = str.maketrans("─├└┬█▏▎▍▌▋▊▉", "-+++#       ")


class Demo:
    """The acts of the demo, in a lab."""

    def __init__(self, lab: Lab, terminal: Terminal) -> None:
        self.lab = lab
        self.terminal = terminal
        self.daemon = Daemon(lab)

    def play(self) -> None:
        """All of it."""
        self.terminal.heading("The daemon puts the XDP program on both interfaces, in their driver")
        self.start()
        self.add("web", f"{VIP}:80/tcp", HTTP_PORT)
        self.add("dns", f"{VIP}:53/udp", UDP_PORT)
        self.ask()
        self.measure()
        self.change()
        self.freeze()
        self.kill()
        self.terminal.heading("What the gateway has counted")
        self.terminal.command("gateway", "l4lb", "status")
        self.daemon.show("status")

    def start(self) -> None:
        """The daemon."""
        interfaces = [word for name in self.lab.interfaces for word in ("--interface", name)]
        self.terminal.command("gateway", "l4lb", "run", *interfaces)
        self.terminal.show(f"  ready after {self.daemon.start():.1f} s")

    def add(self, name: str, address: str, port: int) -> None:
        """A VIP with all servers."""
        self.terminal.heading(f"A virtual IP for {'HTTP' if address.endswith('tcp') else 'a service over UDP'}")
        self.l4lb("vip", "add", name, address)
        for server in self.lab.servers:
            self.l4lb("backend", "add", name, f"{server.address}:{port}")

    def ask(self) -> None:
        """A few requests by hand."""
        self.terminal.heading("The client asks the virtual IP; a server answers with its name")
        for _ in range(3):
            self.run("client", self.lab.client, "curl", "-sS", f"http://{VIP}/")

    def measure(self) -> None:
        """Many requests, TCP and UDP."""
        for kind, port, what in (("http", 80, "HTTP requests, each on a fresh connection"), ("udp", 53, "datagrams")):
            self.terminal.heading(f"{REQUESTS:,} {what}")
            began = time.monotonic()
            outcome = requests(self.lab.client, kind, VIP, port, REQUESTS)
            self.terminal.outcome(outcome, time.monotonic() - began)

    def change(self) -> None:
        """A server goes and comes back while requests go on."""
        self.terminal.heading("A server is taken out and put back while requests go on")
        before = [f"{server.address}:{HTTP_PORT}" for server in self.lab.servers]
        second = before[1]
        began = time.monotonic()
        with going_on(self.lab.client, "http", VIP, 80, REQUESTS, seconds=3) as outcome:
            time.sleep(0.8)
            self.l4lb("backend", "remove", "web", second)
            time.sleep(0.8)
            self.l4lb("backend", "add", "web", second)
        surprises = unexplained(outcome, before, second, CLIENT_ADDRESS, 80)
        self.terminal.outcome(outcome, time.monotonic() - began, len(outcome.failures) - len(surprises))

    def freeze(self) -> None:
        """A server stops to answer, and is found out by the connections of its clients."""
        self.terminal.heading("A server freezes while requests go on, and thaws")
        self.l4lb("vip", "set", "web", "--check", "http:path=/", "--passive", "--interval", "10s", *_QUICKLY)
        with going_on(self.lab.client, "http", VIP, 80, REQUESTS, seconds=4) as outcome:
            time.sleep(1)
            with frozen(self.lab, self.lab.servers[1]):
                time.sleep(1.5)
        self.terminal.outcome(outcome, 4, len(outcome.failures))
        self.terminal.command("gateway", "l4lb", "events")
        self.daemon.show("events")

    def kill(self) -> None:
        """The daemon dies; forwarding does not."""
        self.terminal.heading("The daemon is killed: the kernel forwards on, and a new daemon takes over")
        self.terminal.command("gateway", "kill", "-KILL", str(self.daemon.pid))
        self.daemon.end(signal.SIGKILL)
        began = time.monotonic()
        outcome = requests(self.lab.client, "http", VIP, 80, REQUESTS)
        self.terminal.outcome(outcome, time.monotonic() - began)
        self.start()

    def l4lb(self, *words: str) -> None:
        """Runs `l4lb` as a user does in the gateway."""
        self.terminal.command("gateway", "l4lb", *words)
        self.daemon.cli(*words)

    def run(self, host: str, namespace: Namespace, *words: str) -> None:
        """Runs another command and prints what it prints."""
        self.terminal.command(host, *words)
        self.terminal.show(f"  {namespace.run(*words).stdout.rstrip()}")


def main() -> int:
    """Runs the demo; its exit status."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--shell", action="store_true", help="leave the lab up, with a shell in the gateway")
    options = parser.parse_args()
    terminal = Terminal()
    began = time.monotonic()
    lab = None
    kept = False
    try:
        with signals_end_it():
            terminal.show("l4lb at work, in network namespaces of this machine", _BOLD)
            terminal.show(PICTURE.rstrip())
            lab = set_up()
            start_servers(lab)
            Demo(lab, terminal).play()
            if options.shell:
                keep(lab)
                kept = True
    except KeyboardInterrupt:
        terminal.show()
        terminal.show("Interrupted.", _YELLOW)
        return 130
    except (L4lbError, subprocess.SubprocessError) as error:
        print(f"scripts/demo: {error}", file=sys.stderr)
        return 1
    finally:
        if lab is not None and not kept:
            take_down(lab.folder)
            lab.reap()
            terminal.show()
            terminal.show(f"All taken down, {time.monotonic() - began:.0f} s after the start.")
    if kept:
        _hand_over(lab, terminal)
    return 0


def _hand_over(lab: Lab, terminal: Terminal) -> None:
    terminal.heading("The lab stays up. Try these in its gateway, and leave by ^D:")
    for line in ("l4lb status", "l4lb backend set web 10.2.0.11:8080 --weight 3", "l4lb --help"):
        terminal.show(f"  {line}")
    terminal.show()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    # Ctrl-C is the shell's; a signal that is ignored here would be so in all that it starts.
    signal.signal(signal.SIGINT, lambda *_: None)
    open_shell(lab.folder)
    l4lb = os.path.relpath(f"{sys.prefix}/bin/l4lb")
    terminal.show(f"The lab is still up: `{l4lb} lab shell --host client` opens another shell in it,")
    terminal.show(f"and `{l4lb} lab down` takes it down.")


if __name__ == "__main__":
    sys.exit(main())
