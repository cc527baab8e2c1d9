"""The state file: what is saved is there again, and damage anywhere is found, told and never overwritten."""

import contextlib
import hashlib
import json
import os
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4lb import state
from l4lb.changes import apply_change
from l4lb.model import Backend, Config, Endpoint, Mode, Protocol, Scheduler, Service, Vip
from l4lb.state import StateError, StateFile
from tests.unit.strategies import configs

CONFIG = apply_change(Config(seed=5), "vip.add", {"name": "web", "address": "192.0.2.10:80", "protocol": "tcp"})
CONFIG = apply_change(CONFIG, "vip.set", {"name": "web", "checks": ["http:path=/health"], "interval": 0.5})
CONFIG = apply_change(CONFIG, "backend.add", {"vip": "web", "address": "10.0.0.1:8080", "weight": 3, "timeout": 0.2})
CONFIG = apply_change(CONFIG, "backend.drain", {"vip": "web", "address": "10.0.0.1:8080"})


# As the version before modes, families and port ranges saved it.
OLD: dict[str, Any] = {
    "seed": 5,
    "vips": [
        {
            "name": "web",
            "address": "192.0.2.10:80",
            "protocol": "tcp",
            "mode": "dsr",
            "scheduler": "maglev",
            "idle_timeout": 77,
            "backends": [{"address": "10.0.0.1:80", "weight": 3}],
        }
    ],
}


def saved(content: object) -> bytes:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({"format": "l4lb-state", "version": 1, "sha256": digest, "config": content}).encode()


def test_a_file_of_the_last_version_is_taken_with_defaults() -> None:
    config = state.decode(saved(OLD))
    service = Service(IPv4Address("192.0.2.10"), 80, 80, Protocol.TCP)
    backend = Backend(Endpoint(IPv4Address("10.0.0.1"), 80), 3)
    assert config == Config(
        (Vip("web", service, Mode.DSR, Scheduler.MAGLEV, (backend,), 77, (), 6080, 0, 0, 4096),), seed=5
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mode": "fly"}, "mode 'fly' is not known"),
        ({"mss": "1400"}, "mss '1400' is no whole number"),
        ({"sources": ["10.0.0.1/8"]}, "is no network"),
        ({"address": "192.0.2.10:9-8"}, "end before they begin"),
        ({"pool": 5}, "is no power of two"),
        ({"backends": [{"address": "10.0.0.1", "weight": 1}]}, "has another port than the VIP"),
        ({"backends": 5}, "its content is not as it should be"),
        ({"colour": "red", "age": 5}, r"VIP web has settings that this l4lb does not know \(age, colour\)"),
        ({"checks": ["tpc"]}, "check kind 'tpc' is not known"),
        ({"rise": 0}, "VIP web: rise 0 is not between 1 and 255"),
        ({"panic_share": 101}, "VIP web: panic share 101 % is not between"),
        ({"interval": 10**400}, "interval 100000000000000000...0000000000000000000 is no finite number"),
        ({"slow_start": True}, "slow_start True is no finite number"),
    ],
)
def test_a_file_with_a_wrong_setting_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(StateError, match=says):
        state.decode(saved({**OLD, "vips": [{**OLD["vips"][0], **change}]}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"colour": "red", "age": 5}, r"backend 10.0.0.1:80 has settings that this l4lb does not know \(age, colour\)"),
        ({"mode": "dsr"}, r"does not know \(mode\)"),
        ({"overrides": []}, r"does not know \(overrides\)"),
        ({"admin": "resting"}, "admin 'resting' is not known: use none or drain or disabled"),
        ({"priority": 16}, "priority 16 is not between 0 and 15"),
        ({"timeout": 601}, "backend 10.0.0.1:80 of VIP web: timeout 601 s is not between"),
        ({"degrade": "no"}, "degrade 'no' is neither true nor false"),
    ],
)
def test_a_file_with_a_wrong_setting_of_a_backend_is_refused(change: dict[str, object], says: str) -> None:
    (vip,) = OLD["vips"]
    (backend,) = vip["backends"]
    with pytest.raises(StateError, match=says):
        state.decode(saved({**OLD, "vips": [{**vip, "backends": [{**backend, **change}]}]}))


@given(configs)
def test_round_trip(config: Config) -> None:
    assert state.decode(state.encode(config)) == config


def test_a_file_cut_off_anywhere_is_damaged() -> None:
    data = state.encode(CONFIG)
    for length in range(len(data) - 1):  # the last byte is a line's end
        with pytest.raises(StateError):
            state.decode(data[:length])


@settings(max_examples=300)
@given(st.data())
def test_a_changed_bit_is_found_or_means_nothing(data: st.DataObject) -> None:
    good = state.encode(CONFIG)
    at, bit = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 7))
    bad = bytearray(good)
    bad[at] ^= 1 << bit
    with contextlib.suppress(StateError):
        assert state.decode(bytes(bad)) == CONFIG


@given(st.binary(max_size=300))
def test_garbage_is_damaged(data: bytes) -> None:
    with pytest.raises(StateError):
        state.decode(data)


def test_save_and_load(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "new" / "state.json")
    assert file.load() is None
    file.save(Config())
    file.save(CONFIG)
    assert StateFile(file.path).load() == CONFIG
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in file.path.parent.iterdir()] == ["state.json"]


def test_saving_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new content is on the disk before it takes the old one's name, and the name before save returns."""
    file = StateFile(tmp_path / "state.json")
    file.save(Config())
    steps: list[str] = []

    def fsync(fd: int, real=os.fsync) -> None:  # type: ignore[no-untyped-def]
        steps.append("fsync " + os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))  # noqa: PTH119, PTH115
        assert state.decode(file.path.read_bytes()) == (CONFIG if len(steps) > 2 else Config())
        real(fd)

    def replace(self: Path, target: Path, real=Path.replace) -> None:  # type: ignore[no-untyped-def]
        steps.append("rename")
        real(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    file.save(CONFIG)
    assert steps == ["fsync state.json.new", "rename", f"fsync {tmp_path.name}"]


def test_a_damaged_file_is_told_and_kept(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json")
    file.save(CONFIG)
    damaged = file.path.read_bytes().replace(b'"weight": 3', b'"weight": 4')
    file.path.write_bytes(damaged)
    with pytest.raises(StateError, match=r"state\.json cannot be used: its content does not match its digest") as error:
        file.load()
    assert file.path.read_bytes() == damaged, "it stays where it is"
    (aside,) = tmp_path.glob("state.json.damaged-*")
    assert aside.read_bytes() == damaged, "and a copy is kept"
    assert str(aside) in str(error.value)
    assert "--reset-state" in error.value.hint
    file.reset()
    assert file.load() is None
    assert aside.read_bytes() == damaged


def test_reset_leaves_a_good_file_alone(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json")
    file.save(CONFIG)
    file.reset()
    assert file.load() == CONFIG


def test_every_broken_rule_is_told() -> None:
    broken = state.encode(
        Config(vips=(CONFIG.vips[0], CONFIG.vips[0]), seed=-1),
    )
    with pytest.raises(StateError, match=r"seed -1 .*VIP web exists already.*would have the same address"):
        state.decode(broken)


@pytest.mark.parametrize("content", [b"{}", b"[]", b'{"format": "l4lb-state", "version": 2}', b"\xff\xfe", b""])
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(StateError):
        state.decode(content)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StateFile(tmp_path / "state.json")
    file.save(Config())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match="No space left on device"):
        file.save(CONFIG)
    monkeypatch.undo()
    assert file.load() == Config()
