"""A DNS query is answered as expected. The protocol is dnspython's."""

import struct

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT

from l4lb.health.check import Check
from l4lb.probes.sockets import Datagrams
from l4lb.probes.stream import Stream
from l4lb.probes.target import Target, Unwell


async def probe(check: Check, target: Target) -> None:
    """Asks, and judges the answer."""
    kind = dns.rdatatype.from_text(check.get("type"))
    query = dns.message.make_query(dns.name.from_text(check.get("name")), kind)
    ask = _by_tcp if check.get("tcp") == "yes" else _by_udp
    response = await ask(target, query)
    expected = check.get("rcode")
    if response.rcode() != dns.rcode.from_text(expected):
        raise Unwell(f"{dns.rcode.to_text(response.rcode())}, expected {expected}")
    answer = check.get("answer")
    if answer and not any(
        _is(record, answer) for records in response.answer if records.rdtype == kind for record in records
    ):
        if response.flags & dns.flags.TC:
            raise Unwell("answer was cut short; ask by tcp=yes")
        raise Unwell(f"no {check.get('type')} record is {answer!r}{_instead(response, kind)}")


def _is(record: dns.rdata.Rdata, text: str) -> bool:
    """Whether a record is what a user wrote; texts may be without the quotes that dig puts around them."""
    if isinstance(record, dns.rdtypes.ANY.TXT.TXT) and not text.startswith('"'):
        return b"".join(record.strings) == text.encode()
    try:
        wanted = dns.rdata.from_text(record.rdclass, record.rdtype, text, origin=dns.name.root, relativize=False)
    except dns.exception.DNSException as error:
        raise Unwell(f"{text!r} can be no {record.rdtype.name} record: {error}") from None
    return bool(record == wanted)


def _instead(response: dns.message.Message, kind: dns.rdatatype.RdataType) -> str:
    found = [record.to_text() for records in response.answer if records.rdtype == kind for record in records]
    return f" (but {', '.join(sorted(found)[:3])})" if found else " (there is none)"


async def _by_udp(target: Target, query: dns.message.Message) -> dns.message.Message:
    with Datagrams(target) as datagrams:
        datagrams.send(query.to_wire())
        while True:
            response = _read(await datagrams.receive())
            if query.is_response(response):
                return response


async def _by_tcp(target: Target, query: dns.message.Message) -> dns.message.Message:
    wire = query.to_wire()
    async with Stream(target) as stream:
        await stream.send(struct.pack("!H", len(wire)) + wire)
        got = b""
        while len(got) < 2 or len(got) < 2 + struct.unpack_from("!H", got)[0]:
            piece = await stream.receive()
            if not piece:
                raise Unwell("connection closed without an answer")
            got += piece
    (length,) = struct.unpack_from("!H", got)
    response = _read(got[2 : 2 + length])
    if not query.is_response(response):
        raise Unwell("answer to another question")
    return response


def _read(wire: bytes) -> dns.message.Message:
    try:
        return dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError) as error:
        raise Unwell(f"bad DNS: {type(error).__name__}") from None
