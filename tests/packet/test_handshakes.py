"""What is counted of connections to backends that are watched, segment by segment."""

import itertools
import random
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import pytest
from scapy.layers.inet import ICMP, TCP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Padding, Raw

from l4lb.balance.flowhash import flow_hash64, seeds
from l4lb.datapath import bpf
from l4lb.datapath.values import SIZES
from l4lb.health.handshakes import Handshakes
from l4lb.lab.testbed import CLIENT_MAC, GATEWAY_MAC, LOOPBACK, Testbed, hop
from l4lb.model import Backend, Config, Endpoint, IPAddress, Mode, Protocol, Service, Vip
from tests.packet.harness import SEED, XDP_REDIRECT, XDP_TX, run
from tests.packet.modes import BACKEND_MAC, CLIENTS, header

VIPS: dict[int, IPAddress] = {4: IPv4Address("192.0.2.60"), 6: IPv6Address("2001:db8:1::60")}
SERVER: dict[int, Endpoint] = {
    4: Endpoint(IPv4Address("10.2.0.60"), 8080),
    6: Endpoint(IPv6Address("2001:db8:2::60"), 8080),
}
PLACES = 65_536
OTHER_MAC = "02:00:00:00:00:ff"
TIME_MASK = 2**29 - 1  # microseconds, of which a place holds so many


