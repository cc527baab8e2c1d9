"""Health on the disk: what was known is known after a restart, and a file that is of no use harms nobody."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l4lb import health_file
from l4lb.changes import apply_change
from l4lb.health.book import HealthBook
from l4lb.health.report import Clocks, in_full, in_short
from l4lb.health.result import Result
from l4lb.health.rules import State
from l4lb.health_file import HealthFile
from l4lb.model import Config

CONFIG = apply_change(
    Config(), "vip.add",
    {
        "name": "web", "address": "192.0.2.10:80", "protocol": "tcp", "checks": [r"http:body=a\,b", "agent:port=9"],
        "slow_start": 60,
    },
)  # fmt: skip
for address in ("10.0.0.1:8080", "10.0.0.2"):
    CONFIG = apply_change(CONFIG, "backend.add", {"vip": "web", "address": address})


class Machine:
    """The clocks that the file is saved and loaded by."""

    def __init__(self) -> None:
        self.boot, self.uptime, self.wall = "boot 1", 1_000.0, 1_700_000_000.0

    def monotonic(self) -> float:
        return self.uptime

    def time(self) -> float:
        return self.wall


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(health_file, "time", found)
    monkeypatch.setattr(health_file, "_boot", lambda: found.boot)
    return found


def book(config: Config = CONFIG, now: float = 990.0) -> HealthBook:
    """The first backend went down and came back, and its agent wants to be drained; of the second nothing is known."""
    known = HealthBook()
    known.follow(config, now)
    (vip,) = config.vips
    for ago, ok in ((9, False), (8, True), (7, True)):
        known.observe(vip, vip.backends[0], 0, Result(ok, "" if ok else "HTTP 503", 0.01), now + 9 - ago)
        known.observe(vip, vip.backends[0], 1, Result(True, "", 0.01, "75% drain"), now + 9 - ago)
    return known


def saved(folder: Path, known: HealthBook) -> dict[str, Any]:
    HealthFile(folder / "health.json").save(known)
    content: dict[str, Any] = json.loads((folder / "health.json").read_text())
    return content


def shown(known: HealthBook, config: Config, now: float) -> list[object]:
    """All that is ever shown of it, as JSON that any program reads."""
    clocks = Clocks(now, 1_700_000_000.0)
    found: list[object] = []
    for vip in config.vips:
        for backend, effective in zip(vip.backends, known.picture(vip, now).backends, strict=True):
            health = known.health(vip, backend, now)
            found.append((in_short(vip, backend, health, effective, clocks), in_full(vip, backend, health, clocks)))
    result: list[object] = json.loads(json.dumps(found, allow_nan=False))
    return result


def test_what_was_saved_is_loaded_stale(machine: Machine, tmp_path: Path) -> None:
    """And counts: who was down is down, and who was coming back goes on to."""
    known = book()
    file = HealthFile(tmp_path / "health.json")
    file.save(known)
    machine.uptime += 5
    loaded = file.load(CONFIG)
    assert loaded.entries.keys() == known.entries.keys()
    for key, entry in known.entries.items():
        checks = tuple(replace(check, stale=True) for check in entry.health.checks)
        expected = replace(entry, health=replace(entry.health, checks=checks, began=1_005.0))
        assert loaded.entries[key] == expected
    (vip,) = CONFIG.vips
    first, second = loaded.picture(vip, 1_005.0).backends
    assert (first.weight, first.reason) == (0, "agent: drain, weight 6/8")
    assert (second.weight, second.reason) == (1, "unknown")


def test_the_monotonic_clock_of_another_boot_is_another(machine: Machine, tmp_path: Path) -> None:
    """How long ago things happened is told by the wall clock, if that makes sense."""
    file = HealthFile(tmp_path / "health.json")
    file.save(book())
    ((key, entry), _) = book().entries.items()
    since = 1_000.0 - entry.health.since
    for slept, ago in ((30.0, since + 30), (0.0, since), (-500.0, since)):
        machine.boot, machine.uptime, machine.wall = "boot 2", 20.0, 1_700_000_000.0 + slept
        health = file.load(CONFIG).entries[key].health
        assert health.since == pytest.approx(20.0 - ago)
        assert health.recovered == pytest.approx(20.0 - ago)
        assert [20.0 - seen.at - ago for seen in health.checks[0].results] == pytest.approx([2, 1, 0])
        assert health.began == 20.0


def test_only_what_there_is_yet_is_loaded(machine: Machine, tmp_path: Path) -> None:
    file = HealthFile(tmp_path / "health.json")
    file.save(book())
    less = apply_change(CONFIG, "backend.remove", {"vip": "web", "address": "10.0.0.1:8080"})
    assert [str(endpoint) for _, endpoint in file.load(less).entries] == ["10.0.0.2:80"]
    other = apply_change(CONFIG, "vip.remove", {"name": "web"})
    assert file.load(other).entries == {}


def test_checks_that_changed_meanwhile_are_taken_over(machine: Machine, tmp_path: Path) -> None:
    """As by `l4lb vip set`: of those that stay, what they had found stays."""
    file = HealthFile(tmp_path / "health.json")
    file.save(book())
    changed = apply_change(CONFIG, "vip.set", {"name": "web", "checks": ["tcp", r"http:body=a\,b"]})
    (vip,) = changed.vips
    loaded = file.load(changed)
    loaded.follow(changed, 1_000.0)
    states = [check.state for check in loaded.health(vip, vip.backends[0], 1_000.0).checks]
    assert states == [State.UNKNOWN, State.UP]


def test_backends_without_checks_take_no_room(machine: Machine, tmp_path: Path) -> None:
    bare = apply_change(CONFIG, "vip.set", {"name": "web", "checks": []})
    known = HealthBook()
    known.follow(bare, 0)
    assert saved(tmp_path, known)["backends"] == []


def test_the_file_is_its_owners(machine: Machine, tmp_path: Path) -> None:
    """What checks find is nobody else's business, whatever was left there."""
    (tmp_path / "health.json").touch(mode=0o644)
    file = HealthFile(tmp_path / "health.json")
    for _ in range(2):
        file.save(book())
        assert (tmp_path / "health.json").stat().st_mode & 0o777 == 0o600
        assert [path.name for path in tmp_path.iterdir()] == ["health.json"]


