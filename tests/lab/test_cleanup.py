"""Nothing stays behind: of the daemon when told so, of a lab however its process ends."""

import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from l4lb.lab.namespace import Namespace
from l4lb.lab.topology import LABS, State, labs, set_up, state_of, take_down
from tests.lab.gateway import VIP, Gateway

DEMO = (sys.executable, "-m", "l4lb.lab.demo")


def test_unload(routed: Gateway) -> None:
    """Program, pins and VIP addresses go, while traffic that is not for a VIP goes on."""
    routed.daemon.start()
    routed.add_vip("web", f"{VIP}:80/tcp")
    routed.daemon.end(signal.SIGTERM)
    assert routed.http(30).answers.total() == 30, "a stopped daemon leaves forwarding as it is"
    routed.unload()
    for interface in routed.lab.interfaces:
        assert "prog/xdp" not in routed.lab.gateway.run("ip", "link", "show", interface).stdout
    assert str(VIP) not in routed.lab.gateway.run("ip", "address").stdout
    assert [path for path in routed.daemon.pins.rglob("*") if path.is_file()] == []
    assert routed.curl(f"http://{routed.lab.servers[0].address}:8080/").stdout == "b1\n"


def test_demo() -> None:
    """The whole demo, as in a pipe: no colours, nothing failed that was not in flight, nothing left."""
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        while "vip add" not in demo.stdout.readline():
            pass
        made = lab_of(demo.pid)
        said, complaints = demo.communicate(timeout=60)
    assert (demo.returncode, complaints) == (0, "")
    assert said.count("2,000 requests in") >= 3
    assert said.count("none failed") >= 3
    assert "down: no answer within 300 ms; suspected: " in said
    assert "\033" not in said
    assert_gone(made)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_demo_ended_by_a_signal(number: signal.Signals) -> None:
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        while "vip add" not in demo.stdout.readline():
            pass
        made = lab_of(demo.pid)
        demo.send_signal(number)
        said = demo.stdout.read()
        assert demo.wait(20) == 130
    assert "Interrupted." in said
    assert_gone(made)


def test_demo_killed() -> None:
    """What a killed process leaves is taken down when the next lab is made."""
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        while "vip add" not in demo.stdout.readline():
            pass
        made = lab_of(demo.pid)
        assert state_of(made) is State.IN_USE
        demo.kill()
    assert state_of(made) is State.LEFT
    next_one = set_up(servers=1)
    try:
        assert_gone(made)
    finally:
        take_down(next_one.folder)


def test_what_begins_while_a_namespace_is_taken_away_ends_too() -> None:
    """Programs that beget others all the time, of which each outlives those that are killed before it."""
    name = f"l4lb-begetting-{secrets.token_hex(3)}"
    namespace = Namespace(name)
    namespace.create()
    script = f"for number in $(seq 400); do sh -c 'sleep 5; : {name}' & sleep 0.01; done"
    begetting = [namespace.start("sh", "-c", script) for _ in range(2)]
    time.sleep(0.3)
    namespace.delete()
    for process in begetting:
        process.wait(5)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert name not in running


def lab_of(process: int) -> Path:
    """The lab that a process made."""
    return next(folder for folder in labs() if f'"process": {process},' in (folder / "lab.json").read_text())


def assert_gone(folder: Path) -> None:
    """Neither files nor namespaces nor mounts nor processes of a lab are there."""
    assert not folder.exists()
    assert list(Path("/run/netns").glob(f"{folder.name}-*")) == []
    assert f"{LABS}/{folder.name}" not in Path("/proc/mounts").read_text()
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert folder.name not in running
