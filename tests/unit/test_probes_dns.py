"""DNS checks of servers that answer well, wrongly, and nonsense."""

import asyncio
import struct
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from l4lb.health.result import Result
from tests.unit.probing import SOON, closing, probe, probe_datagrams, saying, silent

ZONE = {
    "A": "www.example.org. 60 IN A 192.0.2.1\nwww.example.org. 60 IN A 192.0.2.2",
    "AAAA": "www.example.org. 60 IN AAAA 2001:db8::1",
    "CNAME": "www.example.org. 60 IN CNAME Web.example.org.",
    "MX": "www.example.org. 60 IN MX 10 mail.example.org.",
    "TXT": 'www.example.org. 60 IN TXT "v=spf1 -all" " more"',
}
Change = Callable[[dns.message.Message], None]


def answer(query: bytes, change: Change | None = None) -> bytes:
    """What a server of :data:`ZONE` says to a query."""
    asked = dns.message.from_wire(query)
    response = dns.message.make_response(asked)
    question = asked.question[0]
    kind = question.rdtype.name
    if question.name.to_text() != "www.example.org.":
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif kind in ZONE:
        records = [line.split(maxsplit=4)[4] for line in ZONE[kind].splitlines()]
        response.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *records))
    if change:
        change(response)
    return response.to_wire()


def by_udp(text: str, change: Change | None = None) -> Result:
    return probe_datagrams(text, lambda query: [answer(query, change)])


def by_tcp(text: str, change: Change | None = None, extra: bytes = b"") -> Result:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        said = answer(await reader.readexactly(length), change)
        writer.write(struct.pack("!H", len(said))[:1])
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(struct.pack("!H", len(said))[1:] + said + extra)

    return probe(f"{text},tcp=yes", handle)


WELL = [
    "dns:name=www.example.org",
    "dns:name=www.example.org,answer=192.0.2.2",
    "dns:name=www.example.org,type=AAAA,answer=2001:DB8:0::1",
    "dns:name=WWW.example.org,type=CNAME,answer=web.Example.org",
    "dns:name=www.example.org,type=CNAME,answer=web.example.org.",
    "dns:name=www.example.org,type=MX,answer=10 mail.example.org",
    "dns:name=www.example.org,type=TXT,answer=v=spf1 -all more",
    'dns:name=www.example.org,type=TXT,answer="v=spf1 -all" " more"',
    "dns:name=www.example.org,type=SOA",  # a good answer without records
    "dns:name=other.example.org,rcode=NXDOMAIN",
]

ILL = [
    ("dns:name=other.example.org", "NXDOMAIN, expected NOERROR"),
    ("dns:name=www.example.org,rcode=REFUSED", "NOERROR, expected REFUSED"),
    (
        "dns:name=www.example.org,answer=192.0.2.3",
        "no A record is '192.0.2.3' (but 192.0.2.1, 192.0.2.2)",
    ),
    ("dns:name=www.example.org,type=TXT,answer=v=spf1", "no TXT record is 'v=spf1' (but \"v=spf1 -all\" \" more\")"),
    ("dns:name=www.example.org,type=SOA,answer=a b 1 2 3 4 5", "no SOA record is 'a b 1 2 3 4 5' (there is none)"),
    ("dns:name=www.example.org,answer=web", "'web' can be no A record: "),
]  # fmt: skip


@pytest.mark.parametrize("ask", [by_udp, by_tcp])
@pytest.mark.parametrize("text", WELL)
def test_well(text: str, ask: Callable[[str], Result]) -> None:
    result = ask(text)
    assert (result.ok, result.reason) == (True, "ok")


@pytest.mark.parametrize("ask", [by_udp, by_tcp])
@pytest.mark.parametrize(("text", "reason"), ILL)
def test_ill(text: str, reason: str, ask: Callable[[str], Result]) -> None:
    result = ask(text)
    assert not result.ok
    assert result.reason.startswith(reason)


def servfail(response: dns.message.Message) -> None:
    response.set_rcode(dns.rcode.SERVFAIL)


def cut(response: dns.message.Message) -> None:
    response.flags |= dns.flags.TC
    response.answer.clear()


def of_another_query(response: dns.message.Message) -> None:
    response.id ^= 1


def no_response(response: dns.message.Message) -> None:
    response.flags ^= dns.flags.QR


def test_failures_of_the_server() -> None:
    assert by_udp("dns:name=www.example.org", servfail).reason == "SERVFAIL, expected NOERROR"
    assert by_udp("dns:name=www.example.org", cut).ok
    assert by_udp("dns:name=www.example.org,answer=192.0.2.1", cut).reason == "answer was cut short; ask by tcp=yes"


@pytest.mark.parametrize("change", [of_another_query, no_response])
def test_only_the_answer_to_its_own_query_counts(change: Change) -> None:
    text = "dns:name=www.example.org"
    both = probe_datagrams(text, lambda query: [answer(query, change), answer(query)])
    assert both.ok
    alone = probe_datagrams(text, lambda query: [answer(query, change)], SOON)
    assert alone.reason == "no answer within 150 ms"
    assert by_tcp(text, change).reason == "answer to another question"


def test_nonsense() -> None:
    text = "dns:name=a"
    for nonsense in (b"x", b"\xff" * 40, bytes(12) + b"\xc0\x0c"):
        assert probe_datagrams(text, lambda _, said=nonsense: [said], SOON).ok is False  # type: ignore[misc]
    assert probe_datagrams(text, lambda _: [b"hello"]).reason == "bad DNS: ShortHeader"
    assert probe_datagrams(text, lambda query: [answer(query) + b"x"]).reason == "bad DNS: TrailingJunk"
    assert probe(f"{text},tcp=yes", saying(b"\x00\x05hello")).reason == "bad DNS: ShortHeader"
    assert probe(f"{text},tcp=yes", saying(b"\xff\xffhello")).reason == "connection closed without an answer"
    assert probe(f"{text},tcp=yes", saying(b"\x00\x00")).reason == "bad DNS: ShortHeader"
    assert probe(f"{text},tcp=yes", closing).reason == "connection closed without an answer"
    assert probe(f"{text},tcp=yes", silent, SOON).reason == "no answer within 150 ms"


def test_what_comes_behind_an_answer_by_tcp_does_not_count() -> None:
    assert by_tcp("dns:name=www.example.org,answer=192.0.2.1", extra=b"more").ok
