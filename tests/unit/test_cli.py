"""The command line against a daemon without a kernel: what it prints, and how it ends."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import msgpack
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from l4lb import settings, wire
from l4lb.balance.explain import Why
from l4lb.changes import CHANGES, apply_change, parse_question
from l4lb.cli import cli, common, explain, render
from l4lb.model import Admin, Config, Endpoint, Mode
from l4lb.options import RunOptions
from l4lb.view import Interface, Live, Traffic, backend_list_view, explain_view, status_view, vip_list_view
from tests.unit.serving import live_health, serving
from tests.unit.strategies import configs

L4LB = Path(sys.executable).with_name("l4lb")


class FakeDaemon:
    """Keeps a configuration as the daemon does, and makes up its traffic."""

    def __init__(self) -> None:
        self.config = Config()

    async def handle(self, operation: str, arguments: Mapping[str, object]) -> object:
        if operation in CHANGES:
            self.config = apply_change(self.config, operation, arguments)
            return None
        if operation == "explain":
            question = parse_question(arguments)
            vip = self.config.vip_for(question.service, question.protocol)
            assert vip is not None
            backend = vip.backends[0].endpoint if vip.backends else None
            return explain_view(vip, backend, Why.SETTLED if backend else Why.NO_BACKEND, "a next hop")
        live = Live(
            version="0.0",
            uptime_seconds=3700,
            interfaces=(Interface("eth0", "native", True), Interface("eth1", "native", False)),
            traffic={("web", Endpoint.parse("10.0.0.1:8080")): Traffic(1234, 5_000_000, 10, 2_500_000_000)},
            retired={"web": Traffic(1, 1, 1, 1)},
            next_hops={("web", Endpoint.parse("10.0.0.1:8080")): "02:00:00:00:00:01 on eth0"},
            open_connections={("chosen", Endpoint.parse("[2001:db8:2::1]", 0)): 5_000},
            settling=frozenset({"chosen"}),
            reasons={"pass_not_vip": 7, "drop_no_backend": 0},
            **live_health(self.config),
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
        "address": "10.0.0.1", "port": 8080, "weight": 1, "priority": 0, "admin": "none",
        "state": "unknown", "reason": "unknown", "since": 1_700_000_000.0, "stale": False,
        "effective_weight": 1, "weight_share": 1.0, "next_hop": "02:00:00:00:00:01 on eth0",
        "packets": 1234, "bytes": 5_000_000, "packets_back": 10, "bytes_back": 2_500_000_000,
    }  # fmt: skip
    idle = {
        "address": "10.0.0.2", "port": 80, "weight": 0, "priority": 0, "admin": "none",
        "state": "unknown", "reason": "weight 0", "since": 1_700_000_000.0, "stale": False,
        "effective_weight": 0, "weight_share": 0.0, "next_hop": "unresolved",
        "packets": 0, "bytes": 0, "packets_back": 0, "bytes_back": 0,
    }  # fmt: skip
    vip = {
        "name": "web", "address": "192.0.2.10", "port": 80, "protocol": "tcp", "mode": "nat", "scheduler": "maglev",
        "idle_timeout": 300, "sources": [], "gue_port": 6080, "mss": 0, "client_prefix": 0, "pool": 4096,
        "checks": [], "via": "direct", "passive": False,
        "interval": 2.0, "timeout": 1.0, "rise": 2, "fall": 3, "fast_interval": 0.0, "jitter": 0.1,
        "initial": "unknown", "slow_start": 0.0, "degrade": False, "floor": 25, "stale_after": 0.0, "check_port": 0,
        "panic_share": 0, "panic": "spread", "tier_share": 140, "none_left": "drop",
        "verdict": "ok", "verdict_why": "", "settling": False,
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


@pytest.fixture
def chosen(socket: Path) -> Iterator[list[str]]:
    """A VIP of an IPv6 address, a range of ports and settings of its own."""
    place = "[2001:db8::10]:8000-8999/tcp"
    settings = (
        "--mode fullnat --scheduler source-hash --client-prefix 64 --source fd00::100/126 --source 10.9.0.0/30"
        " --pool 65536 --mss 1400 --idle-timeout 90 --gue-port 7000 --none-left reject"
    )
    for line in (f"vip add chosen {place} {settings}", "backend add chosen [2001:db8:2::1]"):
        done = l4lb(socket, *line.split())
        assert (done.returncode, done.stderr) == (0, "")
    yield [
        "clients by /64", "from fd00::100/126 and 10.9.0.0/30", "pool 65536", "MSS 1400", "idle after 1m 30s",
        "reject if no backend is left",
    ]  # fmt: skip
    assert l4lb(socket, "vip", "remove", "chosen").returncode == 0


def test_what_was_chosen_is_told(socket: Path, chosen: list[str]) -> None:
    """And only that: a port for GUE means nothing in mode fullnat."""
    header, first, second = l4lb(socket, "vip", "list").stdout.splitlines()
    assert header.split()[-1] == "SETTINGS"
    assert first[header.index("SETTINGS") :] == ", ".join(chosen)
    assert first.split()[:7] == ["chosen", "[2001:db8::10]:8000-8999/tcp", "fullnat", "source-hash", "1", "of", "1"]
    assert second.endswith("5.0 MB"), "nothing is told of a VIP that is as they always are"
    lines = l4lb(socket, "status").stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("chosen"))
    assert lines[at] == (
        f"chosen  [2001:db8::10]:8000-8999/tcp  fullnat, source-hash, {', '.join(chosen)}  0 packets, 0 B, settling"
    )
    assert [line.split()[:4] for line in lines[at + 1 : at + 3]] == [
        ["BACKEND", "WEIGHT", "STATE", "OPEN"], ["[2001:db8:2::1]", "1", "unknown", "5,000"],
    ]  # fmt: skip


def test_json_of_a_range_of_ports(socket: Path, chosen: list[str]) -> None:
    view = json.loads(l4lb(socket, "vip", "list", "--json").stdout)[0]
    assert (view["address"], view["port"], view["last_port"]) == ("2001:db8::10", 8000, 8999)
    assert (view["sources"], view["gue_port"]) == (["fd00::100/126", "10.9.0.0/30"], 7000)
    (backend,) = view["backends"]
    assert (backend["address"], backend["port"], backend["open_connections"]) == ("2001:db8:2::1", None, 5_000)


def test_settings_are_taken_back(socket: Path, chosen: list[str]) -> None:
    line = "vip set chosen --no-source --pool 256 --mss 0 --client-prefix 0"
    assert l4lb(socket, *line.split()).returncode == 0
    view = json.loads(l4lb(socket, "vip", "list", "--json").stdout)[0]
    assert (view["sources"], view["pool"], view["mss"], view["client_prefix"]) == ([], 256, 0, 0)
    assert view["idle_timeout"] == 90, "what was not given stays"


def test_backends_of_ipv6_are_in_brackets(socket: Path, chosen: list[str]) -> None:
    for line in (
        "backend add chosen [2001:db8:2::2]:80 --weight 3",
        "backend set chosen [2001:db8:2::2]:80 --weight 4",
        "backend list chosen",
        "backend remove chosen [2001:db8:2::2]:80",
    ):
        done = l4lb(socket, *line.split())
        assert (done.returncode, done.stderr) == (0, ""), line
        if "list" in line:
            assert done.stdout.splitlines()[2].split()[:2] == ["[2001:db8:2::2]:80", "4"]


def test_explain(socket: Path, chosen: list[str]) -> None:
    done = l4lb(socket, "explain", "tcp", "[2001:db8:9::1]:4000", "[2001:db8::10]:8080")
    assert done.stdout.splitlines() == [
        "VIP chosen: [2001:db8:2::1] (settled: all flows in its slot are at this backend)",
        "next hop a next hop",
    ]
    done = l4lb(socket, "explain", "tcp", "10.1.0.2:4000", "192.0.2.10:80", "--syn", "--json")
    assert json.loads(done.stdout) == {
        "vip": "web", "backend": "10.0.0.1:8080", "why": "settled", "next_hop": "a next hop",
    }  # fmt: skip


@pytest.mark.parametrize("why", Why)
def test_each_why_is_put_into_words(why: Why) -> None:
    answer = {"vip": "web", "backend": None, "why": str(why), "next_hop": None}
    with patch.object(common, "call", return_value=answer):
        done = CliRunner().invoke(explain.explain, ["tcp", "10.1.0.2:4000", "192.0.2.10:80"], catch_exceptions=False)
    assert done.output.startswith(f"VIP web: {'no backend' if why == 'no_backend' else 'one of its backends'} ({why}: ")


def words_of(settings_: Mapping[str, object]) -> list[str]:
    """The options that say them."""
    words: list[str] = []
    for name, value in settings_.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif isinstance(value, list):
            words += [f"--{option.removesuffix('s')}={each}" for each in value]
        else:
            words.append(f"--{option}={value}")
    return words


def typed(lines: list[list[str]]) -> Config:
    """What a daemon has after these commands."""
    config = Config()

    def call(operation: str, **arguments: object) -> None:
        nonlocal config
        received = wire.open_request(msgpack.unpackb(wire.encode_request(operation, arguments)[4:]))
        config = apply_change(config, *received)

    with patch.object(common, "call", call):
        for line in lines:
            CliRunner().invoke(cli, line, catch_exceptions=False, standalone_mode=False)
    return config


VERBS = {Admin.NONE: "resume", Admin.DRAIN: "drain", Admin.DISABLED: "disable"}


@given(configs, st.booleans())
def test_every_configuration_can_be_typed(config: Config, at_once: bool) -> None:
    """Each setting has an option, of adding and of changing, and what the daemon gets by it is what was meant."""
    lines: list[list[str]] = []
    for vip in config.vips:
        words = words_of(settings.plain(vip))
        adding = ["vip", "add", vip.name, str(vip)]
        lines += [[*adding, *words]] if at_once else [adding, ["vip", "set", vip.name, *words]]
        for backend in vip.backends:
            which = [vip.name, str(backend.endpoint)]
            own = settings.plain_backend(replace(backend, admin=Admin.NONE))
            words = words_of({name: value for name, value in own.items() if name != "admin"})
            adding = ["backend", "add", *which]
            lines += [[*adding, *words]] if at_once else [adding, ["backend", "set", *which, *words]]
            lines.append(["backend", VERBS[backend.admin], *which])
    assert replace(typed(lines), seed=config.seed) == config


@given(configs)
def test_every_configuration_can_be_shown(config: Config) -> None:
    """From the JSON that the daemon sends, with every VIP and backend as it would be typed."""
    live = Live("0.0", 1.0, **live_health(config), interfaces=(Interface("eth0", "native"),))
    view: Any = json.loads(json.dumps(status_view(config, live)))
    shown: list[str] = []
    with patch.object(render.click, "echo", lambda text="", **_: shown.append(text)):
        render.status(view)
        render.vips(view["vips"])
    words = " ".join(shown).split()
    for vip in config.vips:
        assert words.count(str(vip)) == 2, "in the status and in the list"
        assert all(str(backend.endpoint) in words for backend in vip.backends)


@pytest.mark.parametrize(("words", "echo"), [([], True), (["--echo"], True), (["--no-echo"], False)])
def test_run_takes_pings_or_leaves_them(words: list[str], echo: bool) -> None:
    options: list[RunOptions] = []
    with patch.dict(sys.modules, {"l4lb.daemon": SimpleNamespace(run=options.append)}):
        CliRunner().invoke(cli, ["run", "--interface", "eth0", *words], catch_exceptions=False, standalone_mode=False)
    assert [given.echo for given in options] == [echo]


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
    ("vip add new 2001:db8::1:80/tcp", 2, "put an IPv6 address in brackets, as in [2001:db8::1]:80"),
    ("vip add new [2001:db8::1]:90-80/tcp", 2, "ports 90-80 end before they begin"),
    ("vip add new 192.0.2.9:80/tcp --mode ipip --source 10.0.0.1/28", 2, "'10.0.0.1/28' is no network"),
    ("vip add new 192.0.2.9:80/tcp --source 10.9.0.0/28", 2, "mode nat of VIP new keeps the client's address"),
    ("vip add new 192.0.2.9:80/tcp --gue-port 0", 2, "0 is not in the range 1<=x<=65535"),
    ("vip add new 192.0.2.9:80/tcp --mss 87", 2, "MSS 87 of VIP new is not between 88 and 65495 bytes"),
    ("vip add new 192.0.2.9:80/tcp --mss 65496", 2, "65496 is not in the range 0<=x<=65495"),
    ("vip add new 192.0.2.9:80/tcp --client-prefix 24", 2, "VIP new goes by no client prefix"),
    ("vip add new 192.0.2.9:80/tcp --client-prefix 129", 2, "129 is not in the range 0<=x<=128"),
    ("vip add new 192.0.2.9:80/tcp --mode fullnat --pool 1000", 2, "'1000' is not one of '256', '512'"),
    ("vip add new 192.0.2.9:80/tcp --mode fullnat --pool 32768", 2, "pool 32768 of VIP new is larger than the 16384"),
    ("vip add new", 2, "Missing argument"),
    ("vip remove wev", 1, "there is no VIP 'wev': did you mean web?"),
    ("vip set web", 2, "nothing to set"),
    ("vip set web --source 10.9.0.0/30 --no-source", 2, "--source and --no-source cannot both be"),
    ("backend add web 2001:db8::1", 2, "put an IPv6 address in brackets"),
    ("backend add web [2001:db8::1]", 2, "is of another family than the VIP"),
    ("backend add web 10.0.0.3 --weight -1", 2, "-1 is not in the range 0<=x<=65535"),
    ("backend add web 10.0.0.3 --weight many", 2, "'many' is not a valid integer"),
    ("backend add web 192.0.2.10", 2, "has the address of its VIP web"),
    ("backend add web 10.0.0.1:8080", 2, "exists already"),
    ("backend add nope 10.0.0.1", 1, "there is no VIP 'nope'"),
    ("backend set web 10.0.0.1:8080", 2, "nothing to set: give --weight or another option"),
    ("backend list nope", 1, "there is no VIP 'nope'"),
    ("explain tcp 10.1.0.2 192.0.2.10:80", 2, "address '10.1.0.2' has no port"),
    ("explain tcp 2001:db8::1:4000 192.0.2.10:80", 2, "put an IPv6 address in brackets"),
    ("explain tcp 10.1.0.2:4000 [2001:db8::10]", 2, "address '[2001:db8::10]' has no port"),
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
