"""Packets of probes by way of the dataplane, against Scapy's: what is sent, what is heard, and what is let through."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6ParamProblem, ICMPv6TimeExceeded, IPv6
from scapy.packet import Packet, Raw

from l4lb.probes import filters
from l4lb.probes.packets import (
    RST,
    SYN,
    Answer,
    Complaint,
    Ends,
    Tunnel,
    datagram,
    heard,
    segment,
    tunnelled,
)

VIPS = {4: "192.0.2.10", 6: "2001:db8::10"}
GATEWAYS = {4: "10.9.0.1", 6: "fd09::1"}
BACKENDS = {4: "10.9.0.11", 6: "fd09::11"}
ROUTER = "10.9.0.254"
PORT, VIP_PORT, GUE_PORT, SEQUENCE = 0x9C43, 80, 6081, 0xFFFFFFFF
NUMBERS = {"tcp": 6, "udp": 17}

FAMILIES = [4, 6]
WAYS = [(4, 0, 0), (6, 0, 0)] + [(vip, outer, gue) for vip in FAMILIES for outer in FAMILIES for gue in (0, GUE_PORT)]
"""IP version of the VIP; of the outer header, 0 where there is none; GUE's port, 0 for IP in IP."""


def ends(version: int, protocol: str) -> Ends:
    return Ends(NUMBERS[protocol], ip_address(GATEWAYS[version]), PORT, ip_address(VIPS[version]), VIP_PORT)


def ip(version: int, hops: int, **fields: Any) -> Packet:
    return IP(ttl=hops, id=0, flags="DF", **fields) if version == 4 else IPv6(hlim=hops, **fields)


def to_vip(version: int) -> Packet:
    return ip(version, 1, src=GATEWAYS[version], dst=VIPS[version])


def from_vip(version: int) -> Packet:
    return ip(version, 64, src=VIPS[version], dst=GATEWAYS[version])


def outer(inner: Packet, version: int, gue: int) -> Packet:
    header = ip(version, 64, src=GATEWAYS[version], dst=BACKENDS[version])
    if not gue:
        return header / inner
    udp = UDP(sport=0xC000 | PORT & 0x3FFF, dport=gue)
    if version == 4:
        udp.chksum = 0
    return header / udp / Raw(bytes(inner))


@pytest.mark.parametrize(("version", "outer_version", "gue"), WAYS)
@pytest.mark.parametrize("what", ["syn", "reset", "odd datagram", "even datagram", "empty datagram"])
def test_what_is_sent(version: int, outer_version: int, gue: int, what: str) -> None:
    if what == "syn":
        made = segment(ends(version, "tcp"), SYN, SEQUENCE)
        wanted = TCP(sport=PORT, dport=VIP_PORT, seq=SEQUENCE, flags="S", window=65_535, options=[("MSS", 1220)])
    elif what == "reset":
        made = segment(ends(version, "tcp"), RST, 0)
        wanted = TCP(sport=PORT, dport=VIP_PORT, seq=0, flags="R", window=65_535)
    else:
        payload = {"odd datagram": b"odd", "even datagram": b"even", "empty datagram": b""}[what]
        made = datagram(ends(version, "udp"), payload)
        wanted = UDP(sport=PORT, dport=VIP_PORT) / Raw(payload)
    whole = to_vip(version) / wanted
    if outer_version:
        backend = ip_address(BACKENDS[outer_version])
        made = tunnelled(made, Tunnel(ip_address(GATEWAYS[outer_version]), backend, gue))
        whole = outer(whole, outer_version, gue)
    assert made.hex() == bytes(whole).hex()


def test_a_checksum_of_zero_is_sent_as_the_other_zero() -> None:
    """Over IPv6 a datagram without a checksum is dropped (RFC 8200 §8.1)."""
    bare = datagram(ends(6, "udp"), bytes(2))
    checksum = int.from_bytes(bare[46:48])
    assert datagram(ends(6, "udp"), checksum.to_bytes(2))[46:48] == b"\xff\xff"


