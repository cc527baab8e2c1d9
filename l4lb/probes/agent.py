"""An agent on the backend says how it is: HAProxy's agent-check, one line of words (its configuration manual).

What the words mean for the backend is not decided here, but for those that say that it is down.
"""

import re

from l4lb.health.check import Check
from l4lb.health.values import payload_bytes
from l4lb.probes.stream import Stream
from l4lb.probes.target import Target, Unwell

MAX_LINE = 1_024  # bytes

_WORD = re.compile(r"up|ready|drain|maint|down|fail|failed|stopped|[0-9]{1,3}%|maxconn:[0-9]+")


async def probe(check: Check, target: Target) -> str:
    """What the agent says, in small letters, a space between words.

    Raises:
        Unwell: it says that the backend is down, or nothing that is known.
    """
    async with Stream(target) as stream:
        if check.get("send"):
            await stream.send(payload_bytes(check.get("send")))
        line = await _line(stream)
    return read(line)


def read(line: str) -> str:
    """The advice in an agent's line.

    Raises:
        Unwell: the backend is down, or this is no such line.
    """
    said, _, described = line.partition("#")
    words = [word for word in re.split(r"[\s,]+", said.lower()) if word]
    if not words:
        raise Unwell("agent says nothing")
    unknown = [word for word in words if not _WORD.fullmatch(word)]
    if unknown:
        raise Unwell(f"agent says {unknown[0]!r}, which is not known")
    words = [re.sub(r"\A0+(?=[0-9])", "", word) for word in words if not word.startswith("maxconn:")]
    advice = " ".join(words)
    down = [word for word in words if word in ("down", "fail", "failed", "stopped")]
    if down:
        raise Unwell(": ".join(filter(None, (f"agent says {down[0]}", described.strip()))), advice)
    return advice


async def _line(stream: Stream) -> str:
    """The first line, or what there is of it when the agent ends."""
    got = b""
    while not re.search(rb"[\r\n]", got):
        piece = await stream.receive()
        if not piece:
            break
        got += piece
        if len(got) > MAX_LINE:
            raise Unwell(f"agent's line is of more than {MAX_LINE:,} bytes")
    return re.split(rb"[\r\n]", got, maxsplit=1)[0].decode(errors="replace")
