"""An HTTP request is answered as expected. The protocol is h11's."""

import functools
import re
from dataclasses import dataclass

import h11

from l4lb.health.check import Check
from l4lb.health.values import status_set
from l4lb.probes.stream import Stream
from l4lb.probes.target import Target, Unwell

MAX_HEAD = 16_384  # bytes of the status line and the headers
MAX_BODY = 1 << 20  # bytes that are looked at
_MAX_INTERIM = 8  # answers 1xx before the one that counts
_LOOKS_AHEAD = re.compile(r"\$|\\[ZbB]|\(\?!")  # parts of expressions that more of a text can prove wrong
_USUAL_PORT = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A check, made ready."""

    request: h11.Request
    statuses: frozenset[int]
    text: bytes
    regex: re.Pattern[str] | None


async def probe(check: Check, target: Target) -> None:
    """Makes a request and judges the answer."""
    async with Stream(target) as stream:
        await ask(check, target, stream)


async def ask(check: Check, target: Target, stream: Stream) -> None:
    """Makes a request on a new connection. Reads no more of the answer than decides.

    Raises:
        Unwell: the answer is not as expected.
    """
    wanted = _wanted(check, target.address, target.port)
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    await stream.send((connection.send(wanted.request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    try:
        await _judge(check, wanted, connection, stream)
    except h11.RemoteProtocolError as error:
        if error.error_status_hint == 431:  # h11's, when an event does not end
            raise Unwell(f"HTTP headers of more than {MAX_HEAD:,} bytes") from None
        # Of bytes that begin no line, h11 says so on either side.
        told = str(error).replace("request line", "status line")
        raise Unwell(f"bad HTTP: {told}") from None


async def _judge(check: Check, wanted: _Wanted, connection: h11.Connection, stream: Stream) -> None:
    response = await _response(connection, stream)
    if response.status_code not in wanted.statuses:
        raise Unwell(f"HTTP {response.status_code}, expected {check.get('status').replace('|', ' or ')}")
    if not wanted.text and not wanted.regex:
        return
    body = bytearray()
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            body += event.data[: MAX_BODY - len(body)]
            if len(body) < MAX_BODY:
                continue  # it is looked at when all that came is there, however small the pieces are
        goes_on = event is h11.NEED_DATA
        lacking = _lacking(check, wanted, body, goes_on)
        if lacking is None:
            return
        if not goes_on:
            where = "body" if len(body) < MAX_BODY else f"the first {MAX_BODY:,} bytes of the body"
            raise Unwell(f"{where} without {lacking!r}")
        connection.receive_data(await stream.receive())


async def _response(connection: h11.Connection, stream: Stream) -> h11.Response:
    """The status line and the headers that count."""
    for _ in range(_MAX_INTERIM):
        while (event := connection.next_event()) is h11.NEED_DATA:
            data = await stream.receive()
            if not data:
                raise Unwell("connection closed without an answer")
            connection.receive_data(data)
        if isinstance(event, h11.Response):
            return event
    raise Unwell("no answer but HTTP 1xx")


def _lacking(check: Check, wanted: _Wanted, body: bytearray, goes_on: bool) -> str | None:
    """What is wanted and not in the body, or in what there is of it while it goes on."""
    if wanted.text not in body:
        return check.get("body")
    regex = wanted.regex
    if regex is not None:
        undecided = goes_on and _LOOKS_AHEAD.search(regex.pattern)
        if undecided or not regex.search(body.decode(errors="replace")):
            return regex.pattern
    return None


@functools.lru_cache(maxsize=16_384)
def _wanted(check: Check, address: str, port: int) -> _Wanted:
    method = check.get("method")
    headers = [("Host", check.get("host") or _own_host(check.kind, address, port))]
    given = [tuple(header.split(": ", 1)) for header in check.all("header")]
    names = {header[0].lower() for header in given}
    headers += [
        header for header in (("User-Agent", "l4lb-health"), ("Accept", "*/*")) if header[0].lower() not in names
    ]
    headers += [(header[0], header[1]) for header in given]
    if method in ("POST", "PUT", "PATCH"):
        headers.append(("Content-Length", "0"))
    headers.append(("Connection", "close"))
    regex = check.get("regex")
    return _Wanted(
        request=h11.Request(method=method, target=check.get("path"), headers=headers),
        statuses=status_set(check.get("status")),
        text=check.get("body").encode(),
        regex=re.compile(regex) if regex else None,
    )


def _own_host(kind: str, address: str, port: int) -> str:
    bracketed = f"[{address}]" if ":" in address else address
    return bracketed if port == _USUAL_PORT[kind] else f"{bracketed}:{port}"