@pytest.mark.parametrize("version", FAMILIES)
def test_answers(version: int) -> None:
    tcp = from_vip(version) / TCP(sport=VIP_PORT, dport=PORT, flags="SA", ack=0, options=[("MSS", 1460)])
    assert list(heard(bytes(tcp) + bytes(6))) == [Answer(ends(version, "tcp"), flags=0x12, acknowledged=0)]
    udp = from_vip(version) / UDP(sport=VIP_PORT, dport=PORT) / Raw(b"PONG")
    padded = bytes(udp) + bytes(14)  # as Ethernet makes it
    assert list(heard(padded)) == [Answer(ends(version, "udp"), payload=b"PONG")]


def test_answers_with_ip_options_and_of_fragments() -> None:
    reply = UDP(sport=VIP_PORT, dport=PORT, chksum=0) / Raw(b"PONG")
    header = {"src": VIPS[4], "dst": GATEWAYS[4]}
    assert [found.ends for found in heard(bytes(IP(options=b"\x01" * 4, **header) / reply))] == [ends(4, "udp")]
    assert [found.ends for found in heard(bytes(IP(flags="MF", **header) / reply))] == [ends(4, "udp")]
    assert list(heard(bytes(IP(frag=5, proto=17, **header) / Raw(bytes(reply))))) == []


ERRORS = {
    "refused": (4, ICMP(type=3, code=3), "port unreachable"),
    "unknown": (4, ICMP(type=3, code=7), "ICMP error 3, code 7"),
    "expired": (4, ICMP(type=11, code=0), "time exceeded"),
    "refused by IPv6": (6, ICMPv6DestUnreach(code=4), "port unreachable"),
    "expired by IPv6": (6, ICMPv6TimeExceeded(), "time exceeded"),
    "of no protocol by IPv6": (6, ICMPv6ParamProblem(code=1), "protocol unreachable"),
}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("error", ERRORS)
def test_errors_about_probes(error: str, protocol: str) -> None:
    version, icmp, words = ERRORS[error]
    about = ends(version, protocol)
    sent = segment(about, SYN, SEQUENCE) if protocol == "tcp" else datagram(about, b"PING")
    teller = ROUTER if version == 4 else BACKENDS[6]
    header = ip(version, 64, src=teller, dst=GATEWAYS[version])
    (found,) = heard(bytes(header / icmp / Raw(sent)))
    sequence = SEQUENCE if protocol == "tcp" else 0
    assert found == Complaint(about, sequence, words, ip_address(teller), of_tunnel=False)
    assert found.sends_it_on == (words == "time exceeded")
    shortened = sent[: (20 if version == 4 else 40) + 8]
    assert list(heard(bytes(header / icmp / Raw(shortened)))) == [found], "RFC 792 asks for no more than 8 bytes"
    assert list(heard(bytes(header / icmp / Raw(shortened[:-1])))) == []


@pytest.mark.parametrize(("version", "outer_version", "gue"), WAYS[2:])
def test_errors_about_tunnels(version: int, outer_version: int, gue: int) -> None:
    """That it was there is known by the probe that was in it."""
    about = ends(version, "tcp")
    sent = tunnelled(
        segment(about, SYN, SEQUENCE),
        Tunnel(ip_address(GATEWAYS[outer_version]), ip_address(BACKENDS[outer_version]), gue),
    )
    icmp = ICMP(type=3, code=3 if gue else 2)
    if outer_version == 6:
        icmp = ICMPv6DestUnreach(code=4) if gue else ICMPv6ParamProblem(code=1)
    whole = ip(outer_version, 64, src=BACKENDS[outer_version], dst=GATEWAYS[outer_version]) / icmp / Raw(sent)
    (found,) = [found for found in heard(bytes(whole)) if found.ends == about]
    assert isinstance(found, Complaint)
    assert found.of_tunnel
    assert found.takes_no_tunnel
    assert not replace(found, words="host unreachable").takes_no_tunnel


