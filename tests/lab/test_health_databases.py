"""Checks of real databases and of a real gRPC server, each made to fail in its own ways.

Whatever comes of a probe, nothing of it stays: no task, thread or open file, and no word in the log.
"""

import asyncio
import gc
import logging
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import hiredis
import pytest

from l4lb.health.check import Check
from l4lb.health.result import Result
from l4lb.probes.run import prepare, run
from l4lb.probes.target import Target
from tests.lab import databases
from tests.lab.databases import PASSWORD, Server
from tests.unit.certificates import NAME

SOON = 0.2  # seconds: a probe's time, where it is bound to run out
GOOD = {
    "grpc": "grpc",
    "postgres": "postgres:user=probe,password-file={folder}/password",
    "mysql": "mysql:user=probe,password-file={folder}/password",
    "redis": "redis:password-file={folder}/password",
}
TLS = ",tls=yes,ca={folder}/ca.pem,sni=" + NAME
KINDS = pytest.mark.parametrize("kind", GOOD)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    """One of each kind, for all tests."""
    with (
        databases.postgres() as postgres,
        databases.mariadb() as mariadb,
        databases.redis() as redis,
        databases.grpc() as grpc,
    ):
        yield {"grpc": grpc, "postgres": postgres, "mysql": mariadb, "redis": redis}


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nobody logs, not even to those who want to know everything; asyncio tells that it begins."""
    with caplog.at_level(logging.DEBUG):
        yield
        assert [record for record in caplog.records if not record.message.startswith("Using selector")] == []


def look(text: str, address: str, port: int, timeout: float = 5.0) -> Result:
    """Makes one probe, and sees to it that nothing of it is left."""

    def here() -> tuple[int, int, int]:
        return len(asyncio.all_tasks()), threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - which leaves none open

    async def main() -> Result:
        check = Check.parse(text)
        prepare(check.kind)
        gc.disable()  # what only a collection finds has been forgotten
        before = here()
        try:
            result = await run(check, Target(address, port, "192.0.2.10", 80, "tcp", "web"), timeout)
            deadline = time.monotonic() + 1  # threads end a little after they have said all
            while here() != before and time.monotonic() < deadline:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.002)
            assert here() == before, "tasks, threads, open files"
        finally:
            gc.enable()
        return result

    result = asyncio.run(main())
    assert result.latency < timeout + 1
    return result


def look_at(server: Server, text: str, timeout: float = 5.0) -> Result:
    """Probes a server: on its port, or on the one that the check names by number, as ``port=2``."""
    text = text.format(folder=server.folder)
    for number in (1, 2):
        text = text.replace(f"port={number}", f"port={server.ports[number]}")
    return look(text, server.address, server.ports[0], timeout)


WELL = (
    GOOD["grpc"],
    "grpc:port=1" + TLS,
    "grpc:port=1,tls=yes,ca={folder}/ca.pem",
    "grpc:port=1,tls=yes,verify=no",
    GOOD["postgres"],
    GOOD["postgres"] + TLS,
    GOOD["postgres"] + ",tls=yes,verify=no",
    GOOD["postgres"] + ",database=template1,query=SELECT current_database(),expect=template1",
    GOOD["postgres"] + ",query=SELECT 1=1,expect=t",
    GOOD["postgres"] + ",query=SELECT '{{1\\,NULL}}'::int[],expect={{1\\,NULL}}",
    GOOD["postgres"] + ",query=SELECT 'Zoë',expect=Zoë",
    GOOD["postgres"] + ",query=SHOW transaction_read_only,expect=on",
    GOOD["postgres"] + ",query=SHOW statement_timeout,expect=1min",
    GOOD["postgres"] + ",query=SET application_name TO x",
    GOOD["mysql"],
    GOOD["mysql"] + TLS,
    GOOD["mysql"] + ",tls=yes,verify=no",
    GOOD["mysql"] + ",database=mysql,query=SELECT database(),expect=mysql",
    GOOD["mysql"] + ",query=SELECT TRUE,expect=1",
    GOOD["mysql"] + ",query=SELECT CAST('2026-11-26' AS date),expect=2026-11-26",
    GOOD["mysql"] + ",query=SELECT 'Zoë',expect=Zoë",
    GOOD["mysql"] + ",query=SELECT x'5a6fc3ab',expect=Zoë",
    GOOD["mysql"] + ",query=SELECT @@max_statement_time,expect=60.000000",
    GOOD["mysql"] + ",query=DO 1",
    GOOD["redis"],
    GOOD["redis"] + ",user=default",
    GOOD["redis"] + ",port=1" + TLS,
    GOOD["redis"] + ",port=1,tls=yes,verify=no",
    GOOD["redis"] + ",command=ROLE,expect=master",
    GOOD["redis"] + ",command=ECHO 'a b',expect=a b",
    GOOD["redis"] + ",command=strlen nothing,expect=0",
    GOOD["redis"] + ",command=CLIENT ID",
)


@pytest.mark.parametrize("text", WELL)
def test_a_server_that_is_well_is_seen_well(servers: dict[str, Server], text: str) -> None:
    result = look_at(servers[text.partition(":")[0]], text)
    assert (result.ok, result.reason) == (True, "ok")


UNTRUSTED = "certificate not trusted: "
UNWELL = (
    ("grpc:service=sick", "health of service sick is NOT_SERVING"),
    ("grpc:service=other", "health of service other is not known there (SERVICE_UNKNOWN)"),
    ("grpc:port=2", "has no health service (UNIMPLEMENTED)"),
    ("grpc:port=1,tls=yes", UNTRUSTED + "unable to get local issuer certificate"),
    ("grpc:port=1,tls=yes,ca={folder}/ca.pem,sni=other.test", UNTRUSTED + "Hostname mismatch, certificate is not"),
    ("grpc:tls=yes,verify=no", "TLS failed: "),
    ("grpc:port=1", "connection closed without an answer"),
    ("postgres:user=probe,password-file={folder}/wrong", 'login refused: password authentication failed for user "pro'),
    ("postgres:user=probe", 'login refused: password authentication failed for user "probe" (28P01)'),
    ("postgres:user=crowded,password-file={folder}/password", "too many connections: too many connections for role"),
    (GOOD["postgres"] + ",database=other", 'no such database: database "other" does not exist (3D000)'),
    (GOOD["postgres"] + ",query=SELECT 2,expect=1", "query gave 2, expected 1"),
    (GOOD["postgres"] + ",query=SELECT pg_is_in_recovery(),expect=t", "query gave f, expected t"),
    (GOOD["postgres"] + ",query=SELECT NULL,expect=1", "query gave NULL, expected 1"),
    (GOOD["postgres"] + ",query=SELECT '',expect=1", "query gave an empty text, expected 1"),
    (GOOD["postgres"] + ",query=SELECT 1 LIMIT 0,expect=1", "query gave no row, expected 1"),
    (GOOD["postgres"] + ",query=CREATE TABLE x()", "read-only: cannot execute CREATE TABLE in a read-only transaction"),
    (GOOD["postgres"] + ",query=SELEKT", 'failed: syntax error at or near "SELEKT" (42601)'),
    (GOOD["postgres"] + ",query=SELECT 1/0", "failed: division by zero (22012)"),
    (GOOD["postgres"] + ",tls=yes", UNTRUSTED + "unable to get local issuer certificate"),
    (GOOD["postgres"] + ",tls=yes,ca={folder}/ca.pem,sni=other.test", UNTRUSTED + "Hostname mismatch"),
    ("mysql:user=probe,password-file={folder}/wrong", "login refused: Access denied for user 'probe'@'127.0.0.1' (usi"),
    ("mysql:user=probe", "login refused: Access denied for user 'probe'@'127.0.0.1' (using password: NO) (1045)"),
    ("mysql:user=crowded,password-file={folder}/password", "too many connections: User 'crowded' has exceeded"),
    (GOOD["mysql"] + ",database=other", "no such database: Unknown database 'other' (1049)"),
    (GOOD["mysql"] + ",query=SELECT 2,expect=1", "query gave 2, expected 1"),
    (GOOD["mysql"] + ",query=SELECT NULL,expect=1", "query gave NULL, expected 1"),
    (GOOD["mysql"] + ",query=SELECT 1 LIMIT 0,expect=1", "query gave no row, expected 1"),
    (GOOD["mysql"] + ",database=mysql,query=DELETE FROM db", "read-only: Cannot execute statement in a READ ONLY"),
    (GOOD["mysql"] + ",query=SELEKT", "failed: You have an error in your SQL syntax"),
    (GOOD["mysql"] + ",query=LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE mysql.db", "failed: "),
    (GOOD["mysql"] + ",tls=yes", UNTRUSTED + "unable to get local issuer certificate"),
    (GOOD["mysql"] + ",tls=yes,ca={folder}/ca.pem,sni=other.test", UNTRUSTED + "Hostname mismatch"),
    ("redis:password-file={folder}/wrong", "login refused: WRONGPASS invalid username-password pair"),
    ("redis:user=other,password-file={folder}/password", "login refused: WRONGPASS"),
    ("redis", "asks for a login: NOAUTH Authentication required."),
    (GOOD["redis"] + ",command=ROLE,expect=slave", "ROLE gave master, expected slave"),
    (GOOD["redis"] + ",command=get nothing,expect=1", "GET gave (nil), expected 1"),
    (GOOD["redis"] + ",command=KEYS nothing,expect=1", "KEYS gave (empty list), expected 1"),
    (GOOD["redis"] + ",command=OTHER", "ERR unknown command 'OTHER'"),
    (GOOD["redis"] + ",port=1,tls=yes", UNTRUSTED + "self-signed certificate in certificate chain"),
    (GOOD["redis"] + ",port=1,tls=yes,ca={folder}/ca.pem,sni=other.test", UNTRUSTED + "Hostname mismatch"),
    ("redis:password-file={folder}/none", "cannot read the password in {folder}/none: No such file or directory"),
)


@pytest.mark.parametrize(("text", "reason"), UNWELL)
def test_a_server_that_is_not_well_is_told_why(servers: dict[str, Server], text: str, reason: str) -> None:
    server = servers[text.partition(":")[0]]
    if "crowded" in text:
        look_at(server, text)  # this many may be, to MariaDB
    result = look_at(server, text)
    assert not result.ok
    assert result.reason.startswith(reason.format(folder=server.folder))


def test_a_large_table_is_not_sent_as_a_whole(servers: dict[str, Server]) -> None:
    text = GOOD["mysql"] + ",database=mysql,query=SELECT seq FROM seq_1_to_20000000,expect=1"
    assert look_at(servers["mysql"], text, timeout=1).reason == "ok"


def test_redis_that_loads_its_data_is_told(servers: dict[str, Server]) -> None:
    server = servers["redis"]
    with socket.create_connection((server.address, server.ports[0]), 10) as sock:

        def send(*words: str) -> None:
            sock.sendall(hiredis.pack_command(words))

        for words in (("AUTH", PASSWORD), ("DEBUG", "POPULATE", "200", "key", "2000")):
            send(*words)
            assert sock.recv(100) == b"+OK\r\n"
        send("CONFIG", "SET", "key-load-delay", "2000")  # microseconds for each
        assert sock.recv(100) == b"+OK\r\n"
        send("DEBUG", "RELOAD")
        deadline = time.monotonic() + 2
        while (reason := look_at(server, GOOD["redis"]).reason) == "ok" and time.monotonic() < deadline:
            pass
        assert reason.startswith("still loads its data: LOADING ")
        assert sock.recv(100) == b"+OK\r\n"
        send("FLUSHALL")
        assert sock.recv(100) == b"+OK\r\n"
    assert look_at(server, GOOD["redis"]).ok


@KINDS
def test_a_frozen_server_has_its_time_and_no_more(servers: dict[str, Server], kind: str) -> None:
    with servers[kind].frozen():
        assert look_at(servers[kind], GOOD[kind], SOON).reason == f"no answer within {SOON * 1000:g} ms"
    assert look_at(servers[kind], GOOD[kind]).ok


@KINDS
def test_a_killed_server_refuses(servers: dict[str, Server], kind: str) -> None:
    with servers[kind].killed():
        assert look_at(servers[kind], GOOD[kind]).reason == "connection refused"
    assert look_at(servers[kind], GOOD[kind]).ok


@pytest.mark.parametrize(
    "text",
    [
        GOOD["postgres"] + ",query=SELECT pg_sleep(1)",
        GOOD["postgres"] + TLS + ",query=SELECT pg_sleep(1)",
        GOOD["mysql"] + ",query=SELECT sleep(1)",
        GOOD["mysql"] + TLS + ",query=SELECT sleep(1)",
        GOOD["redis"] + ",command=BLPOP nothing 1",
        GOOD["redis"] + ",port=1" + TLS + ",command=BLPOP nothing 1",
    ],
)
def test_a_slow_answer_is_not_waited_for(servers: dict[str, Server], text: str) -> None:
    result = look_at(servers[text.partition(":")[0]], text, SOON)
    assert result.reason == f"no answer within {SOON * 1000:g} ms"


@pytest.fixture
def half_open() -> Iterator[tuple[str, int]]:
    """A port whose kernel takes connections, that nobody accepts."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()


