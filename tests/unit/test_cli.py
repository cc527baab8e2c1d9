"""The command line against a daemon without a kernel: what it prints, and how it ends."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from l4lb.changes import CHANGES, apply_change
from l4lb.model import Config, Endpoint, Mode
from l4lb.view import Interface, Live, Traffic, backend_list_view, status_view, vip_list_view
from tests.unit.serving import serving

L4LB = Path(sys.executable).with_name("l4lb")


class FakeDaemon:
    """Keeps a configuration as the daemon does, and makes up its traffic."""

    def __init__(self) -> None:
        self.config = Config()

    async def handle(self, operation: str, arguments: Mapping[str, object]) -> object:
        if operation in CHANGES:
            self.config = apply_change(self.config, operation, arguments)
            return None
        live = Live(
            version="0.0",
            uptime_seconds=3700,
            interfaces=(Interface("eth0", "native", True), Interface("eth1", "native", False)),
            traffic={("web", Endpoint.parse("10.0.0.1:8080")): Traffic(1234, 5_000_000, 10, 2_500_000_000)},
            retired={"web": Traffic(1, 1, 1, 1)},
            next_hops={("web", Endpoint.parse("10.0.0.1:8080")): "02:00:00:00:00:01 on eth0"},
            reasons={"pass_not_vip": 7, "drop_no_backend": 0},
        )
        if operation == "vip.list":
            return vip_list_view(self.config, live)
        if operation == "backend.list":
            return backend_list_view(self.config, live, str(arguments["vip"]))
        return status_view(self.config, live)


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("run") / "control.sock"
    with serving(path, FakeDaemon().handle):
        for line in (
            "vip add web 192.0.2.10:80/tcp",
            "backend add web 10.0.0.1:8080",
            "backend add web 10.0.0.2 --weight 0",
        ):
            assert l4lb(path, *line.split()).returncode == 0
        yield path


def l4lb(socket: Path | None, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    if socket is not None:
        environment["L4LB_SOCKET"] = str(socket)
    return subprocess.run(
        [L4LB, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=20
    )


def test_status_json_has_the_documented_keys(socket: Path) -> None:
    done = l4lb(socket, "status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    backend = {
        "address": "10.0.0.1", "port": 8080, "weight": 1, "state": "unknown", "next_hop": "02:00:00:00:00:01 on eth0",
        "packets": 1234, "bytes": 5_000_000, "packets_back": 10, "bytes_back": 2_500_000_000,
    }  # fmt: skip
    idle = {
        "address": "10.0.0.2", "port": 80, "weight": 0, "state": "unknown", "next_hop": "unresolved",
        "packets": 0, "bytes": 0, "packets_back": 0, "bytes_back": 0,
    }  # fmt: skip
    vip = {
        "name": "web", "address": "192.0.2.10", "port": 80, "protocol": "tcp", "mode": "nat", "scheduler": "maglev",
        "idle_timeout": 300, "sources": [], "gue_port": 6080, "mss": 0, "client_prefix": 0, "pool": 4096,
        "settling": False,
        "packets": 1235, "bytes": 5_000_001, "packets_back": 11, "bytes_back": 2_500_000_001,
        "backends": [backend, idle],
    }  # fmt: skip
    assert json.loads(done.stdout) == {
        "version": "0.0",
        "uptime_seconds": 3700,
        "interfaces": [
            {"name": "eth0", "xdp_mode": "native", "xdp_transmit": True},
            {"name": "eth1", "xdp_mode": "native", "xdp_transmit": False},
        ],
        "vips": [vip],
        "flows": {},
        "reasons": {"pass_not_vip": 7, "drop_no_backend": 0},
    }


def test_status_for_people(socket: Path) -> None:
    done = l4lb(socket, "status")
    assert done.stdout.splitlines() == [
        "l4lb 0.0, up 1h 1m, on eth0 (native), eth1 (native)",
        "eth1 takes no packets from other interfaces: its driver has no XDP transmit"
        " (a veth has it when GRO is on at its other end)",
        "",
        "web  192.0.2.10:80/tcp  nat, maglev  1,235 packets, 5.0 MB",
        "  BACKEND        WEIGHT  STATE    PACKETS   BYTES    BACK  SHARE                        NEXT HOP",
        f"  10.0.0.1:8080       1  unknown    1,234  5.0 MB  2.5 GB   100%  {'█' * 20}  02:00:00:00:00:01 on eth0",
        "  10.0.0.2:80         0  unknown        0     0 B     0 B     0%                        unresolved",
        "",
        "packets not forwarded",
        "  REASON        PACKETS",
        "  pass_not_vip        7",
    ]


def test_lists(socket: Path) -> None:
    assert l4lb(socket, "vip", "list").stdout.splitlines()[1].split() == [
        "web", "192.0.2.10:80/tcp", "nat", "maglev", "1", "of", "2", "1,235", "5.0", "MB",
    ]  # fmt: skip
    assert [vip["name"] for vip in json.loads(l4lb(socket, "vip", "list", "--json").stdout)] == ["web"]
    assert "10.0.0.2:80" in l4lb(socket, "backend", "list", "web").stdout
    assert len(json.loads(l4lb(socket, "backend", "list", "web", "--json").stdout)) == 2


def test_changing_commands_say_nothing_to_scripts(socket: Path) -> None:
    for line in ("vip add other 192.0.2.11:53/udp --mode dsr", "vip set other --mode nat", "vip remove other"):
        done = l4lb(socket, *line.split())
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


BAD = [
    ("vip add web 192.0.2.99:80/tcp", 2, "VIP web exists already"),
    ("vip add new 192.0.2.10:80/tcp", 2, "VIPs new and web would have the same address 192.0.2.10:80/tcp"),
    ("vip add new 192.0.2.9:80", 2, "has no protocol: write it as in 192.0.2.9:80/tcp"),
    ("vip add new 192.0.2.9:80/icmp", 2, "protocol 'icmp' is not known"),
    ("vip add new 192.0.2.9:0/tcp", 2, "port '0' is not between 1 and 65535"),
    ("vip add new 192.0.2.9:70000/tcp", 2, "port '70000' is not between 1 and 65535"),
    ("vip add new 192.0.2.300:80/tcp", 2, "'192.0.2.300' is no IP address"),
    ("vip add new 192.0.2.9:80/tcp --mode fly", 2, "'fly' is not one of 'nat', 'fullnat', 'dsr', 'ipip', 'gue'"),
    ("vip add new", 2, "Missing argument"),
    ("vip remove wev", 1, "there is no VIP 'wev': did you mean web?"),
    ("vip set web", 2, "nothing to set"),
    ("backend add web 10.0.0.3 --weight -1", 2, "-1 is not in the range 0<=x<=65535"),
    ("backend add web 10.0.0.3 --weight many", 2, "'many' is not a valid integer"),
    ("backend add web 192.0.2.10", 2, "has the address of its VIP web"),
    ("backend add web 10.0.0.1:8080", 2, "exists already"),
    ("backend add nope 10.0.0.1", 1, "there is no VIP 'nope'"),
    ("backend set web 10.0.0.1:8080", 2, "Missing option '--weight'"),
    ("backend list nope", 1, "there is no VIP 'nope'"),
    ("explain tcp 10.1.0.2 192.0.2.10:80", 2, "address '10.1.0.2' has no port"),
    ("explain icmp 10.1.0.2:1 192.0.2.10:80", 2, "'icmp' is not one of"),
    ("explain udp 10.1.0.2:4000 192.0.2.10:80 --syn", 2, "only a TCP packet can be a SYN"),
    ("frobnicate", 2, "No such command 'frobnicate'"),
    ("vip", 2, ""),
    ("status --socket /nowhere/control.sock", 3, "no daemon answers on /nowhere/control.sock"),
    ("--socket /nowhere/control.sock status", 3, "no daemon answers on /nowhere/control.sock"),
    ("run", 2, "Missing option '--interface'"),
    ("run --interface lo --xdp-mode warp", 2, "'warp' is not one of"),
]


@pytest.mark.parametrize(("line", "status", "says"), BAD, ids=[row[0] for row in BAD])
def test_bad_input(socket: Path, line: str, status: int, says: str) -> None:
    """One line on standard error, the documented status, and nothing changed."""
    before = l4lb(socket, "status", "--json").stdout
    done = l4lb(socket, *line.split())
    assert (done.returncode, done.stdout) == (status, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1 or line == "vip", done.stderr
    assert "Traceback" not in done.stderr
    assert l4lb(socket, "status", "--json").stdout == before


@pytest.mark.parametrize(
    ("shell", "sign"), [("bash", "complete -o nosort -F"), ("zsh", "#compdef l4lb"), ("fish", "complete --no-files")]
)
def test_completion_scripts(shell: str, sign: str) -> None:
    done = l4lb(None, "completion", shell)
    assert sign in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("words", "incomplete", "found"),
    [
        ("l4lb", "ba", {"backend"}),
        ("l4lb vip", "", {"add", "set", "remove", "list"}),
        ("l4lb vip remove", "", {"web"}),
        ("l4lb backend remove web", "10.", {"10.0.0.1:8080", "10.0.0.2:80"}),
        ("l4lb vip add x 192.0.2.9:80/tcp --mode", "", set(Mode)),
    ],
)
def test_completion_of_words(socket: Path, words: str, incomplete: str, found: set[str]) -> None:
    done = l4lb(
        socket, _L4LB_COMPLETE="fish_complete", COMP_WORDS=f"{words} {incomplete}", COMP_CWORD=incomplete
    )  # fmt: skip
    values = {line.partition(",")[2].partition("\t")[0] for line in done.stdout.splitlines() if "," in line} or set(
        done.stdout.split()[1::2]
    )
    assert values == found, done.stdout


def test_completion_is_silent_without_a_daemon(tmp_path: Path) -> None:
    done = l4lb(tmp_path / "none", _L4LB_COMPLETE="bash_complete", COMP_WORDS="l4lb vip remove ", COMP_CWORD="3")
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_a_reader_that_leaves_is_no_error(socket: Path) -> None:
    done = subprocess.run(
        f"{L4LB} --socket {socket} status --json | head -c 1; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "{", "")


def test_a_command_imports_only_what_it_needs() -> None:
    """The daemon's libraries would double the time that a command takes."""
    code = "import sys, l4lb.cli.status, l4lb.cli.vip; print(*sys.modules)"
    modules = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not modules & {"bcc", "pyroute2", "asyncio", "l4lb.daemon"}