def test_what_is_no_packet_says_nothing() -> None:
    whole = bytes(from_vip(4) / TCP(sport=VIP_PORT, dport=PORT, flags="SA"))
    icmp = bytes(ip(4, 64, src=ROUTER, dst=GATEWAYS[4]) / ICMP(type=3) / Raw(segment(ends(4, "tcp"), SYN, 1)))
    for packet in (whole, icmp):
        for length in range(len(packet)):
            for found in heard(packet[:length]):
                assert found.ends.vip_port == VIP_PORT, "what it takes to be sure is there"
        assert list(heard(packet))


class Filtered:
    """What gets through a filter, between two sockets of this process."""

    def __init__(self, version: int, addresses: list[str]) -> None:
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.far.setblocking(False)
        filters.attach(self.far, version, [ip_address(address) for address in addresses])

    def passes(self, packet: Packet) -> bool:
        self.near.send(bytes(packet))
        try:
            return self.far.recv(65_536) == bytes(packet)
        except BlockingIOError:
            return False


@pytest.fixture(params=[(version, place) for version in FAMILIES for place in (0, 5, 63)], ids=str)
def filtered(request: pytest.FixtureRequest) -> Iterator[tuple[int, Filtered]]:
    """One that has the gateway's address somewhere among others."""
    version, place = request.param
    addresses = [f"10.8.0.{number}" if version == 4 else f"fd09::{number:x}:1" for number in range(1, 64)]
    addresses.insert(place, GATEWAYS[version])
    made = Filtered(version, addresses)
    yield version, made
    made.near.close()
    made.far.close()


def test_answers_get_through(filtered: tuple[int, Filtered]) -> None:
    version, filter_ = filtered
    for flags in ("SA", "R", "RA"):
        assert filter_.passes(from_vip(version) / TCP(flags=flags))
    assert filter_.passes(from_vip(version) / UDP() / Raw(b"PONG"))
    errors = [icmp for of, icmp, _ in ERRORS.values() if of == version]
    assert errors
    for icmp in errors:
        assert filter_.passes(from_vip(version) / icmp / Raw(bytes(28)))


def test_nothing_else_gets_through(filtered: tuple[int, Filtered]) -> None:
    version, filter_ = filtered
    for flags in ("S", "A", "PA", "F", "FA"):
        assert not filter_.passes(from_vip(version) / TCP(flags=flags)), flags
    header = from_vip(version)
    setattr(header, "proto" if version == 4 else "nh", 47)
    assert not filter_.passes(header / Raw(bytes(40)))
    others = [ICMP(type=type_) for type_ in (0, 5, 8)] if version == 4 else []
    for icmp in others:
        assert not filter_.passes(from_vip(version) / icmp / Raw(bytes(28)))
    elsewhere = from_vip(version)
    elsewhere.dst = "10.9.0.2" if version == 4 else "fd09::2"
    for layer in (TCP(flags="SA"), UDP()):
        assert not filter_.passes(elsewhere / layer)
    assert not filter_.passes(Raw(b""))


def test_ip_options_and_fragments_are_understood() -> None:
    filter_ = Filtered(4, [GATEWAYS[4]])
    header = {"src": VIPS[4], "dst": GATEWAYS[4]}
    assert filter_.passes(IP(options=b"\x01" * 12, **header) / TCP(flags="SA"))
    assert not filter_.passes(IP(options=b"\x01" * 12, **header) / TCP(flags="A"))
    assert filter_.passes(IP(flags="MF", **header) / UDP())
    assert not filter_.passes(IP(frag=1, proto=17, **header) / Raw(bytes(20)))
    filter_.near.close()
    filter_.far.close()


def test_a_filter_for_nobody_takes_nothing() -> None:
    filter_ = Filtered(4, [])
    assert not filter_.passes(from_vip(4) / TCP(flags="SA"))
    filter_.near.close()
    filter_.far.close()
