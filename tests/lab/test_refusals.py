"""What the daemon cannot work with: one line that names the thing and the way out, the documented status, no change."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

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


TABLE = [
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
    Refusal("old kernel", ("kernel 2.6", "too old", "5.10"), prefix=("setarch", "--uname-2.6")),
    Refusal("damaged state file", ("state.json", "damaged", "--reset-state"), (), damaged_state),
    Refusal("state file of a later version", ("state.json", "version 99"), (), state_of_the_future),
    Refusal("file instead of a socket", ("control.sock is not a socket", "--socket"), (), file_instead_of_socket),
    Refusal("pins elsewhere", ("/tmp", "BPF file system"), ("--pins", "/tmp")),
    Refusal("unknown group", ("nogroup-of-this-name",), ("--socket-group", "nogroup-of-this-name")),
    Refusal("no such mode", ("--xdp-mode", "native"), ("--xdp-mode", "turbo"), status=2),
    Refusal("seed out of range", ("--seed",), ("--seed", str(1 << 64)), status=2),
    Refusal("not root", ("may not load programs", "root"), prefix=NOT_ROOT),
]


@pytest.mark.parametrize("row", TABLE, ids=[row.case for row in TABLE])
def test_run_refuses(routed: Gateway, row: Refusal) -> None:
    gateway = routed.lab.gateway
    row.prepare(routed)
    state = routed.daemon.state.read_bytes() if routed.daemon.state.exists() else None
    command = routed.daemon.command(*row.words)
    if row.prefix == NOT_ROOT:
        del command[0]  # the program's own name
    try:
        done = gateway.run(*row.prefix, *command, check=False)
        assert (done.returncode, done.stdout) == (row.status, "")
        position = 0
        for words_said in row.says:
            position = done.stderr.find(words_said, position)
            assert position >= 0, done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert "prog/xdp" not in gateway.run("ip", "link", "show", "wan").stdout
        assert not routed.daemon.pins.exists() or not list(routed.daemon.pins.rglob("link*"))
        assert state == (routed.daemon.state.read_bytes() if routed.daemon.state.exists() else None)
    finally:
        restore(routed)


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


def test_a_user_without_permission(routed: Gateway) -> None:
    routed.daemon.start()
    done = subprocess.run(
        [*NOT_ROOT, "--socket", str(routed.daemon.socket), "status"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    assert "no permission for the control socket" in done.stderr
    assert "sudo" in done.stderr


def test_the_daemon_is_down(routed: Gateway) -> None:
    done = routed.daemon.cli("status", check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"l4lb: no daemon answers on {routed.daemon.socket}: start it with")


def test_a_refused_change_disturbs_no_traffic(routed: Gateway) -> None:
    """Duplicates and contradictions leave configuration, state file and forwarding as they were."""
    routed.daemon.start()
    routed.add_vip("web", f"{VIP}:80/tcp")
    before = routed.daemon.state.read_bytes()
    server = routed.lab.servers[0].address
    for words in (
        ("vip", "add", "web", "10.1.0.101:80/tcp"),
        ("vip", "add", "again", f"{VIP}:80/tcp"),
        ("vip", "add", "six", "[2001:db8::1]:80/tcp"),
        ("backend", "add", "web", f"{server}:8080"),
        ("backend", "add", "wbe", f"{server}:8081"),
        ("backend", "add", "web", f"{VIP}:80"),
        ("backend", "set", "web", f"{server}:8080", "--weight", "-1"),
    ):
        done = routed.daemon.cli(*words, check=False)
        assert done.returncode in (1, 2), words
        assert (done.stdout, done.stderr.count("\n")) == ("", 1), done.stderr
    assert routed.daemon.state.read_bytes() == before
    assert routed.http(30).answers.total() == 30
