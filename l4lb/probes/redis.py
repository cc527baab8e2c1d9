"""Redis runs a command, and its answer is as expected. The protocol is hiredis's.

hiredis is the parser beneath Redis's own client: by itself it neither opens connections nor tries again.
"""

import shlex

import hiredis

from l4lb.health.check import Check
from l4lb.probes import trust
from l4lb.probes.login import compare, password
from l4lb.probes.stream import Stream
from l4lb.probes.target import Target, Unwell

MAX_ANSWER = 1 << 16  # bytes
_REASONS = {
    "LOADING": "still loads its data",
    "NOAUTH": "asks for a login",
    "WRONGPASS": "login refused",
    "NOPERM": "not allowed",
    "MASTERDOWN": "its master is down",
}


async def probe(check: Check, target: Target) -> None:
    """Logs in where the check has a user or a password, and runs the command."""
    words = tuple(shlex.split(check.get("command")))
    commands = [words]
    secret = password(check)
    user = check.get("user")
    if user or secret:
        commands.insert(0, ("AUTH", *([user] if user else []), secret))
    tls = trust.optional(check)
    async with Stream(target) as stream:
        if tls:
            await stream.start_tls(*tls)
        # Its stub means any number of words.
        await stream.send(b"".join(hiredis.pack_command(each) for each in commands))  # type: ignore[arg-type]
        answers = await _answers(stream, len(commands))
    compare(words[0].upper(), answers[-1], check.get("expect") or ("PONG" if words == ("PING",) else ""))


async def _answers(stream: Stream, count: int) -> list[str]:
    reader = hiredis.Reader()
    answers: list[str] = []
    received = 0
    while True:
        data = await stream.receive()
        if not data:
            raise Unwell("connection closed without an answer")
        received += len(data)
        if received > MAX_ANSWER:
            raise Unwell(f"answer of more than {MAX_ANSWER:,} bytes")
        try:
            reader.feed(data)
            while (answer := reader.gets(False)) is not False:
                answers.append(_text(answer))
                if len(answers) == count:
                    return answers
        except hiredis.ProtocolError as error:
            raise Unwell(f"does not speak Redis's protocol: {error}") from None


def _text(answer: object) -> str:
    """An answer as it is compared; of several values, the first.

    Raises:
        Unwell: it is an error.
    """
    while isinstance(answer, list) and answer:
        answer = answer[0]
    match answer:
        case hiredis.ReplyError():
            said = str(answer)
            word = said.partition(" ")[0]
            raise Unwell(f"{_REASONS[word]}: {said}" if word in _REASONS else said)
        case bytes():
            return answer.decode(errors="replace")
        case None:
            return "(nil)"
        case []:
            return "(empty list)"
        case _:
            return str(answer)
