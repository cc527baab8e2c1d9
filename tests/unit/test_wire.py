"""The wire format: what is sent arrives, in pieces of any size, and nothing else is taken for a message."""

import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4lb import wire
from l4lb.errors import L4lbError, UnreachableError, UsageError

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
arguments = st.dictionaries(st.text(max_size=8), plain, max_size=5)


@given(st.text(max_size=20), arguments, st.lists(st.integers(1, 40)))
def test_requests_arrive_in_pieces_of_any_size(operation: str, args: dict[str, object], pieces: list[int]) -> None:
    data = wire.encode_request(operation, args) * 2
    decoder, messages = wire.Decoder(wire.MAX_REQUEST), []
    for piece in pieces:
        messages += list(decoder.feed(data[:piece]))
        data = data[piece:]
    messages += list(decoder.feed(data))
    assert [wire.open_request(message) for message in messages] == [(operation, args)] * 2
    assert not decoder.amid


@given(plain)
def test_results_arrive(result: object) -> None:
    (message,) = wire.Decoder(wire.MAX_REPLY).feed(wire.encode_result(result))
    assert wire.open_reply(message) == result


@pytest.mark.parametrize("kind", [L4lbError, UsageError, UnreachableError])
def test_errors_arrive_as_what_they_were(kind: type[L4lbError]) -> None:
    (message,) = wire.Decoder(wire.MAX_REPLY).feed(wire.encode_error(kind("what is wrong", "the way out")))
    with pytest.raises(kind) as error:
        wire.open_reply(message)
    assert (error.value.message, error.value.hint) == ("what is wrong", "the way out")
    assert type(error.value) is kind


def test_a_message_cut_off_anywhere_is_no_message() -> None:
    data = wire.encode_request("vip.add", {"name": "web", "weight": 5})
    for length in range(len(data)):
        decoder = wire.Decoder(wire.MAX_REQUEST)
        assert list(decoder.feed(data[:length])) == []
        assert decoder.amid == (length > 0)


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for(data: bytes) -> None:
    decoder = wire.Decoder(1000)
    try:
        messages = list(decoder.feed(data))
    except wire.WireError:
        return
    assert all(message["v"] == wire.VERSION for message in messages)


def framed(value: object) -> bytes:
    body = msgpack.packb(value)
    return struct.pack("!I", len(body)) + body


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (struct.pack("!I", wire.MAX_REQUEST + 1), "longer than"),
        (framed([1, 2]), "no map"),
        (framed({"op": "status"}), "version None, not 1"),
        (framed({"v": 2, "op": "status"}), "version 2, not 1"),
        (struct.pack("!I", 1) + b"\xc1", "no msgpack"),
        (struct.pack("!I", 0), "no msgpack"),
        (struct.pack("!I", 5000) + b"\x91" * 5000, "no msgpack"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(wire.WireError, match=says):
        list(wire.Decoder(wire.MAX_REQUEST).feed(data))


@pytest.mark.parametrize(
    "message", [{}, {"op": 5, "args": {}}, {"op": "x"}, {"op": "x", "args": []}, {"op": "x", "args": {1: 2}}]
)
def test_what_is_no_request_is_refused(message: dict[object, object]) -> None:
    with pytest.raises(wire.WireError):
        wire.open_request(message)


def test_a_request_has_a_bounded_size() -> None:
    with pytest.raises(wire.WireError, match="longer than"):
        wire.encode_request("vip.add", {"name": "x" * wire.MAX_REQUEST})
