"""Checks of databases that do what real ones seldom do. The lab has real ones."""

import asyncio
from pathlib import Path

import pytest

from l4lb.health.check import Check
from l4lb.probes.login import password
from l4lb.probes.target import Unwell
from tests.unit.probing import SOON, Handler, endless, probe, saying

POSTGRES = "postgres:user=probe"
MYSQL = "mysql:user=probe"

# A greeting of MariaDB's (protocol 10), that offers mysql_native_password and no TLS.
GREETING = (
    b"\x0a5.5.5-10.11.19-MariaDB\0\x03\0\0\0salt salt\xfe\xf7\x2d\x02\0\xff\x81\x15\0\0\0\0\0\0\x1d\0\0\0"
    b"salt salt sa\0mysql_native_password\0"
)


def postgres_error(state: str, message: str) -> bytes:
    fields = f"SFATAL\0VFATAL\0C{state}\0M{message}\0\0".encode()
    return b"E" + (len(fields) + 4).to_bytes(4) + fields


def mysql_packet(number: int, content: bytes) -> bytes:
    return len(content).to_bytes(3, "little") + bytes([number]) + content


def mysql_error(code: int, message: str) -> bytes:
    return mysql_packet(0, b"\xff" + code.to_bytes(2, "little") + b"#08004" + message.encode())


def first(piece: bytes, heard: bytearray | None = None) -> Handler:
    """Speaks first, and then hears what the other side says to its end."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(piece)
        while data := await reader.read(4_096):
            if heard is not None:
                heard.extend(data)

    return handle


@pytest.mark.parametrize(
    ("state", "message", "reason"),
    [
        ("57P03", "the database system is starting up", "takes no logins now: the database system is starting up"),
        ("57P03", "das Datenbanksystem fährt herunter", "takes no logins now: das Datenbanksystem fährt herunter"),
        ("57P01", "terminating connection due to administrator command", "shutting down: terminating connection"),
        ("53300", "sorry, too many clients already", "too many connections: sorry, too many clients already (53300)"),
        ("28000", 'role "probe" does not exist', 'login refused: role "probe" does not exist (28000)'),
        ("XX000", "could not open relation", "failed: could not open relation (XX000)"),
    ],
)
def test_what_postgres_says_instead_of_a_login(state: str, message: str, reason: str) -> None:
    assert probe(POSTGRES, saying(postgres_error(state, message))).reason.startswith(reason)


def test_a_postgres_without_tls_hears_nothing_of_the_login() -> None:
    heard = bytearray()
    assert probe(POSTGRES + ",tls=yes", first(b"N", heard)).reason == "speaks no TLS"
    assert heard == b"\0\0\0\x08\x04\xd2\x16\x2f"  # the question for TLS


def test_a_postgres_that_lets_us_calculate_for_ever_is_left() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4_096)
        writer.write(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0")
        nonce = (await reader.read(4_096)).rpartition(b"r=")[2]
        server_first = b"r=" + nonce + b"more,s=c2FsdHNhbHRzYWx0c2FsdA==,i=2000000000"
        writer.write(b"R" + (len(server_first) + 8).to_bytes(4) + b"\0\0\0\x0b" + server_first)
        await reader.read()

    result = probe(POSTGRES, handle, timeout=2)
    assert result.reason == "failed: login takes 2,000,000,000 rounds of hashing"


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        (1040, "Too many connections", "too many connections: Too many connections (1040)"),
        (1129, "Host '10.0.0.1' is blocked", "login refused: Host '10.0.0.1' is blocked (1129)"),
        (1130, "Host is not allowed", "login refused: Host is not allowed (1130)"),
        (1053, "Server shutdown in progress", "shutting down: Server shutdown in progress (1053)"),
        (9999, "Something new", "failed: Something new (9999)"),
    ],
)
def test_what_mysql_says_instead_of_a_greeting(code: int, message: str, reason: str) -> None:
    assert probe(MYSQL, first(mysql_error(code, message))).reason == reason


def test_a_mysql_without_tls_hears_nothing_of_the_login() -> None:
    heard = bytearray()
    result = probe(MYSQL + ",tls=yes", first(mysql_packet(0, GREETING), heard))
    assert result.reason.startswith("failed: SSL is required but the server doesn't support it")
    assert heard == b""
    probe(MYSQL, first(mysql_packet(0, GREETING), heard), SOON)
    assert b"probe" in heard  # else that was no greeting


def test_a_mysql_that_asks_for_our_files_gets_none() -> None:
    heard = bytearray()
    ok = b"\0\0\0\2\0\0\0"
    pieces = (GREETING, ok, ok, b"\xfb/etc/hostname")  # of a login, of the first statement, and instead of the next
    said = b"".join(mysql_packet(number, piece) for number, piece in zip((0, 2, 1, 1), pieces, strict=True))
    result = probe(MYSQL, first(said, heard))
    assert result.reason.startswith("failed: ")
    assert b"sql_select_limit" in heard  # so far it went
    assert Path("/etc/hostname").read_bytes().strip() not in heard


def test_an_endless_answer_of_redis_is_not_read_to_its_end() -> None:
    assert probe("redis", endless(b"+", b"a" * 4_096)).reason == "answer of more than 65,536 bytes"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"-MASTERDOWN Link with MASTER is down\r\n", "its master is down: MASTERDOWN Link with MASTER is down"),
        (b"-ERR operation not permitted\r\n", "ERR operation not permitted"),
        (b"+pong\r\n", "PING gave pong, expected PONG"),
        (b"*1\r\n*2\r\n-ERR inside\r\n+PONG\r\n", "ERR inside"),
    ],
)
def test_what_redis_says_instead_of_pong(answer: bytes, reason: str) -> None:
    assert probe("redis", saying(answer)).reason == reason


def test_answers_of_redis_come_in_any_pieces() -> None:
    assert probe("redis", saying(b"+", b"PO", b"NG\r", b"\n", hold=True)).ok


@pytest.mark.parametrize("content", [b"secret", b"secret\n", b"secret\r\n", b"secret\nand more\n"])
def test_a_password_is_the_first_line_of_its_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    assert password(Check.parse(f"redis:password-file={file}")) == "secret"


def test_a_password_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"\xff")
    with pytest.raises(Unwell, match=r"the password in .*/password is not in UTF-8"):
        password(Check.parse(f"redis:password-file={file}"))
    with pytest.raises(Unwell, match=r"cannot read the password in .*: Is a directory"):
        password(Check.parse(f"redis:password-file={tmp_path}"))