@pytest.mark.parametrize("tls", ["", ",tls=yes,verify=no"])
@KINDS
def test_a_half_open_server_has_its_time_and_no_more(half_open: tuple[str, int], kind: str, tls: str) -> None:
    text = {"grpc": "grpc:service=a", "redis": "redis:command=PING"}.get(kind, f"{kind}:user=probe") + tls
    assert look(text, *half_open, SOON).reason == f"no answer within {SOON * 1000:g} ms"


BABBLE = {
    "nothing": b"",
    "ssh": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "http": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "zeros": bytes(300),
    "ones": b"\xff" * 300,
    "noise": random.Random(1).randbytes(5_000),
    "much": b"+" + b"a" * 1_000_000,
    "postgres": b"R\0\0\0\x08\0\0\0\0" + b"N\0\0\0\x06\0\0" * 1_000 + b"Z\0\0\0\x05I" + b"T\0\0\0\x06\xff\xff" * 9,
    "mysql": bytes.fromhex("0a0000000a352e352e3500000000") + bytes(64),
    "redis": b"*1\r\n" * 100,
    "http2": bytes.fromhex("000000040000000000") + bytes.fromhex("000006040000000000000500000001") + b"\0\0\1\1\5" * 9,
}


@pytest.fixture(scope="module")
def babble() -> Iterator[dict[str, int]]:
    """Ports at which something else is said, by what it is."""
    script = str(Path(__file__).with_name("babble.py"))
    pieces = [piece.hex() for piece in BABBLE.values()]
    words = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-S", script, "127.0.0.1"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin
        assert process.stdout
        process.stdin.write("\n".join(pieces))
        process.stdin.close()
        yield dict(zip(BABBLE, map(int, process.stdout.readline().split()), strict=True))
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


@pytest.mark.parametrize("what", BABBLE)
@KINDS
def test_whoever_speaks_something_else_is_not_well(babble: dict[str, int], kind: str, what: str) -> None:
    text = {"grpc": "grpc", "redis": "redis"}.get(kind, f"{kind}:user=probe")
    result = look(text, "127.0.0.1", babble[what], SOON)
    assert not result.ok
    assert "itself failed" not in result.reason
    if what in ("ssh", "http") and kind in ("mysql", "redis"):
        assert "protocol" in result.reason
    if what == "nothing":
        assert result.reason == "connection closed without an answer"
