"""A network namespace of the lab, and processes in it."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from l4lb.errors import L4lbError

_ROUNDS = 20  # of ending what runs in a namespace


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace by its name, as ``ip netns`` knows it."""

    name: str

    def create(self) -> None:
        """Makes it, with its loopback interface up."""
        run("ip", "netns", "add", self.name)
        self.ip("link set lo up")

    def delete(self) -> None:
        """Ends every process in it, and takes it away with its interfaces; nothing happens if it is not there."""
        # Again, for what one of them has begun meanwhile: a worker of nginx outlives a master that is killed.
        for _ in range(_ROUNDS):
            pids = self.processes()
            if not pids:
                break
            subprocess.run(["kill", "-9", *map(str, pids)], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "delete", self.name], check=False, capture_output=True)

    def processes(self) -> list[int]:
        """What runs in it; nothing if it is not there."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()] if found.returncode == 0 else []

    def command(self, *arguments: str) -> list[str]:
        """What runs a command in it."""
        return ["ip", "netns", "exec", self.name, *arguments]

    def run(self, *arguments: str, check: bool = True, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        """Runs a command in it to its end; what it prints is in the result."""
        return run(*self.command(*arguments), check=check, timeout=timeout)

    def start(self, *arguments: str, output: int | IO[Any] = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        """Starts a command in it, to go on while others run, and when Ctrl-C is typed at this process's terminal."""
        return subprocess.Popen(
            self.command(*arguments), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )

    def ip(self, *commands: str) -> None:
        """Does ``ip`` commands in it, a line each."""
        ip_batch(commands, "-netns", self.name)

    def sysctl(self, **values: int) -> None:
        """Sets kernel parameters in it; a double underscore stands for a dot."""
        self.run("sysctl", "-qw", *(f"{name.replace('__', '.')}={value}" for name, value in values.items()))


def connect(one: Namespace, one_name: str, other: Namespace, other_name: str) -> None:
    """Joins two namespaces by a pair of virtual Ethernet interfaces, up, and fit for XDP at either end.

    A frame that an XDP program sends into a veth is taken up at its far end only by an interface with GRO on (or a
    program of its own). Checksums left for hardware that does not exist could not be patched, so they are made at once.
    """
    ip_batch([f"link add {one_name} netns {one.name} type veth peer name {other_name} netns {other.name}"])
    ends = ((one, one_name), (other, other_name))
    for namespace, name in ends:
        namespace.run("ethtool", "-K", name, "tx", "off", "gro", "on")
        # Nobody else is on a lab's links, and who waits for duplicates of its address has none for a second.
        namespace.sysctl(
            **{f"net__ipv6__conf__{name}__accept_dad": 0, f"net__ipv6__conf__{name}__router_solicitations": 0}
        )
    # An end takes note of what the other can do at the moment it is set up, so GRO has to be on at both by then.
    for namespace, name in ends:
        namespace.ip(f"link set {name} up")


def ip_batch(commands: Sequence[str], *options: str) -> None:
    """Does ``ip`` commands, a line each, in one process."""
    done = subprocess.run(
        ["ip", *options, "-batch", "-"], input="\n".join(commands), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise L4lbError(f"`ip` failed: {done.stderr.strip()}", "the lab needs root and iproute2")


def run(*arguments: str, check: bool = True, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
    """Runs a command to its end.

    Raises:
        L4lbError: it failed, and `check` is set; says how.
    """
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=timeout
        )
    except FileNotFoundError as error:
        raise L4lbError(f"{arguments[0]} is not installed", "run scripts/setup") from error
    if check and done.returncode:
        raise L4lbError(f"`{' '.join(arguments)}` failed: {(done.stderr or done.stdout).strip()}")
    return done
