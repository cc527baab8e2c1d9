"""Probes of TCP, UDP and ICMP, and their runner: whatever happens, there is a result, in time and with a reason."""

import asyncio
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from l4lb.health.check import Check
from l4lb.health.result import Result
from l4lb.probes import run as runner
from l4lb.probes.run import run
from l4lb.probes.target import Target, Unwell
from tests.unit.probing import SOON, probe, probe_datagrams, probe_port, refusing, silent, target

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_tcp_takes_a_connection_for_well(address: str) -> None:
    result = probe("tcp", silent, address=address)
    assert (result.ok, result.reason, result.advice) == (True, "ok", None)
    assert 0 < result.latency < 1


def test_tcp_resets_its_connection_so_that_nobody_has_to_remember_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert probe_port("tcp", server.getsockname()[1]).ok
        with server.accept()[0] as connection, pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_tcp_refused() -> None:
    with refusing() as port:
        result = probe_port("tcp", port)
    assert (result.ok, result.reason) == (False, "connection refused")


def test_tcp_to_a_host_that_drops_everything() -> None:
    """As one does whose queue of connections is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            result = probe_port("tcp", port, SOON)
    assert (result.ok, result.reason) == (False, "no answer within 150 ms")
    assert SOON <= result.latency < SOON + 1


def test_the_port_of_a_check_outranks_the_targets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, refusing() as refused:
        assert probe_port(f"tcp:port={server.getsockname()[1]}", refused).ok
        assert not probe_port(f"tcp:port={refused}", server.getsockname()[1]).ok


def test_a_name_is_never_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked_up(*_: object, **__: object) -> None:
        pytest.fail("looked up")

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    for kind in ("tcp", "udp", "icmp", "http"):
        result = asyncio.run(run(Check.parse(kind), target(80, "localhost"), 1.0))
        assert (result.ok, result.reason) == (False, "'localhost' is no IP address"), kind


Probing = Callable[[Check, Target], object]


def run_with(monkeypatch: pytest.MonkeyPatch, body: Probing, timeout: float = 5.0, kind: str = "tcp") -> Result:
    """The result of a probe that is `body`."""
    monkeypatch.setattr(runner, "_load", lambda _: body)
    return asyncio.run(run(Check.parse(kind), target(1), timeout))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unwell("HTTP 503, expected 200"), "HTTP 503, expected 200"),
        (Unwell("agent says \x1b[2J\r\n\x00" + "x" * 500), "agent says [2J " + "x" * 182 + "..."),
        (ConnectionResetError(errno.ECONNRESET, "x"), "connection reset"),
        (OSError(errno.EHOSTUNREACH, "x"), "no route to it, it does not answer on its link, or a firewall refuses"),
        (TimeoutError(errno.ETIMEDOUT, "x"), "connection timed out"),
        (OSError(errno.EMFILE, "x"), "too many files are open here"),
        (OSError(errno.ENOSPC, "x"), "no space left on device"),
        (OSError("what happened"), "what happened"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_errors_become_reasons(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
    async def fail(_check: Check, _target: Target) -> None:
        raise error

    result = run_with(monkeypatch, fail)
    assert (result.ok, result.reason) == (False, reason)


def test_a_fault_of_a_check_is_a_result_too(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_check: Check, _target: Target) -> None:
        raise ValueError("no such thing")

    result = run_with(monkeypatch, fail)
    assert (result.ok, result.reason) == (False, "the check itself failed (ValueError: no such thing)")
    assert "no such thing" in caplog.text


def test_a_probe_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    async def wait(_check: Check, _target: Target) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    result = run_with(monkeypatch, wait, 0.02)
    assert (result.ok, result.reason) == (False, "no answer within 20 ms")
    assert ended


def test_advice_comes_with_the_result_good_or_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    async def advise(_check: Check, _target: Target) -> str:
        return "75%"

    async def warn(_check: Check, _target: Target) -> None:
        raise Unwell("agent says down", "down")

    assert run_with(monkeypatch, advise).advice == "75%"
    result = run_with(monkeypatch, warn)
    assert (result.ok, result.advice) == (False, "down")


def test_whoever_cancels_it_is_obeyed() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            task = asyncio.create_task(run(Check.parse("http"), target(port), 60.0))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = probe_port("dns:name=a", 1)
    assert (result.ok, result.reason) == (
        False,
        "check dns needs a library that is not installed: pip install 'l4lb[dns]'",
    )


def test_udp_answered_as_expected() -> None:
    asked = []

    def answer(data: bytes) -> list[bytes]:
        asked.append(data)
        return [b"PONG 1\r\n"]

    assert probe_datagrams(r"udp:payload=PING\x00\r\n,expect=hex:504f4e47", answer).ok
    assert probe_datagrams("udp:expect=PONG 1\\r\\n", answer).ok
    assert asked == [b"PING\x00\r\n", b""]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SORRY", "answer begins with b'SORRY', expected b'PONG'"),
        (b"xPONG", "answer begins with b'xPONG', expected b'PONG'"),
        (b"PON", "answer begins with b'PON', expected b'PONG'"),
        (b"\x00" * 9_000, r"answer begins with b'" + r"\x00" * 32 + "', expected b'PONG'"),
    ],
)
def test_udp_answered_otherwise(answer: bytes, reason: str) -> None:
    result = probe_datagrams("udp:expect=PONG", lambda _: [answer])
    assert (result.ok, result.reason) == (False, reason)


def test_udp_without_an_answer() -> None:
    result = probe_datagrams("udp:expect=PONG", lambda _: [], SOON)
    assert (result.ok, result.reason) == (False, "no answer within 150 ms")


def test_udp_that_expects_nothing_takes_silence_for_well() -> None:
    result = probe_datagrams("udp:payload=x", lambda _: [], SOON)
    assert (result.ok, result.reason) == (True, "ok, nothing came back")


def test_udp_that_expects_nothing_takes_any_answer_for_well() -> None:
    result = probe_datagrams("udp", lambda _: [b"what?"])
    assert (result.ok, result.reason) == (True, "ok")


@pytest.mark.parametrize("text", ["udp", "udp:expect=a"])
def test_udp_to_a_port_that_nobody_has(text: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    result = probe_port(text, port)
    assert (result.ok, result.reason) == (False, "port unreachable")


def test_udp_silence_soon_after_a_refusal_is_not_well_until_something_answers() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    assert probe_port("udp", port).reason == "port unreachable"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port))
        result = probe_port("udp", port, SOON)
        assert (result.ok, result.reason) == (False, "no answer, and port unreachable a moment ago")
        sock.settimeout(5)
        with ThreadPoolExecutor() as pool:
            sock.recv(1)  # what was not answered
            probing = pool.submit(probe_port, "udp", port)
            _, client = sock.recvfrom(1)
            sock.sendto(b"here", client)
            assert probing.result().ok
        assert probe_port("udp", port, SOON).reason == "ok, nothing came back"


FORGER = """
import socket, struct, threading
from tests.unit.probing import probe_port

