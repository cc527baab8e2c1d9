"""Programs as checks, run with the rights of a worker in the gateway's namespace."""

import pwd
import time
from pathlib import Path

import pytest

from l4lb.lab.faults import frozen, killed
from l4lb.lab.topology import Lab, Server
from tests.lab.prober import Prober, until_well
from tests.lab.websites import Port, start
from tests.programs import Program

SOON = 0.3  # seconds: enough for a shell to begin what it is to be stopped in
NOTHING = "no answer within 300 ms"


@pytest.fixture(scope="module")
def server(bare_lab: Lab, prober: Prober) -> Server:
    (server,) = bare_lab.servers
    start(bare_lab, server)
    until_well(prober, f"http:port={Port.HTTP}")
    return server


def test_a_program_that_checks(bare_lab: Lab, server: Server, prober: Prober, program: Program) -> None:
    """As a user would write it; it reaches what the gateway does."""
    path = program('exec curl -fsS "http://$L4LB_ADDRESS:$L4LB_PORT/"')
    check = f"exec:command={path}"
    assert prober.check(check).ok
    with killed(bare_lab, server):
        result = prober.check(check)
        assert not result.ok
        assert result.reason.startswith("exit status 7: curl: (7) Failed to connect to 10.2.0.11 port 8080")
    until_well(prober, check)
    with frozen(bare_lab, server):
        assert prober.check(check, SOON).reason == NOTHING
    until_well(prober, check)


ILL = [
    ("echo replica is 90 s behind; exit 1", "exit status 1: replica is 90 s behind"),
    ("echo no such table >&2; exit 3", "exit status 3: no such table"),
    ("kill -SEGV $$", "ended by signal Segmentation fault"),
    ("exec yes", "the program wrote more than 4,096 bytes"),
    ("none-such-program", "exit status 127: "),
]


@pytest.mark.parametrize(("body", "reason"), ILL)
def test_ill(prober: Prober, program: Program, body: str, reason: str) -> None:
    result = prober.check(f"exec:command={program(body)}")
    assert not result.ok
    assert result.reason.startswith(reason)


def test_what_cannot_be_run(prober: Prober, program: Program, folder: Path) -> None:
    path = program("exit 0")
    path.chmod(0o644)
    assert prober.check(f"exec:command={path}").reason == f"cannot run {path}: Permission denied"
    assert prober.check(f"exec:command={folder}/none").reason == f"cannot run {folder}/none: No such file or directory"
    assert prober.check("exec:command=/bin/true,user=l4lb-none").reason == "there is no user l4lb-none"


def alive(number: str) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_who_hangs_is_killed_in_time_with_all_children(prober: Prober, program: Program, folder: Path) -> None:
    path = program(f"trap '' TERM HUP INT; sleep 60 & (sleep 60; :) & echo $$ $! >{folder}/numbers; wait; sleep 60")
    began = time.monotonic()
    assert prober.check(f"exec:command={path}", SOON).reason == NOTHING
    assert time.monotonic() - began < SOON + 1
    numbers = (folder / "numbers").read_text().split()
    deadline = time.monotonic() + 2
    while any(alive(number) for number in numbers) or prober.children():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(numbers) == 2


def test_many_at_once(prober: Prober, program: Program) -> None:
    path = program("sleep 0.2; exit 3")
    began = time.monotonic()
    results = prober.checks([f"exec:command={path}"] * 20)
    assert {result.reason for result in results} == {"exit status 3"}
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("user", ["nobody", "daemon"])
def test_it_is_its_user_and_can_be_nobody_else(prober: Prober, program: Program, folder: Path, user: str) -> None:
    folder.chmod(0o777)
    body = f"""
        exec >{folder}/told
        id -u; id -g; id -G
        ulimit -Sn
        grep -E '^(NoNewPrivs|CapEff|CapPrm|CapInh|CapAmb):' /proc/self/status | cut -f2
        readlink /proc/self/ns/net
        env | grep -v ^PWD= | sort"""
    assert prober.check(f"exec:command={program(body)},user={user}").ok
    account = pwd.getpwnam(user)
    uid, gid = str(account.pw_uid), str(account.pw_gid)
    nothing = "0" * 16
    told = (folder / "told").read_text().splitlines()
    assert told[:4] == [uid, gid, gid, "1024"]
    assert told[4:9] == [nothing, nothing, nothing, nothing, "1"]
    assert told[9] == prober.network()
    assert told[10:] == [
        "L4LB_ADDRESS=10.2.0.11",
        "L4LB_PORT=8080",
        "L4LB_PROTOCOL=tcp",
        "L4LB_VIP=web",
        "L4LB_VIP_ADDRESS=10.1.0.100",
        "L4LB_VIP_PORT=80",
        "PATH=/usr/local/bin:/usr/bin:/bin",
    ]
