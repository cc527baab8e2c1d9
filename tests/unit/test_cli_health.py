"""What the command line has of health: options, and what it shows of states, reasons and events."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

import click
import pytest
from click.testing import CliRunner, Result

from l4lb import settings
from l4lb.changes import CHANGES, apply_change, find_backend, find_vip, vip_and_endpoint
from l4lb.cli import backend, checks, cli, common, health_options, render, vip
from l4lb.errors import L4lbError
from l4lb.health import saved
from l4lb.health.book import HealthBook
from l4lb.health.check import Check
from l4lb.health.events import Event, Log
from l4lb.health.handshakes import Handshakes
from l4lb.health.kinds import KINDS
from l4lb.health.report import in_full
from l4lb.health.result import Result as Probed
from l4lb.health.rules import HealthRules
from l4lb.model import Admin, Config
from l4lb.view import Live, backend_list_view, status_view, vip_list_view
from tests.unit.serving import NOW, live_health


class Daemon:
    """Keeps a configuration, and is told how backends are."""

    def __init__(self) -> None:
        self.config = Config()
        self.book = HealthBook()
        self.log = Log()
        self.asked: list[Mapping[str, object]] = []
        self.handshakes: Handshakes | None = None

    def call(self, operation: str, **arguments: object) -> Any:
        """In place of a socket."""
        if operation in CHANGES:
            self.config = apply_change(self.config, operation, arguments)
            self.book.follow(self.config, NOW.monotonic - 60)
            return None
        if operation == "events":
            self.asked.append(arguments)
            if len(self.asked) > 3:
                raise click.Abort  # Ctrl-C
            since = arguments["since"]
            assert isinstance(since, int)
            return json.loads(json.dumps(self.log.plain(since)))
        return json.loads(json.dumps(self._shown(operation, arguments)))

    def _shown(self, operation: str, arguments: Mapping[str, object]) -> object:
        live = Live("0.0", 60.0, **live_health(self.config, self.book))
        if operation == "status":
            return status_view(self.config, live)
        if operation == "vip.list":
            return vip_list_view(self.config, live)
        if operation == "backend.list":
            return backend_list_view(self.config, live, str(arguments["vip"]))
        assert operation == "backend.show"
        vip_, endpoint = vip_and_endpoint(self.config, arguments)
        shown = find_backend(vip_, endpoint)
        listed = backend_list_view(self.config, live, vip_.name)[vip_.backends.index(shown)]
        health = self.book.health(vip_, shown, NOW.monotonic)
        heard = {"handshakes": self.handshakes.plain()} if self.handshakes else {}
        return {"vip": vip_.name, **listed, **in_full(vip_, shown, health, NOW), **heard}

    def probed(self, number: int, results: str, reason: str = "HTTP 503, expected 200") -> None:
        """Tells results of all checks of a backend: 'x' for each that failed, '.' for each that passed."""
        (vip_,) = self.config.vips
        for ago, result in reversed(list(enumerate(reversed(results)))):
            for index in range(len(vip_.checks)):
                ok = result == "."
                found = Probed(ok, "" if ok else reason, 0.0125)
                self.book.observe(vip_, vip_.backends[number], index, found, NOW.monotonic - ago)


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


def run(daemon: Daemon, *lines: str) -> Result:
    """The outcome of the last one."""
    with patch.object(common, "call", daemon.call):
        for line in lines:
            result = CliRunner().invoke(cli, line.split(), catch_exceptions=False, standalone_mode=False)
    return result


WEB = (
    "vip add web 192.0.2.10:80/tcp --mode dsr --check http:path=/health --interval 500ms --timeout 300ms --fall 2",
    "backend add web 10.0.0.1",
    "backend add web 10.0.0.2 --weight 3 --priority 1",
)


def options_of(command: click.Command) -> set[str]:
    return {str(parameter.name) for parameter in command.params if isinstance(parameter, click.Option)} - {"socket"}


def test_every_setting_has_an_option() -> None:
    assert options_of(vip.add) == {*settings.SETTINGS}
    assert options_of(vip.set_) == {*settings.SETTINGS, "no_source"}
    own = {*settings.BACKEND_SETTINGS} - {"admin"}  # which has commands
    assert options_of(backend.add) == own
    assert options_of(backend.set_) == {*own, "inherit"}
    assert set(health_options.NAMES) == {field.name for field in fields(HealthRules)}, "each can be inherited"


def test_checks_end_with_none(daemon: Daemon) -> None:
    run(daemon, *WEB, "vip set web --check tcp --check icmp --timeout 1s")
    assert find_vip(daemon.config, "web").checks == (Check("tcp"), Check("icmp")), "all others are taken back"
    run(daemon, "vip set web --check none")
    assert find_vip(daemon.config, "web").checks == ()
    assert find_vip(daemon.config, "web").health.timeout == 1.0
    run(daemon, "vip add other 192.0.2.11:80/tcp --check none")
    assert find_vip(daemon.config, "other").checks == ()


def test_a_backend_inherits_again(daemon: Daemon) -> None:
    run(daemon, *WEB, "backend set web 10.0.0.1 --rise 5 --no-degrade --fast-interval 100ms --check-port 81 --weight 2")
    (first, _) = find_vip(daemon.config, "web").backends
    assert dict(first.overrides) == {"rise": 5, "degrade": False, "fast_interval": 0.1, "check_port": 81}
    run(daemon, "backend set web 10.0.0.1 --inherit fast-interval --inherit degrade --inherit floor --rise 4")
    (first, _) = find_vip(daemon.config, "web").backends
    assert dict(first.overrides) == {"rise": 4, "check_port": 81}
    assert first.weight == 2


def test_drain_disable_and_resume(daemon: Daemon) -> None:
    run(daemon, *WEB)
    for verb, admin in (("drain", Admin.DRAIN), ("disable", Admin.DISABLED), ("resume", Admin.NONE)):
        run(daemon, f"backend {verb} web 10.0.0.2")
        assert [found.admin for found in find_vip(daemon.config, "web").backends] == [Admin.NONE, admin]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("vip set web --check none --check tcp", "--check none ends all checks: leave it out, or the other checks"),
        ("vip set web --check tpc", "check kind 'tpc' is not known: did you mean tcp?"),
        ("vip set web --check http:status=99", "option status of check http: '99' is no set of statuses"),
        ("vip set web --interval -5s", "'-5s' is no duration: write it as in 500ms, 2s, 1m or 1h30m"),
        ("vip set web --interval 5ms", "VIP web: interval 0.005 s is not between 10 ms and a day: use 500ms or 2s"),
        ("vip set web --interval " + 400 * "9", "interval inf is no finite number"),
        ("vip set web --jitter nan", "jitter nan is no finite number"),
        ("vip set web --jitter 0.6", "0.6 is not in the range 0<=x<=0.5"),
        ("vip set web --rise 0", "0 is not in the range 1<=x<=255"),
        ("vip set web --floor 0", "0 is not in the range 1<=x<=100"),
        ("vip set web --initial dead", "'dead' is not one of 'unknown', 'up', 'down'"),
        ("vip set web --check-port 65536", "65536 is not in the range 0<=x<=65535"),
        ("vip set web --tier-share 99", "99 is not in the range 100<=x<=1000"),
        ("vip set web --panic-share 101", "101 is not in the range 0<=x<=100"),
        ("vip set web --passive", "the gateway does not see the handshakes of VIP web: use --no-passive"),
        ("vip set web --via dataplane", "check http:path=/health of VIP web cannot be made by way of the dataplane"),
        ("backend add web 10.0.0.3 --priority 16", "16 is not in the range 0<=x<=15"),
        ("backend set web 10.0.0.1", "nothing to set: give --weight or another option"),
        ("backend set web 10.0.0.1 --inherit weight", "'weight' is not one of 'interval', 'timeout', 'rise'"),
        ("backend set web 10.0.0.1 --inherit rise --rise 3", "--rise cannot be both given and inherited: leave one"),
        ("backend set web 10.0.0.1 --interval 1ms", "backend 10.0.0.1:80 of VIP web: interval 0.001 s is not between"),
        ("backend drain web 10.0.0.9", "VIP web has no backend 10.0.0.9:80: did you mean 10.0.0.2:80 or"),
        ("backend disable wev 10.0.0.1", "there is no VIP 'wev': did you mean web?"),
        ("backend show web 10.0.0.9", "VIP web has no backend 10.0.0.9:80"),
        ("checks ftp", "'ftp' is not one of 'tcp', 'http'"),
    ],
)
def test_refused(daemon: Daemon, line: str, says: str) -> None:
    run(daemon, *WEB)
    before = daemon.config
    with pytest.raises((L4lbError, click.ClickException)) as refusal:
        run(daemon, line)
    error = refusal.value
    assert says in (error.format_message() if isinstance(error, click.ClickException) else str(error))
    assert error.exit_code == (1 if "there is no" in says or "has no backend" in says else 2)
    assert daemon.config == before


def test_a_backend_with_all_that_is_known(daemon: Daemon) -> None:
    run(daemon, *WEB, "vip set web --check http:path=/health --check tcp")
    daemon.probed(0, "..xx")
    times = [render.moment(NOW.wall - ago) for ago in range(4)]
    check = ": down, HTTP 503, expected 200 \N{MULTIPLICATION SIGN}2"
    results = [
        f"    {'TIME':<{len(times[0])}}  RESULT  LATENCY  WHAT CAME",
        f"    {times[0]}  failed  12.5 ms  HTTP 503, expected 200",
        f"    {times[1]}  failed  12.5 ms  HTTP 503, expected 200",
        f"    {times[2]}  ok      12.5 ms",
        f"    {times[3]}  ok      12.5 ms",
    ]
    why = "HTTP 503, expected 200 \N{MULTIPLICATION SIGN}2"
    assert run(daemon, "backend show web 10.0.0.1").output.splitlines() == [
        f"10.0.0.1:80 of VIP web: down, since {times[0]}",
        f"  down: {why}; {why}",
        "  weight 1, next hop unresolved, 0 packets",
        "  checked every 500ms, timeout 300ms, rise 2, fall 2",
        "",
        f"  http:path=/health{check}",
        *results,
        "",
        f"  tcp{check}",
        *results,
    ]


def test_a_backend_that_was_not_checked_yet(daemon: Daemon) -> None:
    run(daemon, *WEB, "vip set web --check udp --via dataplane")
    assert run(daemon, "backend show web 10.0.0.2").output.splitlines() == [
        f"10.0.0.2:80 of VIP web: unknown, since {render.moment(NOW.wall - 60)}, without a result of late",
        "  unknown, standby in tier 1",
        "  weight 3, tier 1, next hop unresolved, 0 packets",
        "  checked every 500ms, timeout 300ms, rise 2, fall 2 to the VIP's address, by way of the dataplane",
        "",
        "  udp: unknown",
    ]


def test_a_backend_without_checks_says_how_to_give_it_some(daemon: Daemon) -> None:
    daemon.handshakes = Handshakes(2_000, 5, 1_990, 3, times=(0, 0, 1_990))
    run(daemon, *WEB, "vip set web --check none")
    assert run(daemon, "backend show web 10.0.0.1").output.splitlines()[2:] == [
        "  weight 1, next hop unresolved, 0 packets",
        "  1,990 of 2,000 handshakes answered, half of them within 0.064 ms, 3 refused",
        "  no checks; give it some with `l4lb vip set web --check tcp`",
    ]


def test_what_was_known_before_a_start_is_marked(daemon: Daemon) -> None:
    run(daemon, *WEB)
    daemon.probed(0, "x")
    daemon.book = HealthBook(
        {
            key: replace(entry, health=saved.parse(saved.plain(entry.health), 0, NOW.monotonic))
            for key, entry in daemon.book.entries.items()
        }
    )
    first = run(daemon, "backend show web 10.0.0.1").output.splitlines()[0]
    assert first.endswith(", without a result of late")


def test_a_vip_that_nobody_serves_is_loud(daemon: Daemon) -> None:
    run(daemon, *WEB, "vip set web --none-left reject")
    daemon.probed(0, "x")
    shown = run(daemon, "status").output.splitlines()
    assert "  OVERFLOW: tier 0 is short of healthy weight: 100 % of flows to tier 1" in shown
    daemon.probed(1, "x", reason="connection refused")
    shown = run(daemon, "status").output.splitlines()
    at = shown.index("  NONE: no backend can take a flow")
    assert shown[at - 1].startswith(
        "web  192.0.2.10:80/tcp  dsr, maglev, checked by http:path=/health every 500ms, reject if no backend is left"
    )
    rows = shown[at + 2 : at + 4]
    assert [row.split()[:3] for row in rows] == [["10.0.0.1:80", "1", "down"], ["10.0.0.2:80", "3", "down"]]
    assert rows[0].endswith("unresolved  down: HTTP 503, expected 200")
    assert rows[1].endswith("unresolved  down: connection refused")


def test_a_vip_without_backends_says_so_once(daemon: Daemon) -> None:
    run(daemon, WEB[0], "vip set web --none-left reject")
    shown = run(daemon, "status").output.splitlines()
    assert shown[2].startswith("web  192.0.2.10:80/tcp")
    assert shown[3:] == ["  no backends: nobody takes its packets"]


def test_a_list_counts_the_backends_that_take_flows(daemon: Daemon) -> None:
    run(daemon, *WEB, "backend set web 10.0.0.2 --priority 0")

    def counted() -> str:
        (_, row) = run(daemon, "vip list").output.splitlines()
        return row.partition("maglev")[2].partition("  0 ")[0].strip()

    assert counted() == "2 of 2"
    daemon.probed(0, "x")
    assert counted() == "1 of 2"
    run(daemon, "backend drain web 10.0.0.2")
    assert counted() == "none"
    assert [found["state"] for found in json.loads(run(daemon, "backend list web --json").output)] == [
        "down", "draining",
    ]  # fmt: skip


def test_a_list_tells_how_it_is_checked(daemon: Daemon) -> None:
    run(daemon, *WEB, "vip set web --check tcp --via dataplane --panic-share 30 --panic refuse")
    told = "checked by tcp every 500ms by way of the dataplane, refuse if less than 30 % is healthy"
    assert run(daemon, "vip list").output.splitlines()[1].endswith(told)
    run(daemon, "vip set web --via direct --mode nat --check icmp --check tcp --passive --interval 1m30s")
    told = "checked by icmp and tcp every 1m30s, handshakes watched, refuse if less than 30 % is healthy"
    assert run(daemon, "vip list").output.splitlines()[1].endswith(told)


def test_a_weight_that_is_not_whole_is_told_with_its_reason(daemon: Daemon) -> None:
    run(daemon, *WEB, "vip set web --slow-start 80s", "backend set web 10.0.0.2 --priority 0")
    daemon.probed(1, "." + 20 * "x" + ".." + 20 * ".")
    row = run(daemon, "backend list web").output.splitlines()[2]
    assert row.split()[:4] == ["10.0.0.2:80", "3", "(25%)", "up"]
    assert row.endswith("up, slow start 2/8")


EVENTS = [
    Event(NOW.wall, "web", "10.0.0.1:80", "down", "HTTP 503 \N{MULTIPLICATION SIGN}3", "1,024 slots moved"),
    Event(NOW.wall + 1, "web", None, "none", "no backend can take a flow", "no slot moved"),
]


def test_events_for_people_and_programs(daemon: Daemon) -> None:
    for event in EVENTS:
        daemon.log.add(event)
    assert run(daemon, "events").output.splitlines() == [
        f"{render.moment(NOW.wall)}  web 10.0.0.1:80  down: HTTP 503 \N{MULTIPLICATION SIGN}3; 1,024 slots moved",
        f"{render.moment(NOW.wall + 1)}  web  none: no backend can take a flow; no slot moved",
    ]
    assert [json.loads(line) for line in run(daemon, "events --json").output.splitlines()] == [
        {
            "time": NOW.wall, "vip": "web", "backend": "10.0.0.1:80", "what": "down",
            "why": "HTTP 503 \N{MULTIPLICATION SIGN}3", "effect": "1,024 slots moved",
        },
        {
            "time": NOW.wall + 1, "vip": "web", "backend": None, "what": "none",
            "why": "no backend can take a flow", "effect": "no slot moved",
        },
    ]  # fmt: skip
    assert daemon.asked == [{"since": 0, "wait": 0}] * 2, "nobody waits"


def test_followed_events_come_once_each(daemon: Daemon) -> None:
    """What there is comes at once, and then the daemon is asked to wait for more."""
    daemon.log = Log(first=7, kept=1)
    for event in EVENTS:
        daemon.log.add(event)
    with patch.object(common, "call", daemon.call):
        result = CliRunner().invoke(cli, ["events", "--follow"], standalone_mode=False)
    assert isinstance(result.exception, click.Abort)
    assert result.stdout == f"{render.moment(NOW.wall + 1)}  web  none: no backend can take a flow; no slot moved\n"
    assert result.stderr == "l4lb: 1 older events are not kept any more\n"
    assert [asked["since"] for asked in daemon.asked] == [0, 9, 9, 9]
    assert [bool(asked["wait"]) for asked in daemon.asked] == [False, True, True, True]


def test_a_time_of_another_day_has_its_date() -> None:
    now = datetime.now().astimezone()
    earlier = now - timedelta(days=2)
    assert render.moment(now.timestamp()) == now.strftime("%H:%M:%S.%f")[:-3]
    assert render.moment(earlier.timestamp()) == earlier.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def test_every_kind_of_check_is_told_with_its_options() -> None:
    everything = CliRunner().invoke(checks.checks, []).output
    for kind in KINDS.values():
        alone = CliRunner().invoke(checks.checks, [kind.name]).output
        assert alone in everything
        lines = alone.splitlines()
        assert lines[0] == f"{kind.name}: {kind.help}"
        assert [line.split()[0] for line in lines[1 : len(kind.options) + 1]] == list(kind.options)
        assert (f"    needs pip install 'l4lb[{kind.extra.name}]'" in lines) if kind.extra else True
    assert "    status        good statuses, as in 200|204|301-302 (default 200-399)\n" in everything
