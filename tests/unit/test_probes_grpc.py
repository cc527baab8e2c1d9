"""Checks of gRPC servers that do what real ones seldom do, and what they say against gRPC's own library."""

import asyncio
from collections.abc import Callable

import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import RequestReceived, StreamEnded
from hypothesis import given
from hypothesis import strategies as st

from l4lb.probes.grpc import judge, request
from l4lb.probes.target import Unwell
from tests.unit.probing import Handler, probe

ANSWER = {b":status": b"200", b"content-type": b"application/grpc", b"grpc-status": b"0"}
SERVING = HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString()


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4) + message


def reason(headers: dict[bytes, bytes] | None = None, body: bytes = framed(SERVING), service: str = "") -> str:
    try:
        judge(service, ANSWER | (headers or {}), body)
    except Unwell as unwell:
        return unwell.reason
    return "well"


@given(st.text(max_size=255))
def test_the_service_is_asked_for_by_its_name(service: str) -> None:
    assert HealthCheckRequest.FromString(request(service)) == HealthCheckRequest(service=service)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (HealthCheckResponse.SERVING, "well"),
        (HealthCheckResponse.NOT_SERVING, "health of the server as a whole is NOT_SERVING"),
        (HealthCheckResponse.UNKNOWN, "health of the server as a whole is UNKNOWN"),
        (HealthCheckResponse.SERVICE_UNKNOWN, "health of the server as a whole is SERVICE_UNKNOWN"),
        (77, "health of the server as a whole is 77"),
    ],
)
def test_the_status_is_the_one_of_the_answer(status: int, said: str) -> None:
    assert reason(body=framed(HealthCheckResponse(status=status).SerializeToString())) == said  # type: ignore[arg-type]


FUTURE = b"\x12\x03abc\x19" + bytes(8) + b"\x25" + bytes(4) + b"\x30\xff\x01"  # fields 2, 3, 4 and 6 of four kinds


def test_fields_of_the_future_are_passed_over() -> None:
    for message in (FUTURE + SERVING, SERVING + FUTURE):
        assert HealthCheckResponse.FromString(message).status == HealthCheckResponse.SERVING
        assert reason(body=framed(message)) == "well"


@given(st.binary(max_size=40))
def test_any_message_is_an_answer_or_none(message: bytes) -> None:
    told = reason(body=framed(message))
    assert told == "well" or told.startswith("health of ") or told == "answer is no HealthCheckResponse"


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        ({b":status": b"503"}, b"", "HTTP 503 instead of an answer of gRPC's"),
        ({b"content-type": b"text/html"}, b"", "answers by HTTP/2, but not by gRPC"),
        ({b"grpc-status": b"12"}, b"", "has no health service (UNIMPLEMENTED)"),
        ({b"grpc-status": b"5"}, b"", "health of service a.B is not known there (SERVICE_UNKNOWN)"),
        (
            {b"grpc-status": b"16", b"grpc-message": b"no%20token"},
            b"",
            "call failed: gRPC status UNAUTHENTICATED: no token",
        ),
        ({b"grpc-status": b"99"}, b"", "call failed: gRPC status 99"),
        ({b"grpc-status": b""}, b"", "call failed: gRPC status missing"),
        ({}, b"", "answer is not one message of gRPC's"),
        ({}, framed(SERVING)[:-1], "answer is not one message of gRPC's"),
        ({}, framed(SERVING) * 2, "answer is not one message of gRPC's"),
        ({}, b"\1" + framed(SERVING)[1:], "answer is not one message of gRPC's"),
        ({}, framed(b"\x08"), "answer is no HealthCheckResponse"),
        ({}, framed(b"\x12\x7fabc"), "answer is no HealthCheckResponse"),
    ],
)
def test_an_answer_that_is_none_is_told(headers: dict[bytes, bytes], body: bytes, said: str) -> None:
    assert reason(headers, body, "a.B") == said


def serving(answer: Callable[[H2Connection], None], seen: list[dict[bytes, bytes]] | None = None) -> Handler:
    """Speaks HTTP/2 by h2, and answers a request."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        connection.initiate_connection()
        while data := await reader.read(65_536):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived) and seen is not None:
                    seen.append(dict(event.headers or ()))
                if isinstance(event, StreamEnded):
                    answer(connection)
            writer.write(connection.data_to_send())

    return handle


def answered(connection: H2Connection) -> None:
    connection.send_headers(1, [(b":status", b"200"), (b"content-type", b"application/grpc+proto")])
    connection.ping(b"whatever")
    connection.send_data(1, framed(SERVING)[:3])
    connection.send_data(1, framed(SERVING)[3:])
    connection.send_headers(1, [(b"grpc-status", b"0")], end_stream=True)


def flooded(connection: H2Connection) -> None:
    connection.send_headers(1, [(b":status", b"200"), (b"content-type", b"application/grpc")])
    connection.send_data(1, bytes(8_000))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (answered, "ok"),
        (flooded, "answer of more than 4,096 bytes"),
        (
            lambda connection: connection.reset_stream(1, ErrorCodes.REFUSED_STREAM),
            "call refused by HTTP/2 error REFUS",
        ),
        (lambda connection: connection.close_connection(), "server is going away"),
        (lambda connection: connection.close_connection(ErrorCodes.ENHANCE_YOUR_CALM), "closed by HTTP/2 error ENHAN"),
    ],
)
def test_an_answer_over_http2_is_judged(answer: Callable[[H2Connection], None], said: str) -> None:
    assert probe("grpc", serving(answer)).reason.startswith(said)


@pytest.mark.parametrize(("address", "authority"), [("127.0.0.1", "127.0.0.1:"), ("::1", "[::1]:")])
def test_the_request_is_as_grpc_wants_it(address: str, authority: str) -> None:
    seen: list[dict[bytes, bytes]] = []
    assert probe("grpc", serving(answered, seen), address=address).ok
    (headers,) = seen
    assert headers[b":authority"].startswith(authority.encode())
    assert headers[b":path"] == b"/grpc.health.v1.Health/Check"
    assert (headers[b":method"], headers[b"te"], headers[b"content-type"]) == (
        b"POST",
        b"trailers",
        b"application/grpc",
    )
