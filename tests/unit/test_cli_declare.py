"""`l4lb apply`, `diff` and `export` against a controller without a kernel: what they print, and how they end."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from l4lb import daemon, document, document_file, yaml_tree
from l4lb.cli import cli, render
from l4lb.errors import L4lbError, UsageError
from l4lb.model import Config
from l4lb.options import RunOptions
from l4lb.state import StateFile
from tests.unit.fake_edges import Edges, controller_of
from tests.unit.serving import serving

L4LB = Path(sys.executable).with_name("l4lb")
SITE = """\
seed: 7
vips:
- name: web
  address: 192.0.2.10:80/tcp
  mode: dsr
  interval: 500ms
  backends:
  - 10.0.0.11:80
  - address: 10.0.0.12:80
    weight: 2
"""
CONFIG = document.parse(document_file.yaml_tree.read(SITE)[0].plain())  # type: ignore[union-attr]


class Served:
    """A controller that answers, and the command line that asks it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.edges = Edges()
        self.controller = controller_of(self.edges, folder)
        self.file = folder / "site.yaml"
        self.file.write_text(SITE)

    @property
    def saved(self) -> Config | None:
        return StateFile(self.folder / "state.json").load()

    def l4lb(self, *words: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "L4LB_SOCKET": str(self.folder / "control.sock")}
        return subprocess.run(
            [L4LB, *words], capture_output=True, text=True, check=False, env=environment, input=given, timeout=20
        )


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    with serving(tmp_path / "control.sock", made.controller.handle):
        yield made


@pytest.fixture
def applied(served: Served) -> Served:
    """With the file's configuration."""
    done = served.l4lb("apply", str(served.file))
    assert (done.returncode, done.stderr) == (0, "")
    return served


NEW = [
    "~ seed: 0 -> 7 (flows may move to other backends)",
    "+ vip web 192.0.2.10:80/tcp (mode dsr, interval 500ms)",
    "+ backend 10.0.0.11:80 of VIP web",
    "+ backend 10.0.0.12:80 of VIP web (weight 2)",
]


