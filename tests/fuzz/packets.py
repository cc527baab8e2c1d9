"""What is sent: packets of every kind that may come to a world's VIPs, and answers to what left for its backends."""

import random
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from l4lb.datapath.links import mac_bytes
from l4lb.lab.testbed import CLIENT_MAC, GATEWAY_MAC
from l4lb.model import Backend, Mode, Vip
from tests.fuzz import frames
from tests.fuzz.edge import to_zero
from tests.fuzz.frames import ACK, FIN, PUSH, RST, SYN, Flow, Header
from tests.fuzz.mutate import MOST, mutated
from tests.fuzz.network import CLIENTS
from tests.fuzz.worlds import World
from tests.reference.parse import ICMP, ICMPV6, TCP, UDP, Kind, Packet, parse

MUTATED = 0.45  # of all packets
_EDGES = 0.1  # of all that is forwarded
_KEPT = 48  # flows that answers are made to
_CLIENT_PORTS = (1000, 2000, 3000, 4000, 65_535)
_ETHERNET = mac_bytes(GATEWAY_MAC) + mac_bytes(CLIENT_MAC)
_SIZES = (0, 1, 2, 19, 80, 100, 500, 1180, 1300, 1400, 1440, 1452, 1460, 1472, 1500)
_FLAGS = (SYN, SYN, SYN | ACK, ACK, ACK, PUSH | ACK, PUSH | ACK, FIN | ACK, RST, SYN | FIN)
_ERRORS = {4: ((3, 1), (3, 4), (11, 0), (12, 0)), 6: ((1, 0), (2, 0), (3, 0), (4, 1))}


