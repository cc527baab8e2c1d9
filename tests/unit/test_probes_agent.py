"""Agent checks: HAProxy's lines, and whatever else an agent may say."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4lb.probes.agent import read
from l4lb.probes.target import Unwell
from tests.unit.probing import SOON, endless, probe, silent


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("up", "up"),
        ("UP\n", "up"),
        ("ready", "ready"),
        ("drain", "drain"),
        ("maint", "maint"),
        ("75%", "75%"),
        ("075%", "75%"),
        ("0%", "0%"),
        ("000%", "0%"),
        ("  ready,\tup  50% ", "ready up 50%"),
        ("up maxconn:30", "up"),
        ("drain # for a new kernel", "drain"),
    ],
)
def test_advice(line: str, advice: str) -> None:
    assert read(line) == advice


@pytest.mark.parametrize(
    ("line", "reason", "advice"),
    [
        ("down", "agent says down", "down"),
        ("down#disk is full", "agent says down: disk is full", "down"),
        ("ready fail # disk", "agent says fail: disk", "ready fail"),
        ("failed", "agent says failed", "failed"),
        ("stopped 50%", "agent says stopped", "stopped 50%"),
        ("", "agent says nothing", None),
        (" , ", "agent says nothing", None),
        ("# down", "agent says nothing", None),
        ("hello", "agent says 'hello', which is not known", None),
        ("up hello", "agent says 'hello', which is not known", None),
        ("75", "agent says '75', which is not known", None),
        ("-5%", "agent says '-5%', which is not known", None),
        ("1000%", "agent says '1000%', which is not known", None),
        ("\u0667%", "agent says '\u0667%', which is not known", None),
        ("HTTP/1.1 200 OK", "agent says 'http/1.1', which is not known", None),
    ],
)
def test_not_well(line: str, reason: str, advice: str | None) -> None:
    with pytest.raises(Unwell) as told:
        read(line)
    assert (told.value.reason, told.value.advice) == (reason, advice)


@given(st.text(max_size=60))
def test_any_line_is_advice_or_refused(line: str) -> None:
    with contextlib.suppress(Unwell):
        assert read(line) == read(read(line))


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ([b"up\n"], "up"),
        ([b"75", b"%\r", b"\n"], "75%"),
        ([b"drain\ndown\n"], "drain"),
    ],
)
def test_only_the_first_line_counts(said: list[bytes], advice: str) -> None:
    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in said:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)
        await asyncio.sleep(60)

    result = probe("agent", handle)
    assert (result.ok, result.reason, result.advice) == (True, "ok", advice)


def test_a_line_may_end_with_the_connection_and_answer_a_question() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readexactly(5)
        writer.write(b"50%" if asked == b"how?\n" else b"down")

    result = probe(r"agent:send=how?\n", handle)
    assert (result.ok, result.advice) == (True, "50%")


def test_not_well_comes_with_its_advice() -> None:
    async def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"maint down # \x1b[2Jdisk\n")

    result = probe("agent", handle)
    assert (result.ok, result.reason, result.advice) == (False, "agent says down: [2Jdisk", "maint down")


def test_bad_agents() -> None:
    async def ending(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        pass

    async def garbage(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\xff\x00\xfe\n")

    assert probe("agent", ending).reason == "agent says nothing"
    assert probe("agent", garbage).reason.endswith("which is not known")
    assert probe("agent", silent, SOON).reason == "no answer within 150 ms"
    assert probe("agent:send=x", endless(b"", b"up up up ")).reason == "agent's line is of more than 1,024 bytes"