def test_diff_apply_export(served: Served) -> None:
    path = str(served.file)
    done = served.l4lb("diff", path)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (1, NEW, "")
    assert served.edges.steps == [], "diff changes nothing"
    done = served.l4lb("apply", path)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, NEW, "")
    assert served.edges.steps == ["watch", "compile", "announce", "save", "apply"], (
        "one change, saved before it is made"
    )
    assert served.saved == CONFIG
    for command in ("diff", "apply"):
        done = served.l4lb(command, path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = served.l4lb("export")
    assert (done.returncode, done.stdout, done.stderr) == (0, SITE, "")
    assert served.l4lb("apply", "-", given=done.stdout).stdout == ""
    assert len(served.edges.steps) == 5, "what changes nothing touches nothing"


def test_json(served: Served) -> None:
    differences = json.loads(served.l4lb("diff", str(served.file), "--json").stdout)
    assert differences[0] == {
        "change": "change", "vip": None, "backend": None, "setting": "seed", "before": 0, "after": 7,
    }  # fmt: skip
    done = served.l4lb("apply", str(served.file), "--json")
    assert json.loads(done.stdout) == differences
    exported = served.l4lb("export", "--json").stdout
    assert document.parse(json.loads(exported)) == CONFIG
    assert served.l4lb("diff", "-", given=exported).returncode == 0, "JSON is YAML"
    assert json.loads(served.l4lb("diff", str(served.file), "--json").stdout) == []


def test_what_is_not_in_the_file_goes(applied: Served) -> None:
    for line in ("vip add old 192.0.2.11:80/tcp --mode dsr", "backend drain web 10.0.0.11:80", "vip set web --rise 9"):
        assert applied.l4lb(*line.split()).returncode == 0
    assert applied.l4lb("apply", str(applied.file)).stdout.splitlines() == [
        "- vip old 192.0.2.11:80/tcp",
        "~ vip web: rise 9 -> 2",
        "~ backend 10.0.0.11:80 of VIP web: admin drain -> none",
    ]
    assert applied.saved == CONFIG


def test_the_seed_stays_where_the_file_has_none(applied: Served) -> None:
    assert applied.l4lb("apply", "-", given="vips: []").stdout == "- vip web 192.0.2.10:80/tcp (its 2 backends)\n"
    assert applied.l4lb("export").stdout == "seed: 7\nvips: []\n"


BAD = [
    ("", ["standard input:1: there is nothing in it: write vips: [] for no VIPs"]),
    (SITE.replace("dsr", "fly"), ["standard input:5: vips[0].mode 'fly' is not known: use nat or fullnat or dsr"]),
    (SITE + "  colour: red\nvip: []\n", ["standard input:11: vips[0].colour is not", "standard input:12: vip is not"]),
    (SITE + "\t- x\n", ["standard input:11: no YAML at column 1"]),
    (SITE.replace("weight: 2", "weight: 70000"), ["standard input:9: vips[0].backends[1]: weight 70000 is not"]),
    ("a: &a [1]\nb: [" + 100 * "[*a," + "]", ["standard input:2: it is more than 16 levels deep"]),
]  # fmt: skip


@pytest.mark.parametrize("command", ["apply", "diff"])
@pytest.mark.parametrize(("text", "says"), BAD)
def test_a_bad_file_changes_nothing(applied: Served, command: str, text: str, says: list[str]) -> None:
    """A line of its own for each thing that is wrong, and the status of a usage error."""
    steps = list(applied.edges.steps)
    done = applied.l4lb(command, "-", given=text)
    assert (done.returncode, done.stdout) == (2, "")
    told = done.stderr.splitlines()
    assert len(told) == len(says)
    assert all(line.startswith(f"l4lb: {start}") for line, start in zip(told, says, strict=True)), told
    assert (applied.saved, applied.edges.steps) == (CONFIG, steps)


def test_the_daemon_trusts_nothing(applied: Served) -> None:
    """It finds what is wrong by itself, and says where."""
    for operation in ("config.apply", "config.diff"):
        for arguments, says in (
            ({}, "there is nothing in it"),
            ({"document": {"vips": [{"name": "w", "address": "192.0.2.1:80/tcp", "mode": 5}]}}, r"vips\[0\]\.mode 5"),
            ({"document": {"vips": []}, "force": True}, "takes no argument 'force'"),
        ):  # fmt: skip
            with pytest.raises(UsageError, match=says):
                asyncio.run(applied.controller.handle(operation, arguments))  # type: ignore[arg-type]
    assert applied.saved == CONFIG


@pytest.mark.parametrize("broken", ["watch", "compile", "announce", "save", "apply"])
def test_an_application_that_fails_half_way_is_taken_back(applied: Served, broken: str) -> None:
    image = applied.edges.image
    applied.edges.broken = broken
    done = applied.l4lb("apply", "-", given="{seed: 9, vips: []}")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"l4lb: {broken} is broken\n")
    assert (applied.saved, applied.edges.image, applied.edges.seed) == (CONFIG, image, 7)
    assert applied.l4lb("diff", str(applied.file)).returncode == 0


def test_statuses_of_diff_are_not_mistaken(applied: Served) -> None:
    """1 is for differences alone: what else ends with it is 2 here."""
    done = applied.l4lb("diff", str(applied.folder / "none"))
    assert (done.returncode, "cannot read" in done.stderr) == (2, True)
    done = applied.l4lb("diff", "--socket", "/nowhere/control.sock", str(applied.file))
    assert (done.returncode, "no daemon answers" in done.stderr) == (3, True)

    async def refuse(*_: object) -> object:
        raise L4lbError("busy", "try again")

    with serving(applied.folder / "other.sock", refuse):
        for command, status in (("diff", 2), ("apply", 1)):
            done = applied.l4lb(command, "--socket", str(applied.folder / "other.sock"), str(applied.file))
            assert (done.returncode, done.stderr) == (status, "l4lb: busy: try again\n")


