"""What the daemon cannot work with: one line that names the thing and the way out, the documented status, no change."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from l4lb.lab.daemon import L4LB
from l4lb.lab.wakeful import keep_awake
from tests.lab.gateway import VIP, Gateway

NOBODY = 65534

# Runs the command line as an ordinary user, who may not be able to read the checkout: so all is imported before.
AS_NOBODY = f"""
import os, sys
import l4lb.cli, l4lb.cli.run, l4lb.cli.status, l4lb.daemon
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
l4lb.cli.main()
"""
NOT_ROOT = (sys.executable, "-c", AS_NOBODY)


def nothing(_: Gateway) -> None:
    """No preparation."""


def interface_that_is_down(gateway: Gateway) -> None:
    gateway.lab.gateway.ip("link set lan down")


def interface_without_native_xdp(gateway: Gateway) -> None:
    gateway.lab.gateway.ip("link add lan-bridge up type bridge")


def interface_with_a_program(gateway: Gateway) -> None:
    keep_awake(gateway.lab.gateway, "lan", gateway.lab.bpf / "another")


def interface_with_a_large_mtu(gateway: Gateway) -> None:
    gateway.lab.gateway.ip("link add jumbo up mtu 9000 type veth peer name jumbo-far", "link set jumbo-far mtu 9000 up")


def damaged_state(gateway: Gateway) -> None:
    gateway.daemon.state.parent.mkdir(exist_ok=True)
    gateway.daemon.state.write_text('{"format": "l4lb-state", "version": 1, "config"')


def state_of_the_future(gateway: Gateway) -> None:
    gateway.daemon.state.parent.mkdir(exist_ok=True)
    gateway.daemon.state.write_text('{"format": "l4lb-state", "version": 99, "config": {}}')


def file_instead_of_socket(gateway: Gateway) -> None:
    gateway.daemon.socket.write_text("not a socket")


@dataclass(frozen=True)
class Refusal:
    """A row of the table.

    Attributes:
        says: what standard error names, in this order.
        words: for `l4lb run`, behind the usual ones.
        prepare: done in the lab before.
        prefix: what the command is run by.
    """

    case: str
    says: tuple[str, ...]
    words: tuple[str, ...] = ()
    prepare: Callable[[Gateway], None] = nothing
    prefix: tuple[str, ...] = ()
    status: int = 1


@dataclass(frozen=True)
class Request:
    """A row of the table: a request to a daemon that serves VIP web by all of the lab's servers.

    Attributes:
        says: what standard error names, in this order.
        words: behind `l4lb --socket ...`.
        daemon: whether it runs.
    """

    case: str
    says: tuple[str, ...]
    words: tuple[str, ...]
    status: int = 2
    prefix: tuple[str, ...] = ()
    daemon: bool = True


SERVER = "10.2.0.11:8080"

TABLE: list[Refusal | Request] = [
    Request("duplicate VIP name", ("VIP web exists already",), ("vip", "add", "web", "10.1.0.101:80/tcp")),
    Request("duplicate VIP address", ("the same address", "another"), ("vip", "add", "again", f"{VIP}:80/tcp")),
    Request("unknown VIP", ("no VIP 'wbe'", "web"), ("backend", "add", "wbe", SERVER), 1),
    Request("bad address", ("'10.1.0.256' is no IP address",), ("vip", "add", "new", "10.1.0.256:80/tcp")),
    Request("port 0", ("port '0'", "65535"), ("vip", "add", "new", "10.1.0.101:0/tcp")),
    Request("port 70000", ("port '70000'", "65535"), ("backend", "add", "web", "10.2.0.99:70000")),
    Request("weight -1", ("-1", "65535"), ("backend", "set", "web", SERVER, "--weight", "-1")),
    Request("duplicate backend", (SERVER, "exists already"), ("backend", "add", "web", SERVER)),
    Request("backend equal to the VIP", ("has the address of its VIP web",), ("backend", "add", "web", f"{VIP}:80")),
    Request("daemon down", ("no daemon answers on", "l4lb run"), ("status",), 3, daemon=False),
    Request("no permission", ("no permission for the control socket", "sudo"), ("status",), 3, NOT_ROOT),
    Refusal("missing interface", ("'eht0'", "lan", "wan"), ("--interface", "eht0")),
    Refusal("no Ethernet", ("lo is no Ethernet interface",), ("--interface", "lo")),
    Refusal("interface down", ("lan is down", "ip link set lan up"), (), interface_that_is_down),
    Refusal(
        "no native XDP",
        ("lan-bridge has no native XDP", "--xdp-mode generic"),
        ("--interface", "lan-bridge"),
        interface_without_native_xdp,
    ),
    Refusal("another program", ("another XDP program is on lan", "xdp off"), (), interface_with_a_program),
    Refusal("large MTU", ("jumbo", "MTU"), ("--interface", "jumbo"), interface_with_a_large_mtu),
    Refusal("old kernel", ("kernel 2.6", "too old", "5.12"), prefix=("setarch", "--uname-2.6")),
    Refusal("damaged state file", ("state.json", "damaged", "--reset-state"), (), damaged_state),
    Refusal("state file of a later version", ("state.json", "version 99"), (), state_of_the_future),
    Refusal("file instead of a socket", ("control.sock is not a socket", "--socket"), (), file_instead_of_socket),
    Refusal("pins elsewhere", ("/tmp", "BPF file system"), ("--pins", "/tmp")),
    Refusal("unknown group", ("nogroup-of-this-name",), ("--socket-group", "nogroup-of-this-name")),
    Refusal("no such mode", ("--xdp-mode", "native"), ("--xdp-mode", "turbo"), status=2),
    Refusal("seed out of range", ("--seed",), ("--seed", str(1 << 64)), status=2),
    Refusal("not root", ("may not load programs", "root"), prefix=NOT_ROOT),
]


REFUSALS = [row for row in TABLE if isinstance(row, Refusal)]


@pytest.mark.parametrize("row", REFUSALS, ids=[row.case for row in REFUSALS])
def test_starts_are_refused(routed: Gateway, row: Refusal) -> None:
    """One line that names the thing and the way out, the documented status, nothing changed."""
    try:
        run_is_refused(routed, row)
    finally:
        restore(routed)


def test_requests_are_refused(routed: Gateway) -> None:
    """The same, by a daemon that goes on serving."""
    requests = [row for row in TABLE if isinstance(row, Request)]
    for row in requests:
        if not row.daemon:
            check_words(asked(routed, row), row)
    routed.daemon.start()
    routed.add_vip("web", f"{VIP}:80/tcp")
    before = routed.daemon.state.read_bytes(), routed.daemon.status()["vips"]
    for row in requests:
        if row.daemon:
            check_words(asked(routed, row), row)
            assert before == (routed.daemon.state.read_bytes(), routed.daemon.status()["vips"]), row.case


def asked(routed: Gateway, row: Request) -> "subprocess.CompletedProcess[str]":
    command = (*(row.prefix or (L4LB,)), "--socket", str(routed.daemon.socket), *row.words)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_host_that_does_not_forward_ipv6(routed: Gateway) -> None:
    routed.daemon.start()
    routed.lab.gateway.sysctl(net__ipv6__conf__all__forwarding=0)
    try:
        row = Request("IPv6", ("IPv6 forwarding", "net.ipv6.conf.all.forwarding=1"), (), 1)
        check_words(routed.daemon.cli("vip", "add", "new", "[fd01::100]:80/tcp", check=False), row)
    finally:
        routed.lab.gateway.sysctl(net__ipv6__conf__all__forwarding=1)


def run_is_refused(routed: Gateway, row: Refusal) -> None:
    gateway = routed.lab.gateway
    row.prepare(routed)
    state = routed.daemon.state.read_bytes() if routed.daemon.state.exists() else None
    command = routed.daemon.command(*row.words)
    if row.prefix == NOT_ROOT:
        del command[0]  # the program's own name
    check_words(gateway.run(*row.prefix, *command, check=False), row)
    assert "prog/xdp" not in gateway.run("ip", "link", "show", "wan").stdout
    assert not routed.daemon.pins.exists() or not list(routed.daemon.pins.rglob("link*"))
    assert state == (routed.daemon.state.read_bytes() if routed.daemon.state.exists() else None)


def check_words(done: "subprocess.CompletedProcess[str]", row: Refusal | Request) -> None:
    assert (done.returncode, done.stdout) == (row.status, ""), f"{row.case}: {done.stderr}"
    position = 0
    for words_said in row.says:
        position = done.stderr.find(words_said, position)
        assert position >= 0, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def restore(gateway: Gateway) -> None:
    """Undoes every preparation."""
    gateway.lab.bpf.joinpath("another").unlink(missing_ok=True)
    gateway.lab.gateway.ip("link set lan up")
    for interface in ("lan-bridge", "jumbo"):
        gateway.lab.gateway.run("ip", "link", "delete", interface, check=False)
    for kept in gateway.daemon.state.parent.glob("*"):
        kept.unlink()
    gateway.daemon.socket.unlink(missing_ok=True)


def test_two_daemons(routed: Gateway) -> None:
    """A second daemon that is given the first one's files harms nobody."""
    routed.daemon.start()
    routed.add_vip("web", f"{VIP}:80/tcp")
    for words, says in (
        ((), "a daemon answers on"),
        (("--socket", str(routed.lab.folder / "other.sock")), "another l4lb daemon works on"),
    ):
        done = routed.lab.gateway.run(*routed.daemon.command(*words), check=False)
        assert done.returncode == 1
        assert says in done.stderr
    assert routed.http(30).answers.total() == 30
    assert [vip["name"] for vip in routed.daemon.status()["vips"]] == ["web"]