@dataclass
class Net:
    """A VIP with one backend, and what is sent between that and clients."""

    bed: Testbed
    mode: Mode
    version: int
    _configured: tuple[tuple[bool, ...], bool] = ((), True)

    def configure(self, *watched: bool, known: bool = True) -> None:
        """A VIP for each, all with the same server, whose MAC address is known or not."""
        server = SERVER[self.version]
        vips = tuple(
            Vip(
                f"v{number}",
                Service(VIPS[self.version] + number, 80, 80, Protocol.TCP),
                self.mode,
                backends=(Backend(server),),
                passive=passive,
                pool=256,
            )
            for number, passive in enumerate(watched)
        )
        if (watched, known) == self._configured:
            return
        self._configured = watched, known
        way = {server.address: hop(LOOPBACK, BACKEND_MAC, version=self.version)}
        self.bed.configure(Config(vips, SEED), way if known else {})

    def client(self) -> Endpoint:
        """One that has not connected yet."""
        return Endpoint(CLIENTS[self.version], next(PORTS))

    def to_vip(self, client: Endpoint, flags: str, data: int = 0, vip: int = 0, dress: str = "plain") -> Endpoint:
        """Sends a segment of a client's; whom the server sees."""
        outcome = run(self.bed, self.segment(client, flags, data, vip, dress))
        assert (outcome.verdict, outcome.reasons) == (XDP_TX, {})
        packet = Ether(outcome.packet)
        return Endpoint(type(client.address)(packet.payload.src), packet[TCP].sport)

    def segment(
        self,
        client: Endpoint,
        flags: str,
        data: int = 0,
        vip: int = 0,
        dress: str = "plain",
        mac: str = GATEWAY_MAC,
        **fields: object,
    ) -> bytes:
        ip = header(client.address, VIPS[self.version] + vip, **fields)
        return frame(Ether(src=CLIENT_MAC, dst=mac), ip, TCP(sport=client.port, dport=80, flags=flags), data, dress)

    def from_server(self, seen: Endpoint, flags: str, data: int = 0, dress: str = "plain") -> None:
        """Sends a segment of the server's, to whom it sees."""
        outcome = run(self.bed, self.answer(seen, flags, data, dress))
        assert (outcome.verdict, outcome.reasons) == (XDP_REDIRECT, {})

    def answer(self, seen: Endpoint, flags: str, data: int = 0, dress: str = "plain", **fields: object) -> bytes:
        server = SERVER[self.version]
        ip = header(server.address, seen.address, **fields)
        segment = TCP(sport=server.port, dport=seen.port, flags=flags)
        return frame(Ether(src=BACKEND_MAC, dst=GATEWAY_MAC), ip, segment, data, dress)

    def quoted(self, seen: Endpoint) -> bytes:
        """The packet of a SYN as the server gets it."""
        server = SERVER[self.version]
        return bytes(header(seen.address, server.address) / TCP(sport=seen.port, dport=server.port, flags="S"))

    def talk(self, said: str, dress: str = "plain", vip: int = 0) -> None:
        """Sends the segments of a connection, as ">S" from the client and "<PA+" from the server, that with data."""
        seen = client = self.client()
        for word in said.split():
            flags, data = word[1:].rstrip("+"), word.endswith("+")
            if word[0] == ">":
                seen = self.to_vip(client, flags, data, vip, dress)
            else:
                self.from_server(seen, flags, data, dress)

    # What was counted

    def counted(self, vip: int = 0) -> dict[str, int]:
        """The counters of a VIP's backend that are not 0, times apart."""
        found = self._handshakes(vip)
        names = ("begun", "repeated", "answered", "refused", "requests", "replies")
        return {name: getattr(found, name) for name in names if getattr(found, name)}

    def times(self, kind: str) -> tuple[int, ...]:
        found: tuple[int, ...] = getattr(self._handshakes(0), kind)
        return found

    def _handshakes(self, vip: int) -> Handshakes:
        image = self.bed.image
        (watch,) = (
            image.backend_settings[number].watch
            for number, record in image.backends.items()
            if image.vips[record.vip].service.address == VIPS[self.version] + vip
        )
        assert watch, "it is not watched"
        return self.bed.maps.handshakes(watch)

    @contextmanager
    def nothing_counted(self) -> Iterator[None]:
        """Of nobody, anywhere, while the with block runs."""
        places = range(self.bed.limits.max_watched)
        before = [self.bed.maps.handshakes(place) for place in places]
        yield
        assert [self.bed.maps.handshakes(place) for place in places] == before

    # Connections and their places

    def place(self, client: Endpoint) -> int:
        """Where a connection of a client's is remembered: `note_handshake()` hashes it with the backend's number."""
        (number,) = self.bed.image.backends
        port = int.from_bytes(number.to_bytes(2, "little"), "big")  # in place of the port, which is in network order
        return flow_hash64(client, port, seeds(SEED)) % PLACES

    def neighbours(self) -> tuple[Endpoint, Endpoint]:
        """Two clients that have one place."""
        clients: dict[int, Endpoint] = {}
        for port in random.Random(1).sample(range(32_768, 65_536), 20_000):  # in a row, few meet
            client = Endpoint(CLIENTS[self.version], port)
            place = self.place(client)
            if place in clients:
                return clients[place], client
            clients[place] = client
        raise AssertionError("there are none")

    def date_back(self, client: Endpoint, took: int) -> int:
        """Makes a client have asked so many microseconds ago; when that is done, in microseconds."""
        place = self.place(client)
        with bpf.opened(self.bed.pins / "maps" / "begun") as begun:
            tag, asked = struct.unpack("<II", bpf.map_lookup(begun, place, 8))
            now = microseconds()
            assert (now - (asked >> 3)) & TIME_MASK < 1_000_000, "it has just asked"
            bpf.map_update(begun, place, struct.pack("<II", tag, ((now - took) & TIME_MASK) << 3 | asked & 7))
        return now


def frame(ethernet: Packet, ip: Packet, tcp: Packet, data: int, dress: str) -> bytes:
    """A frame with a segment of so much data, in what it may come in."""
    if dress == "TCP options":
        tcp.options = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]
    segment = tcp / Raw(bytes(data)) if data else tcp
    match dress:
        case "IP options" if ip.version == 4:
            ip.options = [IPOption_NOP()] * 8
        case "IP options":
            ip = ip / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()
        case "fragment" if ip.version == 4:
            ip.flags = "MF"
        case "fragment":
            ip = ip / IPv6ExtHdrFragment(m=1)
        case "802.1Q":
            ethernet = ethernet / Dot1Q(vlan=5)
        case "802.1ad":
            ethernet = ethernet / Dot1AD(vlan=7) / Dot1Q(vlan=5)
        case "padding":
            segment = segment / Padding(bytes(20))
    return bytes(ethernet / ip / segment)


