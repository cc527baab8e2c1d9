"""Programs as checks: what they are given, what becomes of them, and that none outlives its time."""

import os
import pwd
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from l4lb.health.result import Result
from tests.programs import Program
from tests.unit.probing import probe_port

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run programs as somebody else")

SHORT = 0.3  # seconds: enough for a shell to begin what it is to be stopped in


def run(path: Path, timeout: float = 10.0, options: str = "") -> Result:
    return probe_port(f"exec:command={path}{options}", 8080, timeout)


def test_well(program: Program) -> None:
    result = run(program("echo all is well; exit 0"))
    assert (result.ok, result.reason) == (True, "ok")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("exit 3", "exit status 3"),
        ("echo; echo '  disk is full '; echo more; exit 1", "exit status 1: disk is full"),
        ("echo no >&2; exit 2", "exit status 2: no"),
        ("printf 'a\\033[2J\\377b'; exit 1", "exit status 1: a [2J\ufffdb"),
        ("kill -9 $$", "ended by signal Killed"),
        ("echo going; kill $$", "ended by signal Terminated: going"),
        ("kill -40 $$", "ended by signal Real-time signal 6"),
        ("yes", "the program wrote more than 4,096 bytes"),
        ("head -c 4097 /dev/zero", "the program wrote more than 4,096 bytes"),
    ],
)
def test_ill(program: Program, body: str, reason: str) -> None:
    result = run(program(body))
    assert (result.ok, result.reason) == (False, reason)


def test_4096_bytes_are_not_too_many(program: Program) -> None:
    assert run(program("head -c 4096 /dev/zero")).ok


def test_output_may_be_closed_early_and_the_end_is_awaited_in_peace(program: Program) -> None:
    used = time.process_time()
    assert run(program("exec >&- 2>&-; sleep 0.2; exit 4")).reason == "exit status 4"
    assert time.process_time() - used < 0.1


def test_it_knows_what_is_meant_for_it_and_nothing_else(
    program: Program, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "1")
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    standard_input = os.dup(0)
    os.dup2(read_end, 0)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))  # as workers do
    try:
        body = f"""
            cat /proc/self/environ >{folder}/environ
            id -u >{folder}/id; id -G >>{folder}/id
            (cd /proc/self/fd; echo *) >{folder}/files
            cut -d' ' -f5,6 /proc/$$/stat >{folder}/session; echo $$ $$ >>{folder}/session
            readlink /proc/$$/cwd /proc/$$/fd/0 >{folder}/places
            ulimit -Sn >{folder}/open-files
            echo $# >{folder}/arguments"""
        assert run(program(body)).ok
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        os.dup2(standard_input, 0)
        os.close(standard_input)
        os.close(read_end)
        os.close(write_end)
    environment = dict(entry.split("=", 1) for entry in (folder / "environ").read_text().rstrip("\0").split("\0"))
    environment.pop("PWD", None)  # the shell's own
    environment.pop("OLDPWD", None)
    assert environment == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "L4LB_ADDRESS": "127.0.0.1",
        "L4LB_PORT": "8080",
        "L4LB_VIP": "web",
        "L4LB_VIP_ADDRESS": "192.0.2.10",
        "L4LB_VIP_PORT": "80",
        "L4LB_PROTOCOL": "tcp",
    }
    nobody = pwd.getpwnam("nobody")
    assert (folder / "id").read_text().split() == [str(nobody.pw_uid), str(nobody.pw_gid)]
    assert set((folder / "files").read_text().split()) <= {"0", "1", "2", "3"}  # 3: the shell's own, of /proc
    session = (folder / "session").read_text().splitlines()
    assert session[0] == session[1]
    assert (folder / "places").read_text().split() == ["/", "/dev/null"]
    assert (folder / "arguments").read_text().strip() == "0"
    assert (folder / "open-files").read_text().strip() == "1024"


def alive(number: str) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(number: str) -> bool:
    """Whether a process ends, that was killed a moment ago."""
    for _ in range(100):
        if not alive(number):
            return True
        time.sleep(0.01)
    return False


def test_when_its_time_is_over_it_and_its_children_are_killed(program: Program, folder: Path) -> None:
    begun = time.monotonic()
    result = run(program(f"trap '' TERM INT HUP; sleep 60 & echo $$ $! >{folder}/numbers; wait; sleep 60"), SHORT)
    assert (result.ok, result.reason) == (False, "no answer within 300 ms")
    assert time.monotonic() - begun < SHORT + 1
    numbers = (folder / "numbers").read_text().split()
    assert len(numbers) == 2
    assert all(gone(number) for number in numbers)


def test_children_neither_delay_it_nor_outlive_it(program: Program, folder: Path) -> None:
    """Though they still hold what it wrote to."""
    result = run(program(f"sleep 60 & echo $! >{folder}/number; echo bad; exit 1"))
    assert (result.ok, result.reason) == (False, "exit status 1: bad")
    assert gone((folder / "number").read_text().strip())


def test_who_writes_too_much_is_killed(program: Program, folder: Path) -> None:
    assert not run(program(f"echo $$ >{folder}/number; exec yes")).ok
    assert gone((folder / "number").read_text().strip())


PROBER = """
import sys
from tests.unit.probing import probe_port
print(probe_port(f"exec:command={sys.argv[1]}", 8080, 60).reason)
"""


def test_if_who_runs_it_is_killed_so_is_it(program: Program, folder: Path) -> None:
    number = folder / "number"
    path = program(f"echo $$ >{number}.new; mv {number}.new {number}; exec sleep 60")
    with subprocess.Popen([sys.executable, "-c", PROBER, str(path)], stdout=subprocess.PIPE) as prober:
        for _ in range(500):
            if number.exists():
                break
            time.sleep(0.01)
        os.kill(prober.pid, signal.SIGKILL)
        assert prober.communicate() == (b"", None)
    assert gone(number.read_text().strip())


def test_no_zombies_stay(program: Program) -> None:
    path = program("sleep 60")
    for _ in range(3):
        run(path, 0.02)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_what_cannot_be_run_is_told(program: Program, folder: Path) -> None:
    path = program("exit 0")
    assert run(folder / "none").reason == f"cannot run {folder}/none: No such file or directory"
    assert run(path, options=",user=l4lb-no-such-user").reason == "there is no user l4lb-no-such-user"
    path.chmod(0o644)
    assert run(path).reason == f"cannot run {path}: Permission denied"
    path.chmod(0o755)
    path.write_bytes(b"\x00\x01\x02")
    assert run(path).reason == f"cannot run {path}: Exec format error"
    path.write_text("#!/bin/sh\nexit 0\n")
    os.chown(folder, 0, 0)
    folder.chmod(0o700)
    assert run(path).reason == f"cannot run {path}: Permission denied"  # nobody may not
    assert run(Path("/dev/null")).reason == "cannot run /dev/null: Permission denied"


def test_no_second_name_of_root_is_taken(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pwd.getpwuid(0)
    monkeypatch.setattr(pwd, "getpwnam", lambda _: root)
    assert run(program("exit 0"), options=",user=toor").reason == "user toor is root by another name"