def test_without_a_folder_there_is_nothing_worth_saving(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The state file makes it with the first VIP."""
    HealthFile(tmp_path / "l4lb" / "health.json").save(HealthBook())
    assert list(tmp_path.iterdir()) == []
    assert not caplog.records


def test_a_disk_that_is_full_costs_the_news_and_no_more(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = HealthFile(tmp_path / "health.json")
    file.save(book())

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    file.save(HealthBook())
    assert "cannot save the health of backends in" in caplog.text
    assert "No space left on device" in caplog.text
    assert len(file.load(CONFIG).entries) == 2, "the old file is there"


def test_nothing_was_saved_yet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert HealthFile(tmp_path / "health.json").load(CONFIG).entries == {}
    assert not caplog.records


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", "5", '"l4lb-health"', "\x00", '{"format": "l4lb-health"}', "[" * 100_000,
        '{"format": "l4lb-health", "version": 2, "boot": "", "monotonic": 0, "wall": 0, "backends": []}',
        '{"format": "l4lb-state", "version": 1, "boot": "", "monotonic": 0, "wall": 0, "backends": []}',
    ],
)  # fmt: skip
def test_another_file_is_told_and_not_used(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = tmp_path / "health.json"
    path.write_text(text)
    assert HealthFile(path).load(CONFIG).entries == {}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"the health of backends in {path} cannot be used" in record.getMessage()


def test_a_file_that_is_no_text_is_told_and_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "health.json"
    path.write_bytes(b"\xff\xfe")
    assert HealthFile(path).load(CONFIG).entries == {}
    assert "cannot be used" in caplog.text
    path.unlink()
    path.mkdir()
    assert HealthFile(path).load(CONFIG).entries == {}


def put(content: Any, place: Sequence[Any], value: object) -> object:
    """Content with another value at a place."""
    if not place:
        return value
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return content


NAN, INFINITE = float("nan"), float("inf")
FIRST = ("backends", 0, 3)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("backends", 0, 2), ["tcp"]),
        (("backends", 0, 2), ["tcp"] * 3),
        (("backends", 0, 2), [[], []]),
        (("backends", 0, 0), ["web"]),
        ((*FIRST, "checks"), []),
        ((*FIRST, "since"), NAN),
        ((*FIRST, "recovered"), INFINITE),
        ((*FIRST, "checks", 0, "results", 0, 0), -INFINITE),
        ((*FIRST, "checks", 0, "results", 0, 3), NAN),
        ((*FIRST, "checks", 0, "run"), INFINITE),
        ((*FIRST, "checks", 1, "advice"), ["drain"]),
        (("monotonic",), NAN),
        (("monotonic",), 10**400),
        (("wall",), -INFINITE),
        (("wall",), "noon"),
    ],
)
def test_what_cannot_be_is_told_and_not_used(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture, place: tuple[Any, ...], value: object
) -> None:
    path = tmp_path / "health.json"
    path.write_text(json.dumps(put(saved(tmp_path, book()), place, value)))
    machine.boot = "boot 2"  # so that all clocks count
    assert HealthFile(path).load(CONFIG).entries == {}
    assert "cannot be used" in caplog.text


def places(value: object, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all values inside of one."""
    items: list[tuple[Any, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [here, *(place for key, inner in items for place in places(inner, (*here, key)))]


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 1, 2**70, 10**400, 0.5, 1e308, NAN, INFINITE, -INFINITE])
    | st.sampled_from(["", "up", "down", "drain", "tcp", "agent:port=9", "web", "10.0.0.2:80"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data(), st.sampled_from(["boot 1", "boot 2"]))
def test_a_damaged_file_starts_a_daemon_like_any(
    machine: Machine, tmp_path: Path, data: st.DataObject, boot: str
) -> None:
    """Whatever stands wherever: what is loaded can be shown, asked for weights, and goes on with new results."""
    machine.boot = "boot 1"
    content = saved(tmp_path, book())
    place = data.draw(st.sampled_from(places(content)), label="place")
    path = tmp_path / "health.json"
    path.write_text(json.dumps(put(content, place, data.draw(_values, label="value"))))
    machine.boot = boot
    loaded = HealthFile(path).load(CONFIG)
    assert shown(loaded, CONFIG, machine.uptime)
    loaded.next_change(CONFIG, machine.uptime)
    loaded.follow(CONFIG, machine.uptime)
    (vip,) = CONFIG.vips
    for backend in vip.backends:
        for index in range(len(vip.checks)):
            for _ in range(3):
                loaded.observe(vip, backend, index, Result(True, "", 0.01), machine.uptime)
        assert loaded.health(vip, backend, machine.uptime).state is State.UP
    assert saved(tmp_path, loaded)
