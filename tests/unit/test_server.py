"""The control socket: whatever one client does, the others are served."""

import asyncio
import contextlib
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from l4lb import wire
from l4lb.client import Client
from l4lb.errors import L4lbError, UnreachableError, UsageError
from l4lb.server import MAX_CLIENTS, ControlServer
from tests.unit.serving import serving

PATIENCE = 0.3


async def answer(operation: str, arguments: Mapping[str, object]) -> object:
    match operation:
        case "echo":
            return dict(arguments)
        case "refuse":
            raise UsageError("this is wrong", "do that")
        case "fail":
            raise ZeroDivisionError
        case "big":
            return "x" * 5_000_000
        case _:
            await asyncio.sleep(0.2)
            return None


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A socket with a server behind it, in a thread of its own."""
    socket_path = tmp_path / "run" / "control.sock"
    with serving(socket_path, answer, PATIENCE):
        yield socket_path
    assert not socket_path.exists()


@contextlib.contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(path))
        yield client


def replies(client: socket.socket) -> list[object]:
    """All messages until the server closes the connection."""
    decoder, found = wire.Decoder(wire.MAX_REPLY), []
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(1 << 16):
            found += list(decoder.feed(data))
    return found


def is_served(path: Path) -> bool:
    return Client(path, timeout=2).call("echo", a=1) == {"a": 1}


def test_answers_and_errors_reach_the_client(path: Path) -> None:
    assert Client(path).call("echo", text="ü", number=2**63) == {"text": "ü", "number": 2**63}
    assert Client(path).call("big") == "x" * 5_000_000
    with pytest.raises(UsageError, match="this is wrong: do that"):
        Client(path).call("refuse")


def test_an_internal_error_is_told_without_its_traceback(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(L4lbError, match="the daemon met an internal error"):
        Client(path).call("fail")
    assert "ZeroDivisionError" in caplog.text, "the log has it"
    assert is_served(path)


def test_the_socket_is_closed_to_others(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


HARMFUL = {
    "garbage": b"GET / HTTP/1.1\r\n\r\n" * 10,
    "huge": struct.pack("!I", 0xFFFFFFFF),
    "no msgpack": struct.pack("!I", 4) + b"\xc1\xc1\xc1\xc1",
    "another version": struct.pack("!I", 4) + b"\x81\xa1v\x63",
    "no request": wire.encode_result(1),
}


@pytest.mark.parametrize("data", HARMFUL.values(), ids=HARMFUL.keys())
def test_what_is_no_request_ends_that_connection_only(path: Path, data: bytes) -> None:
    with connected(path) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        (reply,) = replies(client)
        assert isinstance(reply, dict)
        assert reply["ok"] is False
        assert is_served(path)


def trickle(client: socket.socket, data: bytes, path: Path) -> None:
    for byte in data:
        client.sendall(bytes([byte]))
        assert is_served(path)
        time.sleep(PATIENCE / 10)


def test_a_slow_client_is_dropped_and_holds_up_nobody(path: Path) -> None:
    """A trickle of bytes does not gain it more time."""
    request = wire.encode_request("echo", {"a": "x" * 100})
    with connected(path) as client:
        began = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            trickle(client, request, path)
        assert PATIENCE / 2 < time.monotonic() - began < PATIENCE * 4


def test_a_client_that_takes_no_answer_is_dropped(path: Path) -> None:
    with connected(path) as client:
        client.sendall(wire.encode_request("big", {}))
        time.sleep(PATIENCE * 2)
        assert is_served(path)
        assert replies(client) == [], "cut off"


def test_a_half_closed_client_gets_its_answer(path: Path) -> None:
    with connected(path) as client:
        client.sendall(wire.encode_request("sleep", {}))
        client.shutdown(socket.SHUT_WR)
        assert replies(client) == [{"v": 1, "ok": True, "result": None}]


def test_a_client_that_leaves_in_the_middle_is_forgotten(path: Path) -> None:
    for _ in range(3):
        with connected(path) as client:
            client.sendall(wire.encode_request("sleep", {})[:-3])
        with connected(path) as client:
            client.sendall(wire.encode_request("big", {}))
    assert is_served(path)


def test_idle_clients_make_room(path: Path) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connected(path)) for _ in range(MAX_CLIENTS + 10)]
        time.sleep(0.1)
        assert is_served(path)
        assert replies(idle[0]) == [], "the one that was silent for longest"


def test_several_requests_on_one_connection(path: Path) -> None:
    with connected(path) as client:
        client.sendall(wire.encode_request("echo", {"n": 1}) + wire.encode_request("echo", {"n": 2}))
        client.shutdown(socket.SHUT_WR)
        assert [reply["result"]["n"] for reply in replies(client)] == [1, 2]  # type: ignore[index]


async def start(path: Path, group: str | None = None) -> None:
    server = ControlServer(path, answer, group)
    server.listen()
    await server.start()
    await server.close()


def test_a_live_daemons_socket_is_not_taken(path: Path) -> None:
    with pytest.raises(L4lbError, match=r"a daemon answers on .* already"):
        asyncio.run(start(path))
    assert is_served(path)


def test_a_dead_daemons_socket_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    asyncio.run(start(tmp_path / "control.sock"))


def test_other_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("mine")
    with pytest.raises(L4lbError, match="is not a socket"):
        asyncio.run(start(tmp_path / "control.sock"))
    assert (tmp_path / "control.sock").read_text() == "mine"


def test_an_unknown_group_is_told(tmp_path: Path) -> None:
    with pytest.raises(L4lbError, match="there is no group 'nobody-has-this'"):
        asyncio.run(start(tmp_path / "control.sock", "nobody-has-this"))


def test_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"no daemon answers on .*: start it with `l4lb run --interface IF`"):
        Client(tmp_path / "control.sock").call("echo")


def test_no_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "control.sock"))
        deaf.listen()
        with pytest.raises(UnreachableError, match=r"did not answer within 0\.1 seconds"):
            Client(tmp_path / "control.sock", timeout=0.1).call("echo")


@pytest.mark.skipif(os.geteuid() != 0, reason="takes on another user's identity, which needs root")
def test_no_permission(path: Path) -> None:
    os.chmod(path.parent.parent, 0o755)  # noqa: PTH101
    os.seteuid(65_534)
    try:
        with pytest.raises(UnreachableError, match="no permission"):
            Client(path).call("echo")
    finally:
        os.seteuid(0)