PORTS = itertools.count(1024)  # of clients, a new one for each connection: places are remembered over all tests


@pytest.fixture(
    scope="module",
    params=[(mode, version) for mode in (Mode.NAT, Mode.FULLNAT) for version in (4, 6)],
    ids=lambda case: f"{case[0]}-ipv{case[1]}",
)
def configured(bed: Testbed, request: pytest.FixtureRequest) -> Iterator[Net]:
    bed.configure(Config((), SEED), {})
    yield Net(bed, *request.param)
    bed.configure(Config((), SEED), {})


@pytest.fixture
def net(configured: Net) -> Net:
    """With a backend that is watched, of which nothing was counted."""
    configured.configure(True)
    with bpf.opened(configured.bed.pins / "maps" / "handshakes") as fd:
        for place in range(configured.bed.limits.max_watched):
            bpf.map_update(fd, place, bytes(SIZES["handshakes"] * bpf.possible_cpus()))
    return configured


# What is said, and what is counted of it
TALKS = {
    "accepted": (">S <SA >A", {"begun": 1, "answered": 1}),
    "unanswered": (">S", {"begun": 1}),
    "unanswered, sent again": (">S >S >S", {"begun": 1, "repeated": 2}),
    "sent again, then accepted": (">S >S <SA >A", {"begun": 1, "repeated": 1, "answered": 1}),
    "refused": (">S <RA", {"begun": 1, "refused": 1}),
    "sent again, then refused": (">S >S <RA", {"begun": 1, "repeated": 1, "refused": 1}),
    "refused, then accepted": (">S <RA >S <SA", {"begun": 2, "refused": 1, "answered": 1}),
    "accepted twice": (">S <SA <SA", {"begun": 1, "answered": 1}),
    "a SYN-ACK that was lost": (">S <SA >S <SA", {"begun": 2, "answered": 2}),
    "explicit congestion notification": (">SEC <SAE", {"begun": 1, "answered": 1}),
    "a request": (">S <SA >A >PA+", {"begun": 1, "answered": 1, "requests": 1}),
    "a long request": (">S <SA >A >A+ <A >A+ >PA+ <A", {"begun": 1, "answered": 1, "requests": 1}),
    "a request with the ACK": (">S <SA >PA+", {"begun": 1, "answered": 1, "requests": 1}),
    "a reply": (">S <SA >A >PA+ <A <PA+", {"begun": 1, "answered": 1, "requests": 1, "replies": 1}),
    "a long reply": (">S <SA >PA+ <A+ <A+ <PA+ >A", {"begun": 1, "answered": 1, "requests": 1, "replies": 1}),
    "several requests": (">S <SA >PA+ <PA+ >PA+ <PA+ >PA+", {"begun": 1, "answered": 1, "requests": 1, "replies": 1}),
    "an end in place of a reply": (">S <SA >PA+ <FA", {"begun": 1, "answered": 1, "requests": 1, "replies": 1}),
    "a reset in place of a reply": (">S <SA >PA+ <R", {"begun": 1, "answered": 1, "requests": 1, "replies": 1}),
    "a server that speaks first": (">S <SA >A <PA+ >PA+ <PA+", {"begun": 1, "answered": 1}),
    "a client that only closes": (">S <SA >A >FA <FA >A", {"begun": 1, "answered": 1}),
    "a client that closes early": (">S <SA >PA+ >FA <FA", {"begun": 1, "answered": 1, "requests": 1, "replies": 1}),
    "a reset of what was accepted": (">S <SA <R", {"begun": 1, "answered": 1}),
    "one after another": (
        ">S <SA >PA+ <PA+ <FA >FA >S <SA >PA+ <PA+",
        {"begun": 2, "answered": 2, "requests": 2, "replies": 2},
    ),
}


