"""A datagram is answered as expected, or at least nobody says that there is no such port."""

from l4lb.health.check import Check
from l4lb.health.values import payload_bytes
from l4lb.probes.sockets import Datagrams
from l4lb.probes.target import Target, Unwell

_SHOWN = 32  # bytes of a wrong answer


async def probe(check: Check, target: Target) -> None:
    """Sends the payload; the first answer decides. Without anything to expect, any does."""
    with Datagrams(target) as datagrams:
        datagrams.send(payload_bytes(check.get("payload")))
        judge(check, await datagrams.receive())


def judge(check: Check, answer: bytes) -> None:
    """Makes sure that an answer is the one that is expected.

    Raises:
        Unwell: it is another one.
    """
    expected = payload_bytes(check.get("expect"))
    if not answer.startswith(expected):
        shown = answer[: max(len(expected), _SHOWN)]
        raise Unwell(f"answer begins with {shown!r}, expected {expected!r}")