class Packets:
    """An endless, random stream of frames; `learn` tells it what became of them."""

    def __init__(self, chance: random.Random, world: World) -> None:
        self._chance = chance
        self._world = world
        self._served = [vip for vip in world.vips if vip.backends]
        self._translated: deque[Flow] = deque(maxlen=_KEPT)  # as they left for backends
        self._clients: deque[Flow] = deque(maxlen=_KEPT)  # as they came
        self._last: deque[bytes] = deque(maxlen=_KEPT)
        self._following: list[bytes] = []
        self._ways: list[tuple[Callable[[], list[bytes]], int]] = [
            (self._request, 36),
            (self._answer, 20),
            (self._error_of_client, 8),
            (self._error_of_backend, 10),
            (self._ping, 3),
            (self._fragments, 9),
            (self._fragments_back, 6),
            (self._stranger, 4),
            (self._noise, 2),
            (self._again, 4),
        ]

    def next(self) -> list[bytes]:
        """A few frames that belong together, as fragments do."""
        if self._following:
            return [self._following.pop()]
        (way,) = self._chance.choices([way for way, _ in self._ways], [weight for _, weight in self._ways])
        made = []
        for whole in way():
            frame = mutated(self._chance, whole) if self._chance.random() < MUTATED else whole
            made.append(frame[:MOST])
        self._last.extend(made)
        return made

    def learn(self, frame: bytes, left: bytes) -> None:
        """Takes note of a frame that was forwarded to a backend as `left`."""
        if not left:
            return
        if self._chance.random() < _EDGES:
            again = to_zero(self._chance, frame, left)
            self._following += [again] if again is not None else []
        came, goes = (parse(each, ipv6=True, vlans=True) for each in (frame, left))
        if isinstance(came, Packet) and came.kind in (Kind.PLAIN, Kind.FIRST_FRAGMENT):
            self._clients.append(_flow_of(came))
            if isinstance(goes, Packet) and goes.kind is came.kind and goes.protocol == came.protocol:
                self._translated.append(_flow_of(goes))

    # Where from and where to

    def _vip(self) -> Vip:
        return self._chance.choice(self._world.vips)

    def _client(self, version: int) -> bytes:
        few = self._chance.random()
        clients = CLIENTS[version]
        chosen = clients[0] if few < 0.55 else clients[1] if few < 0.75 else self._chance.choice(clients)
        return chosen.packed

    def _client_port(self) -> int:
        return (
            self._chance.randrange(2_000, 2_000 + self._world.client_ports)
            if self._world.client_ports
            else (self._chance.choice(_CLIENT_PORTS))
        )

    def _to_vip(self, vip: Vip) -> Flow:
        service = vip.service
        port = self._chance.choice(
            (service.first_port, service.last_port, self._chance.randint(service.first_port, service.last_port))
        )
        address = service.address
        return Flow(self._client(address.version), address.packed, self._client_port(), port, vip.protocol)

    def _from_backend(self) -> Flow | None:
        """An answer, to what has left or to what may have."""
        if not self._served:
            return None
        if self._translated and self._chance.random() < 0.7:
            return self._chance.choice(self._translated).back()
        vip = self._chance.choice(self._served)
        backend: Backend = self._chance.choice(vip.backends)
        address, port = backend.endpoint.address, backend.endpoint.port
        to = self._client(address.version), self._client_port()
        if vip.mode is Mode.FULLNAT:
            network = vip.source_for(address)
            first = network.network_address if network is not None else self._world.gateway(address.version)
            to = (first + self._chance.randrange(2)).packed, 16_384 + self._chance.randrange(-2, 258)
        port = port or self._chance.randint(vip.service.first_port - 1 or 1, min(vip.service.last_port + 1, 65_535))
        return Flow(address.packed, to[0], port, to[1], vip.protocol)

    # What it is made of

    def _header(self, version: int) -> Header:
        chance = self._chance
        made = Header(
            ttl=chance.choice((64, 64, 64, 64, 128, 255, 2, 1)),
            traffic_class=chance.choice((0, 0, 2, 0xB8, 3)),
            number=chance.choice((0, 1, 2, 0xBEEF, 0xFFFF)),
            dont_fragment=chance.random() < 0.5,
        )
        if chance.random() < 0.88:
            return made
        if version == 4:
            options = chance.choice((b"\1\1\1\1", b"\1" * 40, b"\x94\4\0\0", b"\x07\x07\4\0\0\0\0\0"))
            return replace(made, options=options)
        chain = chance.choice(
            (
                ((0, b"\0\0\1\4\0\0\0\0"),),
                ((60, b"\0\0\1\4\0\0\0\0"),),
                ((0, b"\0\0\1\4\0\0\0\0"), (60, b"\0\1\1\x0c" + bytes(12))),
                ((43, b"\0\2\0\0" + bytes(20)),),
                ((43, b"\0\2\0\1" + bytes(20)),),
                ((44, b"\0\0\0\0\0\0\0\1"),),  # an atomic fragment
                ((60, b"\0\0\1\4\0\0\0\0"),) * chance.choice((5, 6, 7)),
            )
        )
        return replace(made, extensions=chain)

    def _transport(self, flow: Flow, size: int | None = None) -> bytes:
        chance = self._chance
        payload = chance.randbytes(chance.choice(_SIZES) if size is None else size)
        if flow.protocol == TCP:
            flags = chance.choice(_FLAGS)
            return frames.tcp(flow, flags, self._tcp_options(flags), payload, chance.randrange(1 << 32))
        made = frames.udp(flow, payload)
        return made[:6] + b"\0\0" + made[8:] if chance.random() < 0.15 else made

    def _tcp_options(self, flags: int) -> bytes:
        if not flags & SYN:
            return self._chance.choice((b"", b"\1\1\x08\x0a" + bytes(8)))
        size = struct.pack("!BBH", 2, 4, self._chance.choice((536, 1200, 1201, 1460, 8960, 0xFFFF)))
        options = b"\1" * self._chance.choice((0, 0, 1, 2, 3, 9, 10)) + self._chance.choice((size, size, b"")) + b"\4\2"
        return options + bytes(-len(options) % 4)

    def _framed(self, packet: bytes) -> bytes:
        few = self._chance.random()
        tags = b"" if few > 0.12 else b"\x81\0\0\x07" if few > 0.05 else b"\x88\xa8\x20\x07\x81\0\0\x09"
        return _ETHERNET + tags + frames.ETHER_TYPES[packet[0] >> 4] + packet

    def _packet(self, flow: Flow) -> bytes:
        data = self._transport(flow)
        return frames.ip(flow.source, flow.destination, flow.protocol, data, self._header(flow.version))

    # The kinds

    def _request(self) -> list[bytes]:
        if self._clients and self._chance.random() < 0.4:
            return [self._framed(self._packet(self._chance.choice(self._clients)))]
        return [self._framed(self._packet(self._to_vip(self._vip())))]

    def _answer(self) -> list[bytes]:
        flow = self._from_backend()
        return [self._framed(self._packet(flow))] if flow is not None else []

    def _error(self, about: Flow, sender: bytes) -> list[bytes]:
        chance = self._chance
        quoted = self._packet(about)
        if chance.random() < 0.05:
            quoted = self._cut(about)[chance.choice((0, -1))]
        quoted = quoted[: chance.choice((28, 40, 48, 48, 60, 68, 128, 548, 1232))]
        kind, code = chance.choice(_ERRORS[about.version])
        rest = struct.pack("!I", chance.choice((0, 1280, 1400)))
        message = frames.icmp(sender, about.source, kind, code, rest, quoted)
        protocol = ICMP if about.version == 4 else ICMPV6
        return [self._framed(frames.ip(sender, about.source, protocol, message, self._header(about.version)))]

    def _error_of_client(self) -> list[bytes]:
        """About what a VIP has sent."""
        known = self._clients and self._chance.random() < 0.6
        flow = self._chance.choice(self._clients) if known else self._to_vip(self._vip())
        router = self._client(flow.version)
        return self._error(flow.back(), self._chance.choice((flow.source, router)))

    def _error_of_backend(self) -> list[bytes]:
        """About what a backend has got."""
        answer = self._from_backend()
        if answer is None:
            return []
        router = self._client(answer.version)
        return self._error(answer.back(), self._chance.choice((answer.source, router)))

    def _ping(self) -> list[bytes]:
        address = self._vip().service.address
        destination = self._chance.choice((address, address, address + 100)).packed
        source = self._client(address.version)
        kind = 8 if address.version == 4 else 128
        message = frames.icmp(
            source, destination, kind, 0, b"\0\1\0\2", self._chance.randbytes(self._chance.randrange(70))
        )
        protocol = ICMP if address.version == 4 else ICMPV6
        return [self._framed(frames.ip(source, destination, protocol, message, self._header(address.version)))]

    def _cut(self, flow: Flow) -> list[bytes]:
        chance = self._chance
        data = self._transport(flow, chance.choice((200, 900, 1600)))
        header = self._header(flow.version)
        number = chance.randrange(4) << chance.choice((0, 8, 24 if flow.version == 6 else 8))
        pieces = frames.fragments(data, chance.choice((8, 64, 400, 800)) if chance.random() < 0.3 else 800, number)
        return [
            frames.ip(flow.source, flow.destination, flow.protocol, piece, replace(header, fragment=where))
            for piece, where in pieces[:6]
        ]

    def _fragmented(self, flow: Flow) -> list[bytes]:
        made = [self._framed(packet) for packet in self._cut(flow)]
        if self._chance.random() < 0.3:
            self._chance.shuffle(made)
        if self._chance.random() < 0.2:
            made.pop()
        return made

    def _fragments(self) -> list[bytes]:
        return self._fragmented(self._to_vip(self._vip()))

    def _fragments_back(self) -> list[bytes]:
        flow = self._from_backend()
        return self._fragmented(flow) if flow is not None else []

    def _stranger(self) -> list[bytes]:
        """What is nobody's: other ports, other protocols, other EtherTypes."""
        chance = self._chance
        vip = self._vip()
        flow = self._to_vip(vip)
        which = chance.randrange(4)
        if which == 0:
            return [self._framed(self._packet(replace(flow, destination_port=chance.choice((7, 0, 65_535)))))]
        if which == 1:
            return [self._framed(self._packet(replace(flow, protocol=TCP + UDP - flow.protocol)))]
        if which == 2:
            protocol = chance.choice((2, 47, 50, 89, 132))
            header = self._header(flow.version)
            if chance.random() < 0.5:
                header = replace(header, fragment=(chance.choice((0, 8, 800)), chance.random() < 0.5, 3))
            return [self._framed(frames.ip(flow.source, flow.destination, protocol, chance.randbytes(40), header))]
        return [_ETHERNET + chance.choice((b"\x08\x06", b"\x88\xcc", b"\x00\x26")) + chance.randbytes(46)]

    def _noise(self) -> list[bytes]:
        """Random bytes, from some place on."""
        chance = self._chance
        frame = self._request()[0]
        known = chance.choice((0, 12, 14, 15, 34, 38, 54))
        return [(frame[:known] + chance.randbytes(chance.choice((14, 60, 300)))).ljust(14, b"\0")]

    def _again(self) -> list[bytes]:
        return [self._chance.choice(self._last)] if self._last else []


def _flow_of(packet: Packet) -> Flow:
    return Flow(packet.source, packet.destination, packet.source_port, packet.destination_port, packet.protocol)
