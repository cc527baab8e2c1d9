"""The real daemon in the lab's gateway, and the real command line talking to it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from l4lb.client import Client
from l4lb.errors import L4lbError, UnreachableError
from l4lb.lab.topology import Lab

L4LB = str(Path(sys.executable).with_name("l4lb"))


class Daemon:
    """`l4lb run`, with files of its own below the lab's folder."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.socket = lab.folder / "control.sock"
        self.state = lab.folder / "state" / "state.json"
        self.pins = lab.bpf / "l4lb"
        self.log = lab.folder / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self, *options: str) -> list[str]:
        """The command line that :meth:`start` uses."""
        interfaces = [word for name in self.lab.interfaces for word in ("--interface", name)]
        return [
            L4LB, "run", *interfaces, "--socket", str(self.socket), "--state", str(self.state),
            "--pins", str(self.pins), *options,
        ]  # fmt: skip

    def start(self, *options: str) -> float:
        """Starts it and returns when it answers; the seconds that took."""
        began = time.monotonic()
        with self.log.open("ab") as log:
            self._process = self.lab.gateway.start(*self.command(*options), output=log)
        while time.monotonic() < began + 20:
            with contextlib.suppress(UnreachableError):
                Client(self.socket).call("status")
                return time.monotonic() - began
            if self._process.poll() is not None:
                break
            time.sleep(0.01)
        raise L4lbError(f"the daemon did not start: {self.log.read_text().strip()}")

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process, once it has been started: `ip netns exec` replaces itself by the command."""
        assert self._process is not None
        return self._process.pid

    def end(self, how: signal.Signals) -> None:
        """Ends it by a signal and waits until it is gone."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            # `ip netns exec` replaces itself by the command, so the process is the daemon.
            os.kill(self._process.pid, how)
        self._process.wait(20)

    def cli(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Runs `l4lb` with these arguments against it."""
        done = subprocess.run(
            [L4LB, "--socket", str(self.socket), *arguments], capture_output=True, text=True, check=False, timeout=30
        )
        if check and done.returncode:
            raise L4lbError(f"`l4lb {' '.join(arguments)}` failed: {done.stderr.strip()}")
        return done

    def show(self, *arguments: str) -> None:
        """Runs `l4lb` with these arguments against it, its output where ours is."""
        subprocess.run([L4LB, "--socket", str(self.socket), *arguments], check=True, timeout=30)

    def status(self) -> Any:
        """What ``l4lb status --json`` prints."""
        return json.loads(self.cli("status", "--json").stdout)