@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)
def test_each_step_of_a_connection_counts_once(net: Net, talk: tuple[str, dict[str, int]]) -> None:
    said, counted = talk
    net.talk(said)
    assert net.counted() == counted


@pytest.mark.parametrize("dress", ["TCP options", "IP options", "802.1Q", "802.1ad", "padding"])
def test_what_a_segment_comes_in_is_no_data(net: Net, dress: str) -> None:
    net.talk(">S <SA >A <A >A", dress)
    assert net.counted() == {"begun": 1, "answered": 1}
    net.talk(">S <SA >A >PA+ <A <PA+ >A <FA >FA", dress)
    assert net.counted() == {"begun": 2, "answered": 2, "requests": 1, "replies": 1}


def test_nothing_is_counted_for_who_is_not_watched(net: Net) -> None:
    """Two VIPs have one server; what is counted is of one of them."""
    net.configure(True, False)
    with net.nothing_counted():
        net.talk(">S <SA >A >PA+ <PA+", vip=1)
        net.talk(">S >S <RA", vip=1)
    net.talk(">S <SA >A >PA+ <PA+", vip=0)
    assert net.counted() == {"begun": 1, "answered": 1, "requests": 1, "replies": 1}


def test_two_vips_of_one_server_are_counted_apart(net: Net) -> None:
    net.configure(True, True)
    net.talk(">S <SA >A >PA+ <PA+", vip=0)
    net.talk(">S <RA", vip=1)
    assert net.counted(0) == {"begun": 1, "answered": 1, "requests": 1, "replies": 1}
    assert net.counted(1) == {"begun": 1, "refused": 1}


def test_connections_from_before_it_was_watched_count_nothing(net: Net) -> None:
    net.configure(False)
    seen = net.to_vip(client := net.client(), "S")
    net.from_server(seen, "SA")
    net.configure(True)
    net.to_vip(client, "PA", data=5)
    net.from_server(seen, "PA", data=5)
    assert net.counted() == {}


def test_a_place_is_counted_anew_for_another_backend(net: Net) -> None:
    net.talk(">S <SA >A >PA+ <PA+")
    net.configure(False)
    net.configure(True)
    assert net.counted() == {}, "watched anew"
    net.talk(">S <SA")
    net.configure()
    net.configure(True)
    assert net.counted() == {}, "another backend"


def test_a_change_of_others_leaves_the_counters(net: Net) -> None:
    net.talk(">S <SA")
    net.configure(True, True)
    assert net.counted() == {"begun": 1, "answered": 1}


def test_packets_that_go_nowhere_count_nothing(net: Net) -> None:
    """Neither a client's nor the server's, whatever becomes of them instead."""
    last = {"ttl" if net.version == 4 else "hlim": 1}
    client = net.client()
    with net.nothing_counted():
        lost = run(net.bed, net.segment(client, "S", **last))
        assert lost.reasons == {"pass_ttl_expired": 1}
        lost = run(net.bed, net.segment(client, "S", mac=OTHER_MAC))
        assert lost.reasons == {"pass_other_host": 1}
        lost = run(net.bed, net.segment(client, "S")[:-8])
        assert lost.reasons == {"drop_malformed": 1}
        net.configure(True, known=False)
        lost = run(net.bed, net.segment(client, "S"))
        assert lost.reasons == {"drop_no_next_hop": 1}
        net.configure(True)
    seen = net.to_vip(client, "S")
    assert net.counted() == {"begun": 1}
    lost = run(net.bed, net.answer(seen, "SA", **last))
    assert lost.reasons == {"pass_ttl_expired": 1}
    lost = run(net.bed, net.answer(seen, "SA")[:-8])
    assert lost.reasons == {"drop_malformed": 1}
    assert net.counted() == {"begun": 1}
    net.from_server(seen, "SA")
    assert net.counted() == {"begun": 1, "answered": 1}


