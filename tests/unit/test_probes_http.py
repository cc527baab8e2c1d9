"""HTTP checks of good servers and of all sorts of bad ones."""

import asyncio

import pytest

from tests.unit.probing import SOON, Handler, closing, endless, probe, probe_port, refusing, saying, silent

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhealth"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OPEN = b"HTTP/1.1 200 OK\r\n\r\n"  # the body ends with the connection
TINY = b"1\r\na\r\n"
PIECE = b"400\r\n" + b"a" * 1_024 + b"\r\n"


def status(number: int) -> bytes:
    return b"HTTP/1.1 %d Whatever\r\nContent-Length: 0\r\n\r\n" % number


WELL = {
    "any good status": ("http", saying(OK)),
    "the lowest and the highest": ("http:status=250-399", saying(status(250))),
    "a status of a set": ("http:status=200|404", saying(status(404))),
    "HTTP/1.0": ("http", saying(b"HTTP/1.0 200 OK\r\n\r\nx")),
    "no reason phrase": ("http", saying(b"HTTP/1.1 200\r\n\r\n")),
    "interim answers first": ("http", saying(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 3 + OK)),
    "decided without the body": ("http", saying(OPEN, hold=True)),
    "decided without the body's promised rest": ("http", saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")),
    "text in the body": ("http:body=ealt", saying(OK, hold=True)),
    "text of the whole body": ("http:body=health", saying(OK)),
    "text that comes in pieces": ("http:body=health", saying(OPEN + b"hea", b"lth", hold=True)),
    "text across chunks": ("http:body=health", saying(CHUNKED + b"3\r\nhea\r\n", b"3\r\nlth\r\n", hold=True)),
    "text in UTF-8": ("http:body=gut für", saying(OPEN + "alles gut für heute".encode())),
    "expression in the body": (r"http:regex=^h\w{5}$", saying(OK)),
    "expression across lines": (r"http:regex=(?s)a.b", saying(OPEN + b"a\nb")),
    "expression and text": ("http:body=h,regex=^h", saying(OK)),
    "a body that ends with the connection": (r"http:regex=end\Z", saying(OPEN + b"the ", b"end")),
    "an endless body with the text at its start": ("http:body=start", endless(OPEN + b"start", b"a" * 65_536)),
    "an expression that has to wait for the end": ("http:regex=^health$", saying(OPEN + b"health", b"\n")),
    "an endless body whose beginning is all that counts": ("http:regex=a$", endless(OPEN, b"a" * 65_536)),
    "an endless body of chunks": ("http:regex=b", endless(CHUNKED + b"1\r\nb\r\n", PIECE)),
    "an endless body, as only the status counts": ("http", endless(OPEN, b"a" * 65_536)),
    "HEAD": ("http:method=HEAD", saying(b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n", hold=True)),
    "204, which has no body": ("http", saying(b"HTTP/1.1 204 No Content\r\n\r\n")),
}  # fmt: skip

ILL: dict[str, tuple[str, Handler, str]] = {
    "wrong status": ("http", saying(status(503)), "HTTP 503, expected 200-399"),
    "a status above": ("http", saying(status(400)), "HTTP 400, expected 200-399"),
    "a status below": ("http:status=201-299", saying(OK), "HTTP 200, expected 201-299"),
    "not one of a set": ("http:status=204|301-302", saying(OK), "HTTP 200, expected 204 or 301-302"),
    "wrong status, though the text is there": ("http:body=x", saying(b"HTTP/1.1 500 No\r\n\r\nx"), "HTTP 500,"),
    "no such text": ("http:body=sound", saying(OK), "body without 'sound'"),
    "no such expression": ("http:regex=^sound", saying(OK), "body without '^sound'"),
    "text but no expression": ("http:body=h,regex=z", saying(OK), "body without 'z'"),
    "pieces that are very small": ("http:regex=b", saying(CHUNKED + 30_000 * TINY + b"0\r\n\r\n"), "body without 'b'"),
    "expression but no text": ("http:body=z,regex=h", saying(OK), "body without 'z'"),
    "no body": ("http:body=h", saying(status(200)), "body without 'h'"),
    "204, which has no body": ("http:body=h", saying(b"HTTP/1.1 204 No Content\r\n\r\nh"), "body without 'h'"),
    "an expression that more proves wrong": ("http:regex=^heal$", saying(OPEN + b"heal", b"th"), "body without"),
    "a word that more proves wrong": (r"http:regex=heal\b", saying(OPEN + b"heal", b"th"), r"body without 'heal\\b'"),
    "text behind the first MiB": ("http:body=b", saying(OPEN + (1 << 20) * b"a" + b"b"), "the first 1,048,576 bytes"),
    "text behind the body": ("http:body=more", saying(OK + b"more"), "body without 'more'"),
    "text in the headers": ("http:body=X-Y", saying(b"HTTP/1.1 200 OK\r\nX-Y: z\r\n\r\n"), "body without 'X-Y'"),
    "ends at once": ("http", closing, "connection closed without an answer"),
    "ends in the headers": ("http", saying(b"HTTP/1.1 200 OK\r\nContent-Le"), "connection closed without an answer"),
    "ends in the body": (
        "http:body=more", saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhealth"), "bad HTTP: peer closed con",
    ),
    "ends in a chunk": ("http:body=more", saying(CHUNKED + b"9\r\nhea"), "bad HTTP: peer closed connection"),
    "garbage": ("http", saying(b"\x00\x01\x02\r\n\r\n"), "bad HTTP: illegal status line"),
    "garbage without a line": ("http", saying(b"\x00\x01", hold=True), "bad HTTP: illegal status line"),
    "another protocol": ("http", saying(b"220 mail.example.org ESMTP\r\n\r\n"), "bad HTTP: illegal status line"),
    "a terminal's control codes": ("http", saying(b"\x1b[2J\x1b[31m\r\n\r\n"), "bad HTTP: illegal status line"),
    "a status that is none": ("http", saying(b"HTTP/1.1 999 OK\r\n\r\n"), "HTTP 999, expected"),
    "a header that is none": ("http", saying(b"HTTP/1.1 200 OK\r\nno header\r\n\r\n"), "bad HTTP: illegal header line"),
    "two lengths": (
        "http", saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), "bad HTTP: conflicting",
    ),
    "a chunk that is none": ("http:body=a", saying(CHUNKED + b"zz\r\n"), "bad HTTP: illegal chunk header"),
    "an endless status line": ("http", endless(b"HTTP/1.1 200 ", b"a" * 1_024), "HTTP headers of more than 16,384"),
    "endless headers": ("http", endless(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 99), "HTTP headers of more than"),
    "endless interim answers": ("http", endless(b"", b"HTTP/1.1 100 Go on\r\n\r\n"), "no answer but HTTP 1xx"),
    "an endless body": ("http:body=b", endless(OPEN, b"a" * 65_536), "the first 1,048,576 bytes of the body with"),
    "an endless body of chunks": ("http:regex=b", endless(CHUNKED, PIECE), "the first 1,048,576 bytes of the"),
}  # fmt: skip

SLOW = {
    "silent": ("http", silent),
    "half of the headers": ("http", saying(b"HTTP/1.1 200 OK\r\nX-A", hold=True)),
    "half of the body": ("http:body=more", saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhealth", hold=True)),
    "half of an endless body": ("http:body=more", saying(OPEN + b"health", hold=True)),
}


@pytest.mark.parametrize(("text", "handle"), WELL.values(), ids=WELL)
def test_well(text: str, handle: Handler) -> None:
    result = probe(text, handle)
    assert (result.ok, result.reason) == (True, "ok")


@pytest.mark.parametrize(("text", "handle", "reason"), ILL.values(), ids=ILL)
def test_ill(text: str, handle: Handler, reason: str) -> None:
    result = probe(text, handle)
    assert not result.ok
    assert result.reason.startswith(reason)
    assert result.reason.isprintable()


@pytest.mark.parametrize(("text", "handle"), SLOW.values(), ids=SLOW)
def test_slow(text: str, handle: Handler) -> None:
    result = probe(text, handle, SOON)
    assert (result.ok, result.reason) == (False, "no answer within 150 ms")


def test_dripping_does_not_gain_time() -> None:
    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in OK * 9:
            writer.write(bytes([byte]))
            await asyncio.sleep(SOON / 15)

    result = probe("http", drip, SOON)
    assert (result.ok, result.reason) == (False, "no answer within 150 ms")


def test_refused() -> None:
    with refusing() as port:
        assert probe_port("http", port).reason == "connection refused"


def test_reset() -> None:
    async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()  # with the request unread

    assert probe("http", reset).reason in ("connection reset", "connection closed without an answer")


def asked(text: str, address: str = "127.0.0.1") -> tuple[str, list[str]]:
    """The request's first line, and its headers in order of their names, without those that are always there."""
    requests = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        port = writer.get_extra_info("sockname")[1]
        requests.append(str(port))
        writer.write(OK)

    assert probe(text, handle, address=address).ok
    line, *headers = requests[0].replace(requests[1], "PORT").removesuffix("\r\n\r\n").split("\r\n")
    for constant in ("Connection: close", "Accept: */*"):
        headers.remove(constant)
    return line, sorted(headers)


@pytest.mark.parametrize(
    ("text", "line", "headers"),
    [
        ("http", "GET / HTTP/1.1", ["Host: 127.0.0.1:PORT", "User-Agent: l4lb-health"]),
        (
            r"http:path=/a?b=c\,d,method=OPTIONS,host=www.example.org",
            "OPTIONS /a?b=c,d HTTP/1.1",
            ["Host: www.example.org", "User-Agent: l4lb-health"],
        ),
        (
            "http:header=X-A: b,header=X-A: c: d,header=X-B:,header=user-agent: me",
            "GET / HTTP/1.1",
            ["Host: 127.0.0.1:PORT", "X-A: b", "X-A: c: d", "X-B: ", "user-agent: me"],
        ),
        (
            "http:method=POST",
            "POST / HTTP/1.1",
            ["Content-Length: 0", "Host: 127.0.0.1:PORT", "User-Agent: l4lb-health"],
        ),
    ],
)
def test_requests(text: str, line: str, headers: list[str]) -> None:
    assert asked(text) == (line, headers)


def test_an_ipv6_address_as_host_is_in_brackets() -> None:
    assert "Host: [::1]:PORT" in asked("http", "::1")[1]
