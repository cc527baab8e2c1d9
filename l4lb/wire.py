"""Messages between command line and daemon: 4 bytes of length (big-endian), then a msgpack map of that length.

    {"v": 1, "op": "vip.add", "args": {...}}
    {"v": 1, "ok": true, "result": ...}
    {"v": 1, "ok": false, "error": {"message": ..., "hint": ..., "exit_code": 1}}

Nothing here waits or reads: bytes in, messages out.
"""

import struct
from collections.abc import Iterator, Mapping

import msgpack

from l4lb.errors import L4lbError, UnreachableError, UsageError

VERSION = 1
MAX_REQUEST = 4 << 20  # bytes: a whole configuration, as large as a file of it may be
MAX_REPLY = 64 << 20  # a status of 10,000 VIPs of 100 backends needs some 20 MB

_LENGTH = struct.Struct("!I")
_ERRORS: dict[int, type[L4lbError]] = {kind.exit_code: kind for kind in (L4lbError, UsageError, UnreachableError)}


class WireError(L4lbError):
    """Bytes that are no message of this version."""


def encode_request(operation: str, arguments: Mapping[str, object]) -> bytes:
    """A request as it is sent."""
    return _encode({"v": VERSION, "op": operation, "args": dict(arguments)}, MAX_REQUEST)


def encode_result(result: object) -> bytes:
    """The answer to a request that was done."""
    return _encode({"v": VERSION, "ok": True, "result": result}, MAX_REPLY)


def encode_error(error: L4lbError) -> bytes:
    """The answer to a request that was not."""
    told = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
    return _encode({"v": VERSION, "ok": False, "error": told}, MAX_REPLY)


def _encode(message: Mapping[str, object], limit: int) -> bytes:
    body: bytes = msgpack.packb(message)
    if len(body) > limit:
        raise WireError(f"a message of {len(body):,} bytes is longer than {limit:,}", "ask for less at once")
    return _LENGTH.pack(len(body)) + body


def open_request(message: Mapping[object, object]) -> tuple[str, dict[str, object]]:
    """Operation and arguments of a request."""
    operation, arguments = message.get("op"), message.get("args")
    if not isinstance(operation, str) or not isinstance(arguments, dict):
        raise WireError("a request without operation or arguments", "use the l4lb command of the daemon's version")
    if not all(isinstance(name, str) for name in arguments):
        raise WireError("a request with an argument that has no name", "use the l4lb command of the daemon's version")
    return operation, arguments


def open_reply(message: Mapping[object, object]) -> object:
    """The result in a reply.

    Raises:
        L4lbError: the one that it tells of.
    """
    if message.get("ok") is True:
        return message.get("result")
    told = message.get("error")
    if not isinstance(told, dict):
        raise WireError("a reply that holds neither result nor error", "use the l4lb command of the daemon's version")
    kind = _ERRORS.get(told.get("exit_code", 1), L4lbError)
    raise kind(str(told.get("message", "")), str(told.get("hint", "")))


class Decoder:
    """Turns a stream of bytes, in pieces of any size, into messages; `limit` bounds a message's bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()

    @property
    def amid(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._held)

    def feed(self, data: bytes) -> Iterator[dict[object, object]]:
        """The messages that `data` completes.

        Raises:
            WireError: it is too long, no msgpack map, or of another version. The stream is of no use after that.
        """
        self._held += data
        while len(self._held) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._held)
            if length > self._limit:
                raise WireError(f"a message of {length:,} bytes is longer than {self._limit:,}", "send less at once")
            end = _LENGTH.size + length
            if len(self._held) < end:
                return
            body = bytes(self._held[_LENGTH.size : end])
            del self._held[:end]
            yield _message(body)


def _message(body: bytes) -> dict[object, object]:
    try:
        message = msgpack.unpackb(body, strict_map_key=False)
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise WireError(
            f"a message that is no msgpack ({error})", "use the l4lb command of the daemon's version"
        ) from error
    if not isinstance(message, dict):
        raise WireError("a message that is no map", "use the l4lb command of the daemon's version")
    if message.get("v") != VERSION:
        raise WireError(
            f"a message of version {message.get('v')!r}, not {VERSION}",
            "use an l4lb command and a daemon of one version",
        )
    return message