seen = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
wrong = None

def answer():
    while True:
        packet, (address, _) = seen.recvfrom(2048)
        message = bytearray(packet[20:])
        if message[0] == 8:
            message[:4] = bytes(4)
            if wrong is not None:
                message[wrong] ^= 1
            words = sum(struct.unpack(f"!{len(message) // 2}H", message))
            while words >> 16:
                words = (words & 0xFFFF) + (words >> 16)
            message[2:4] = struct.pack("!H", words ^ 0xFFFF)
            seen.sendto(message, (address, 0))

threading.Thread(target=answer, daemon=True).start()
for wrong in (None, 1, 4, 7, 8, -1):  # none, or a byte of: code, identifier, sequence number, payload
    print(wrong, probe_port("icmp", 0, 0.1).reason)
"""


def in_namespace(code: str, *sysctls: str) -> str:
    """What a Python program prints that has a network of its own, with a loopback only."""
    script = 'code=$0; python=$1; shift; ip link set lo up; sysctl -qw "$@"; exec "$python" -c "$code"'
    command = ["unshare", "--net", "sh", "-euc", script, code, sys.executable, *sysctls]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


SOCKETS = {"datagram": "net.ipv4.ping_group_range=0 2147483647", "raw": "net.ipv4.ping_group_range=1 0"}


@as_root
@pytest.mark.parametrize("groups", SOCKETS.values(), ids=SOCKETS)
def test_icmp_believes_only_the_reply_to_its_own_request(groups: str) -> None:
    """In a namespace whose kernel answers no echo requests, so that a forger can."""
    shown = in_namespace(FORGER, groups, "net.ipv4.icmp_echo_ignore_all=1")
    assert shown.splitlines() == ["None ok", *(f"{wrong} no answer within 100 ms" for wrong in (1, 4, 7, 8, -1))]


@as_root
@pytest.mark.parametrize("groups", SOCKETS.values(), ids=SOCKETS)
def test_icmp_answered_by_the_kernel(groups: str) -> None:
    code = """if True:
        from tests.unit.probing import probe_port
        for address in ("127.0.0.1", "::1"):
            print(address, probe_port("icmp", 0, 5.0, address).reason)
        print(probe_port("icmp", 0, 5.0, "192.0.2.1").reason)
    """
    assert in_namespace(code, groups).splitlines() == ["127.0.0.1 ok", "::1 ok", "no route to it"]