def test_a_large_file(served: Served) -> None:
    """10,000 backends in a second or two, and one that would be too large to send."""
    backends = [f"10.{number >> 8}.{number & 255}.1:80" for number in range(10_000)]
    vips = [
        {"name": f"v{number}", "address": f"192.0.2.1:{number + 1}/tcp", "backends": backends[number::20]}
        for number in range(20)
    ]  # fmt: skip
    served.file.write_text(document_file.write({"vips": vips}))
    done = served.l4lb("diff", str(served.file))
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 10_020)
    with served.file.open("a") as file:
        file.write("#" * yaml_tree.MAX_SIZE)
    done = served.l4lb("diff", str(served.file))
    assert (done.returncode, done.stderr) == (2, f"l4lb: {served.file} is of more than 4 MiB: say less\n")


def test_colours_by_what_happens() -> None:
    lines: list[str] = []
    with (
        patch.object(render.sys.stdout, "isatty", return_value=True),
        patch.dict(os.environ, {"TERM": "xterm"}),
        patch.object(render.click, "echo", lines.append),
    ):
        os.environ.pop("NO_COLOR", None)
        render.differences(["+ a", "- b", "~ c"])
    assert lines == ["\x1b[32m+ a\x1b[0m", "\x1b[31m- b\x1b[0m", "\x1b[33m~ c\x1b[0m"]


def test_others_do_not_load_yaml() -> None:
    code = "import sys, l4lb.cli.status, l4lb.cli.vip, l4lb.cli.declare, l4lb.daemon; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "yaml" not in done.stdout.split()


def options(folder: Path, *words: str) -> RunOptions:
    """What `l4lb run` tells the daemon."""
    told: list[RunOptions] = []
    line = ["run", "--interface", "lo", "--state", str(folder / "state.json"), *words]
    with patch.dict(sys.modules, {"l4lb.daemon": SimpleNamespace(run=told.append)}):
        CliRunner().invoke(cli, line, catch_exceptions=False, standalone_mode=False)
    return told[0]


def configured(folder: Path, *words: str) -> tuple[Config, Config]:
    """What a daemon would start with, and what was saved."""
    return daemon.configuration(StateFile(folder / "state.json"), options(folder, *words))


def test_run_with_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    file = tmp_path / "site.yaml"
    file.write_text(SITE)
    assert configured(tmp_path, "--config", str(file)) == (CONFIG, Config())
    assert [record.getMessage() for record in caplog.records] == [f"not as it was saved: {line}" for line in NEW]
    caplog.clear()
    StateFile(tmp_path / "state.json").save(CONFIG)
    assert configured(tmp_path, "--config", str(file)) == (CONFIG, CONFIG)
    assert caplog.records == []
    file.write_text("vips: []")
    assert configured(tmp_path, "--config", str(file))[0] == Config(seed=7), "a seed that the file leaves out stays"
    assert configured(tmp_path) == (CONFIG, CONFIG)
    assert StateFile(tmp_path / "state.json").load() == CONFIG, "it is saved by the controller, when it is planned"


def test_run_with_a_file_and_a_seed(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("vips: []")
    assert configured(tmp_path, "--config", str(file), "--seed", "9")[0].seed == 9
    file.write_text(SITE)
    assert configured(tmp_path, "--config", str(file), "--seed", "7")[0].seed == 7
    with pytest.raises(UsageError, match=r"the seed is 9 by --seed, and 7 in .*site\.yaml: leave one"):
        configured(tmp_path, "--config", str(file), "--seed", "9")


def test_run_with_a_bad_file_touches_nothing(tmp_path: Path) -> None:
    """Not even a damaged state that it was told to put aside."""
    (tmp_path / "site.yaml").write_text("vips: 5")
    (tmp_path / "state.json").write_text("damaged")
    with pytest.raises(UsageError, match=r"site.yaml:1: vips 5 is no list"):
        configured(tmp_path, "--config", str(tmp_path / "site.yaml"), "--reset-state")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site.yaml", "state.json"]


def test_what_a_daemon_starts_with_is_saved_before_it_is_forwarded_by(tmp_path: Path) -> None:
    for unsaved, steps in ((True, ["save", "apply"]), (False, ["apply"])):
        edges = Edges()
        controller = controller_of(edges, tmp_path, CONFIG)

        async def start(unsaved: bool = unsaved) -> None:
            await controller.start(unsaved=unsaved)  # noqa: B023 - it is run at once
            await controller.close()  # noqa: B023

        asyncio.run(start())
        assert edges.steps == steps
    assert StateFile(tmp_path / "state.json").load() == CONFIG
