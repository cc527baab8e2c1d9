"""Connections in a server's pool of places: for fullnat, and where an answer's source does not tell whose it is."""

from dataclasses import dataclass, field

from l4lb.balance.flowhash import flow_tag
from l4lb.model import Endpoint, Mode
from tests.reference.parse import TCP, Kind, Packet
from tests.reference.services import Server, Services, Target, address_of
from tests.reference.world import World

PROBES = 8
FIRST_PORT, PORTS = 16_384, 16_384  # that fullnat sends from, per address
TICKS = 0xFFFFFF  # what is kept of a tick

BEGUN, OPEN, CLOSING, CLOSED = 1, 2, 3, 4
_LONGEST = {BEGUN: 60, CLOSING: 60, CLOSED: 10}  # ticks of silence
_FREE, _OVER = 1 << 33, 1 << 32  # preferred to any that lives

_FIN, _SYN, _RST = 1, 2, 4


@dataclass(slots=True)
class Connection:
    """A client's connection to a backend; `seen` is the tick of its last packet."""

    client: tuple[bytes, int]
    service_port: int
    target: Target
    seen: int
    state: int = BEGUN

    def is_over(self, now: int) -> bool:
        """Whether it has been silent for too long, by its own VIP's measure."""
        idle = (self.target.vip.idle_timeout * 10**9 >> 30) + 1
        return self.silent(now) > min(idle, _LONGEST.get(self.state, idle))

    def silent(self, now: int) -> int:
        """For how many ticks."""
        return now - self.seen & TICKS

    def touch(self, packet: Packet, now: int) -> None:
        """Takes note of a packet of it, either way."""
        self.seen = now
        flags = packet.tcp_flags
        if packet.kind is Kind.ERROR:
            return
        if flags is None:
            flags = 0
        if flags & _RST:
            self.state = CLOSED
        elif self.state in (CLOSING, CLOSED) and packet.protocol == TCP and packet.begins:
            self.state = BEGUN  # the port was used again; either side may begin (RFC 6146 §3.5.2.2)
        elif flags & _FIN and not flags & _SYN and self.state != CLOSED:
            self.state = CLOSING
        elif self.state == BEGUN and not flags & _SYN:
            self.state = OPEN


@dataclass(slots=True)
class Pool:
    """Places for the connections to one server, a power of two of them."""

    size: int
    places: dict[int, Connection] = field(default_factory=dict)


class Pools:
    """The pools of all servers that need one."""

    def __init__(self, world: World, services: Services) -> None:
        self._world = world
        self._numbers = world.numbers or {vip.name: number for number, vip in enumerate(world.config.vips)}
        self._pools: dict[Server, Pool] = {server: Pool(size) for server, size in services.pool_sizes.items()}

    def place(self, packet: Packet, target: Target) -> tuple[int, Connection] | str:
        """The place and connection of a packet to a backend, new if it begins; or the reason why there is none."""
        pool, now = self._pools[target.server], self._world.now()
        client = (packet.source, packet.source_port)
        best, best_silence = 0, 0
        for place in _probed(pool, self._search_hash(packet, target, client)):
            connection = pool.places.get(place)
            if connection is None:
                silence = _FREE
            elif connection.is_over(now):
                silence = _OVER
            elif (
                connection.client == client
                and connection.target is target
                and connection.service_port == packet.destination_port
            ):
                connection.touch(packet, now)
                return place, connection
            elif connection.client == client and target.shared:
                return "drop_no_port"  # the server could not tell them apart
            else:
                silence = 1 + connection.silent(now) if connection.state == BEGUN else 0
            if silence > best_silence:
                best, best_silence = place, silence
        begins = packet.begins or (target.vip.mode is Mode.NAT and packet.kind is not Kind.ERROR)
        if not begins:
            return "drop_no_connection"
        if not best_silence:
            return "drop_no_port"
        connection = Connection(client, packet.destination_port, target, now)
        pool.places[best] = connection
        return best, connection

    def at(self, target: Target, place: int) -> Connection | None:
        """The connection at a place."""
        return self._pools[target.server].places.get(place)

    def answered(self, packet: Packet, target: Target) -> tuple[int, Connection] | None:
        """The place and connection that an answer belongs to."""
        pool, now = self._pools[target.server], self._world.now()
        client = (packet.destination, packet.destination_port)
        places = _probed(pool, self._hash(client, 0)) if target.shared else _addressed(packet, target, pool)
        for place in places:
            connection = pool.places.get(place)
            if connection is None or connection.is_over(now) or (target.shared and connection.client != client):
                continue
            connection.touch(packet, now)
            return place, connection
        return None

    def _search_hash(self, packet: Packet, target: Target, client: tuple[bytes, int]) -> int:
        """What the places are made from that are looked at. By nat an answer's client has to be enough to find them."""
        if target.shared:
            return self._hash(client, 0)
        flow = self._hash(client, packet.destination_port)
        return flow_tag(flow, self._numbers[target.vip.name], self._world.constants)

    def _hash(self, client: tuple[bytes, int], port: int) -> int:
        return self._world.flow_hash64(Endpoint(address_of(client[0]), client[1]), port)


def _probed(pool: Pool, hash64: int) -> list[int]:
    """Double hashing: the upper half is where to begin, the lower one, made odd, how far to go each time."""
    step = hash64 & 0xFFFFFFFF | 1
    return [(hash64 >> 32) + probe * step & pool.size - 1 for probe in range(PROBES)]


def _addressed(packet: Packet, target: Target, pool: Pool) -> list[int]:
    """The place that an answer's destination stands for, if it is one of the pool's."""
    if not target.source or packet.destination[:-4] != target.source[:-4]:
        return []
    number = int.from_bytes(packet.destination[-4:], "big") - int.from_bytes(target.source[-4:], "big")
    offset = packet.destination_port - FIRST_PORT
    place = number * PORTS + offset
    return [place] if number >= 0 and 0 <= offset < PORTS and place < pool.size else []


def source_at(target: Target, place: int) -> tuple[bytes, int]:
    """Address and port that fullnat sends from for a place."""
    last = int.from_bytes(target.source[-4:], "big") + place // PORTS & 0xFFFFFFFF
    return target.source[:-4] + last.to_bytes(4, "big"), FIRST_PORT + place % PORTS