def test_a_request_that_is_too_long_counts_when_it_is_sent_in_parts(net: Net) -> None:
    client = net.client()
    net.from_server(net.to_vip(client, "S"), "SA")
    for size, counted in ((1500, {}), (1000, {"requests": 1})):
        run(net.bed, net.segment(client, "PA", data=size))
        assert net.counted() == {"begun": 1, "answered": 1, **counted}


def test_fragments_are_no_part_of_a_handshake(net: Net) -> None:
    """Of the first one it cannot be said where the datagram ends."""
    client = net.client()
    net.from_server(net.to_vip(client, "S"), "SA")
    assert run(net.bed, net.segment(client, "PA", data=64, dress="fragment")).reasons == {}
    assert net.counted() == {"begun": 1, "answered": 1}
    net.to_vip(client, "PA", data=5)
    assert net.counted() == {"begun": 1, "answered": 1, "requests": 1}


def test_errors_about_a_connection_count_nothing(net: Net) -> None:
    """A router that tells of the way is not the server."""
    client = net.client()
    seen = net.to_vip(client, "S")
    quoted = net.quoted(seen)
    error = (ICMP(type=3, code=1) if net.version == 4 else ICMPv6DestUnreach(code=3)) / Raw(quoted)
    frame = Ether(src=BACKEND_MAC, dst=GATEWAY_MAC) / header(SERVER[net.version].address, seen.address) / error
    assert run(net.bed, bytes(frame)).reasons == {}
    assert net.counted() == {"begun": 1}


# Times


@pytest.mark.parametrize("took", [0, 40, 5_000, 100_000, 10_000_000, 530_000_000])
def test_times_fall_into_their_buckets(net: Net, took: int) -> None:
    """Of a SYN and its answer, of a request and its reply; in microseconds."""
    client = net.client()
    for ask, answer, data, kind, first in (("S", "SA", 0, "times", 16), ("PA", "PA", 1, "reply_times", 256)):
        seen = net.to_vip(client, ask, data)
        before = net.date_back(client, took)
        net.from_server(seen, answer, data)
        spent = microseconds() - before
        found = net.times(kind)
        assert sum(found) == 1
        assert bucket(took, first) <= found.index(1) <= bucket(took + spent, first)


def test_who_asked_twice_tells_no_time(net: Net) -> None:
    """Nobody knows which SYN was answered (RFC 6298, section 3); a reply in the same connection is one."""
    net.talk(">S >S <SA >PA+ <PA+")
    assert (sum(net.times("times")), sum(net.times("reply_times"))) == (0, 1)


@pytest.mark.parametrize("said", [">S <RA", ">S <SA >PA+ <R", ">S <SA >PA+ <FA", ">S <SA <PA+"])
def test_only_replies_tell_the_time_of_replies(net: Net, said: str) -> None:
    net.talk(said)
    assert sum(net.times("reply_times")) == 0
    assert sum(net.times("times")) == said.count("<SA")


# Places


def test_of_two_connections_in_one_place_the_later_counts(net: Net) -> None:
    first, second = net.neighbours()
    seen_first = net.to_vip(first, "S")
    seen_second = net.to_vip(second, "S")
    net.from_server(seen_first, "SA")
    assert net.counted() == {"begun": 2}
    net.from_server(seen_second, "SA")
    assert net.counted() == {"begun": 2, "answered": 1}
    net.to_vip(first, "PA", data=5)
    net.from_server(seen_first, "PA", data=5)
    assert net.counted() == {"begun": 2, "answered": 1}, "it has lost its place"
    net.to_vip(second, "PA", data=5)
    net.from_server(seen_second, "PA", data=5)
    assert net.counted() == {"begun": 2, "answered": 1, "requests": 1, "replies": 1}


def microseconds() -> int:
    """As the program has them."""
    return time.monotonic_ns() // 1000


def bucket(took: int, first: int) -> int:
    """Which one is for less than `first`, twice that and so on; the last for all that is longer."""
    return next((number for number in range(15) if took < first << number), 15)
