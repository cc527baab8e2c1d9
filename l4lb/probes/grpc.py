"""gRPC's health service says SERVING: one call of ``grpc.health.v1.Health/Check``.

HTTP/2 is h2's. What gRPC adds to it for one call is little: five bytes before each message, and the outcome in the
trailers. So it takes a third of the processor's time, no threads, and half of the memory of a channel of grpcio's.
"""

import logging
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes

from l4lb.health.check import Check
from l4lb.probes import trust
from l4lb.probes.stream import Stream
from l4lb.probes.target import Target, Unwell

MAX_ANSWER = 4_096  # bytes of the one message, which has two
_STREAM = 1  # the first that a client opens
_SERVICE = b"\x0a"  # field 1, a string
_PREFIX = 5  # bytes before a message: whether it is compressed, and its length

_HEALTH = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}  # of health.proto
_NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip

# As the daemon's own log may be at DEBUG: it writes down each header.
logging.getLogger("hpack").setLevel(logging.WARNING)


async def probe(check: Check, target: Target) -> None:
    """Asks for the service, and judges the answer."""
    service = check.get("service")
    tls = trust.optional(check, "h2")
    async with Stream(target) as stream:
        if tls:
            await stream.start_tls(*tls)
        authority = f"[{target.address}]:{target.port}" if ":" in target.address else f"{target.address}:{target.port}"
        call = _Call("https" if tls else "http", tls[1] or authority if tls else authority, request(service))
        try:
            await call.make(stream)
        except H2Error as error:
            raise Unwell(f"bad HTTP/2: {error}") from None
    judge(service, call.headers, call.body)


class _Call:
    """One call, and what comes of it.

    Attributes:
        headers: of the answer, those of its end included.
    """

    def __init__(self, scheme: str, authority: str, message: bytes) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self._ended = False
        self._connection = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._connection.local_settings[SettingCodes.ENABLE_PUSH] = 0
        self._connection.initiate_connection()
        self._connection.send_headers(
            _STREAM,
            [
                (b":method", b"POST"),
                (b":scheme", scheme.encode()),
                (b":path", b"/grpc.health.v1.Health/Check"),
                (b":authority", authority.encode()),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"user-agent", b"l4lb"),
            ],
        )
        self._connection.send_data(_STREAM, b"\0" + len(message).to_bytes(4) + message, end_stream=True)

    async def make(self, stream: Stream) -> None:
        """Sends it, and waits for the end of the answer."""
        await stream.send(self._connection.data_to_send())
        while not self._ended:
            data = await stream.receive()
            if not data:
                raise Unwell("connection closed without an answer")
            for event in self._connection.receive_data(data):
                self._take(event)
            # Acknowledges settings and pings, without which a server may go no further.
            if answer := self._connection.data_to_send():
                await stream.send(answer)

    def _take(self, event: Event) -> None:
        match event:
            case ResponseReceived() | TrailersReceived():
                self.headers |= {bytes(name): bytes(value) for name, value in event.headers or ()}
            case DataReceived():
                self.body += event.data or b""
                if len(self.body) > _PREFIX + MAX_ANSWER:
                    raise Unwell(f"answer of more than {MAX_ANSWER:,} bytes")
            case StreamEnded():
                self._ended = True
            case StreamReset():
                raise Unwell(f"call refused by HTTP/2 error {_http2_name(event.error_code)}")
            case ConnectionTerminated():
                code = _http2_name(event.error_code)
                raise Unwell("server is going away" if code == "NO_ERROR" else f"closed by HTTP/2 error {code}")


def _http2_name(code: ErrorCodes | int | None) -> str:
    return code.name if isinstance(code, ErrorCodes) else str(code)


def request(service: str) -> bytes:
    """``HealthCheckRequest``: the service's name is its field 1."""
    if not service:
        return b""
    name = service.encode()
    return _SERVICE + _varint(len(name)) + name


def judge(service: str, headers: dict[bytes, bytes], body: bytes) -> None:
    """Judges an answer by its headers and its message.

    Raises:
        Unwell: it is none, or not SERVING.
    """
    if headers.get(b":status") != b"200":
        raise Unwell(f"HTTP {headers.get(b':status', b'').decode(errors='replace')} instead of an answer of gRPC's")
    if not headers.get(b"content-type", b"").startswith(b"application/grpc"):
        raise Unwell("answers by HTTP/2, but not by gRPC")
    outcome = headers.get(b"grpc-status", b"").decode(errors="replace")
    what = f"service {service}" if service else "the server as a whole"
    if outcome == "12":
        raise Unwell("has no health service (UNIMPLEMENTED)")
    if outcome == "5":
        raise Unwell(f"health of {what} is not known there (SERVICE_UNKNOWN)")
    if outcome != "0":
        name = _NAMES[int(outcome)] if outcome.isdecimal() and int(outcome) < len(_NAMES) else outcome or "missing"
        said = unquote(headers.get(b"grpc-message", b"").decode(errors="replace"))
        raise Unwell(f"call failed: gRPC status {name}{': ' if said else ''}{said}")
    if len(body) < _PREFIX or body[0] or int.from_bytes(body[1:_PREFIX]) != len(body) - _PREFIX:
        raise Unwell("answer is not one message of gRPC's")
    try:
        health = _health(body[_PREFIX:])
    except (IndexError, ValueError):
        raise Unwell("answer is no HealthCheckResponse") from None
    if health != 1:
        raise Unwell(f"health of {what} is {_HEALTH.get(health, health)}")


def _health(message: bytes) -> int:
    """``HealthCheckResponse``'s status: its field 1, 0 where that is left out. Fields of the future are passed over.

    Raises:
        IndexError, ValueError: it is none.
    """
    status = place = 0
    while place < len(message):
        tag, place = _read_varint(message, place)
        match tag & 7:
            case 0:  # a number
                value, place = _read_varint(message, place)
                if tag >> 3 == 1:
                    status = value
            case 1:  # eight bytes
                place += 8
            case 2:  # bytes with their length before them
                length, place = _read_varint(message, place)
                place += length
            case 5:  # four bytes
                place += 4
            case _:
                raise ValueError(tag)
    if place > len(message):
        raise IndexError(place)
    return status


def _varint(number: int) -> bytes:
    """A number in protobuf's way: seven bits a byte, the lowest first, the top bit set where more follow."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    """A number, and the place behind it."""
    number = shift = 0
    while True:
        byte = message[place]
        place += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, place
        if shift > 63:
            raise ValueError("too long a number")
