"""What a probe by way of the dataplane takes for an answer: a host that says this and that to it."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pyroute2 import netns
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from l4lb.health.check import Check
from l4lb.health.result import Result
from l4lb.probes import dataplane
from l4lb.probes.run import run
from l4lb.probes.target import Target, Way
from l4lb.probes.wire import wire
from tests.lab.site import namespaces

VIP, OTHER_VIP, GATEWAY, BACKEND, ROUTER = "192.0.2.10", "192.0.2.20", "10.9.0.1", "10.9.0.11", "10.9.0.254"
MAC, GATEWAY_MAC = "02:00:00:00:09:11", "02:00:00:00:09:01"
WAY = Way("lan", bytes.fromhex(MAC.replace(":", "")), GATEWAY, "dsr", "", 6080)
IPV4 = 0x0800
UDP_CHECK = "udp:payload=PING,expect=PONG"

Answers = Callable[[Packet], list[Packet]]


class Host:
    """A backend whose kernel has no part in it. `heard` is what came for the VIP since the last probe."""

    def __init__(self, tap: socket.socket) -> None:
        self.heard: list[Packet] = []
        self._tap = tap

    def probed(self, check: str, answers: Answers, timeout: float = 0.2) -> Result:
        """What comes of one probe, while the host says to each packet for the VIP what `answers` makes of it."""

        async def main() -> Result:
            try:
                return await run(Check.parse(check), target, timeout)
            finally:
                wire().close()

        target = Target(BACKEND, 80, VIP, 80, "tcp", "web", WAY)
        with self.answering(answers):
            return asyncio.run(main())

    @contextmanager
    def answering(self, answers: Answers) -> Iterator[None]:
        """Does so as long as the with block runs."""
        self.heard.clear()
        over = threading.Event()
        thread = threading.Thread(target=self._answer, args=(answers, over))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _answer(self, answers: Answers, over: threading.Event) -> None:
        while True:
            try:
                found = Ether(self._tap.recv(65_536))
            except TimeoutError:
                if over.is_set():
                    return
                continue
            if IP in found and found[IP].dst == VIP:
                self.heard.append(found[IP])
                for packet in answers(found[IP]):
                    self._tap.send(bytes(Ether(src=MAC, dst=GATEWAY_MAC) / packet))


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """The test is in the gateway, which owns the VIP."""
    with namespaces() as made:
        made.here.ip(f"link add name lan type veth peer name eth0 netns {made.host.name}")
        made.here.ip(f"link set lan address {GATEWAY_MAC} up", f"address add {GATEWAY}/24 dev lan")
        made.here.ip(f"address add {VIP}/32 dev lan")
        made.host.ip(f"link set eth0 address {MAC} up")
        netns.pushns(made.host.name)
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        tap.bind(("eth0", IPV4))
        tap.settimeout(0.02)
        netns.popns()
        with made.entered(), tap:
            yield Host(tap)


def reply(packet: Packet, **fields: Any) -> Packet:
    """A good answer to a SYN, but for these fields."""
    segment = packet[TCP]
    fields = {"sport": 80, "dport": segment.sport, "flags": "SA", "seq": 7, "ack": segment.seq + 1} | fields
    return IP(src=VIP, dst=GATEWAY) / TCP(**fields)


def begins(packet: Packet) -> bool:
    return TCP in packet and packet[TCP].flags == "S"


def error(packet: Packet, teller: str = BACKEND, code: int = 1, **changed: int) -> Packet:
    """That a packet could not be delivered."""
    quoted = packet.copy()
    for name, value in changed.items():
        setattr(quoted[TCP], name, value)
    return IP(src=teller, dst=GATEWAY) / ICMP(type=3, code=code) / Raw(bytes(quoted))


def test_a_handshake_is_taken_back(host: Host) -> None:
    result = host.probed("tcp", lambda packet: [reply(packet)] if begins(packet) else [])
    assert result.ok, result.reason
    syn, reset = (packet[TCP] for packet in host.heard)
    assert (syn.flags, reset.flags) == ("S", "R")
    assert reset.sport == syn.sport
    assert reset.seq == (syn.seq + 1) % 2**32, "others are not heeded (RFC 5961)"


NOT_TO_THIS = {
    "of another time": lambda syn: reply(syn, ack=(syn[TCP].seq + 2) % 2**32),
    "to another port": lambda syn: reply(syn, dport=syn[TCP].sport ^ 1),
    "from another port": lambda syn: reply(syn, sport=81),
    "from another VIP": lambda syn: IP(src=OTHER_VIP, dst=GATEWAY) / reply(syn)[TCP],
    "refused at another time": lambda syn: reply(syn, flags="RA", ack=(syn[TCP].seq + 2) % 2**32),
    "a reset that acknowledges nothing": lambda syn: reply(syn, flags="R"),
    "an error about another time": lambda syn: error(syn, seq=syn[TCP].seq ^ 1),
    "an error about another port": lambda syn: error(syn, sport=syn[TCP].sport ^ 1),
    "an error without end": lambda syn: IP(bytes(error(syn))[:40]),
}


@pytest.mark.parametrize("what", NOT_TO_THIS)
def test_what_is_no_answer_to_this_probe(host: Host, what: str) -> None:
    """Nobody who does not see the probe can make a backend well or unwell."""
    made = NOT_TO_THIS[what]
    alone = host.probed("tcp", lambda packet: [made(packet)] if begins(packet) else [], timeout=0.1)
    assert (alone.ok, alone.reason) == (False, "no answer within 100 ms")
    before = host.probed("tcp", lambda packet: [made(packet), reply(packet)] if begins(packet) else [])
    assert before.ok, before.reason


def test_what_is_wrong_is_told_at_once(host: Host) -> None:
    for made, reason in (
        (lambda syn: reply(syn, flags="RA"), "connection refused"),
        (lambda syn: error(syn), "host unreachable"),
        (lambda syn: error(syn, ROUTER), f"host unreachable, says {ROUTER}"),
        (lambda syn: error(syn, ROUTER, 13), f"forbidden by a firewall, says {ROUTER}"),
    ):
        result = host.probed("tcp", lambda packet, made=made: [made(packet)] if begins(packet) else [], timeout=5)
        assert (result.ok, result.reason) == (False, reason)
        assert result.latency < 1


def test_a_syn_that_is_lost_is_sent_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataplane, "_AGAIN_SECONDS", 0.05)
    result = host.probed("tcp", lambda packet: [reply(packet)] if len(host.heard) == 2 else [], timeout=5)
    assert result.ok, result.reason
    first, second, _ = host.heard
    assert bytes(first) == bytes(second)


def test_after_silence_what_may_have_begun_is_taken_back(host: Host) -> None:
    assert not host.probed("tcp", lambda _: [], timeout=0.05).ok
    assert [packet[TCP].flags for packet in host.heard] == ["S", "R"]


def test_datagrams(host: Host) -> None:
    def say(payload: bytes) -> Answers:
        return lambda packet: [IP(src=VIP, dst=GATEWAY) / UDP(sport=80, dport=packet[UDP].sport) / Raw(payload)]

    assert host.probed(UDP_CHECK, say(b"PONG 1")).ok
    assert host.heard[0][UDP].load == b"PING"
    assert host.probed(UDP_CHECK, say(b"busy")).reason == "answer begins with b'busy', expected b'PONG'"
    refused = host.probed(UDP_CHECK, lambda packet: [error(packet, VIP, 3)])
    assert (refused.ok, refused.reason) == (False, "port unreachable")
    silent = host.probed("udp", lambda _: [])
    assert (silent.ok, silent.reason) == (False, "no answer within 200 ms"), "as of a backend without the VIP"


def test_a_late_datagram_is_nobody_elses_answer(host: Host) -> None:
    """The port of a probe that was not answered is kept for a while; that of one that was is free."""

    def is_free(port: int) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            try:
                other.bind((GATEWAY, port))
            except OSError:
                return False
            return True

    async def probe(answers: Answers) -> bool:
        with host.answering(answers):
            await run(Check.parse("udp"), Target(BACKEND, 80, VIP, 80, "udp", "dns", WAY), 0.1)
        return is_free(host.heard[-1][UDP].sport)

    async def main() -> None:
        try:
            assert not await probe(lambda _: [])
            assert await probe(lambda packet: [IP(src=VIP, dst=GATEWAY) / UDP(sport=80, dport=packet[UDP].sport)])
        finally:
            wire().close()

    asyncio.run(main())
