"""The packet's way: the checks in their order, each with the reason for which it ends a packet's way."""

from l4lb.health.rules import NoneLeft
from l4lb.model import Endpoint, Mode, Protocol
from tests.reference import answer
from tests.reference.connections import Connection, Pools, source_at
from tests.reference.fragments import Fragments, Place
from tests.reference.leave import Exit, exit_by, is_addressed_to_us
from tests.reference.mss import clamp
from tests.reference.parse import Kind, Packet, is_sound, parse
from tests.reference.services import Owner, Services, Target, address_of, longest
from tests.reference.translate import Translation, emptied, translated
from tests.reference.tunnel import encapsulated
from tests.reference.world import Hop, Outcome, Verdict, Way, World, ended


class Reference:
    """What the program does with each packet. It keeps, as the program does, fragments and connections."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._services = Services(world)
        self._pools = Pools(world, self._services)
        self._fragments = Fragments(world)
        switches = world.switches
        self._ipv6, self._vlans = "IPV6" in switches, "VLAN" in switches
        self._echo = world.echo
        self._routes: dict[bytes, Hop | str] = {}

    def run(self, frame: bytes, ingress: int) -> Outcome:
        """What becomes of a frame that comes in by an interface."""
        packet = parse(frame, ipv6=self._ipv6, vlans=self._vlans)
        if isinstance(packet, str):
            return ended(packet, frame)
        if packet.kind is Kind.ECHO:
            return self._echo_request(packet, ingress)
        owner = self._identify(packet, ingress)
        if isinstance(owner, Outcome):
            return owner
        if isinstance(owner, str):
            return ended(owner, frame)
        if owner.way == "to_vip":
            return self._to_backend(packet, owner, ingress)
        return self._to_client(packet, owner, ingress)

    def _judge(self, packet: Packet, ingress: int) -> str | None:
        """The reason for which a packet that would be ours is not."""
        if not is_addressed_to_us(packet.frame, self.world.ports.get(ingress)):
            return "pass_other_host"
        return None if is_sound(packet) else "drop_malformed"

    def _echo_request(self, packet: Packet, ingress: int) -> Outcome:
        if not self._echo or packet.destination not in self._services.addresses:
            return ended("pass_not_tcp_udp", packet.frame)
        reason = self._judge(packet, ingress)
        if reason is None and not answer.is_host(packet.source):
            reason = "pass_not_tcp_udp"
        if reason is not None:
            return ended(reason, packet.frame)
        return ended("answer_echo", answer.echo_reply(packet), ingress)

    # Whose it is

    def _identify(self, packet: Packet, ingress: int) -> Owner | Outcome | str:
        if packet.kind is Kind.LATER_FRAGMENT:
            return self._identify_fragment(packet, ingress)
        vip = self._services.vip_at(packet.destination, packet.destination_port, packet.protocol)
        if vip is None:
            return self._identify_answer(packet, ingress)
        reason = self._judge(packet, ingress)
        if reason is not None:
            return reason
        client = Endpoint(address_of(packet.source), packet.source_port)
        chosen = self.world.choose(vip, client, packet.destination_port, Protocol(packet.protocol), packet.begins)
        if chosen is None:
            return self._refused(packet, ingress) if vip.spread.none_left is NoneLeft.REJECT else "drop_no_backend"
        owner = Owner(self._services.target(vip, chosen), "to_vip", packet.destination_port)
        if packet.kind is Kind.FIRST_FRAGMENT:
            self._fragments.remember(packet, "to_vip", owner.target)
        return owner

    def _refused(self, packet: Packet, ingress: int) -> Outcome | str:
        """What a client is told whose packet no backend takes."""
        told: bytes | None = None
        if packet.protocol == Protocol.TCP:
            told = self._reset(packet)
        elif (
            packet.kind is Kind.PLAIN
            and answer.is_host(packet.source)
            and packet.transport == packet.ip + (40 if packet.v6 else 20)
            and self.world.may_answer()
        ):
            told = answer.unreachable(packet)
        return ended("answer_refused", told, ingress) if told is not None else "drop_no_backend"

    def _reset(self, packet: Packet) -> bytes | None:
        """The end of a connection, if its segment may be answered."""
        may_be = packet.kind is Kind.PLAIN and answer.is_host(packet.source)
        return answer.reset(packet) if may_be else None

    def _identify_answer(self, packet: Packet, ingress: int) -> Owner | str:
        target = self._services.answering(packet.source, packet.source_port, packet.protocol)
        if target is None:
            return "pass_not_vip"
        place: Place | None = None
        if target.by_connection:
            found = self._pools.answered(packet, target)
            if found is not None:
                place = Place(*found)
                target = place.connection.target
            elif target.vip.mode is Mode.FULLNAT:
                return "pass_not_vip"  # the gateway's own, as its probes are
        reason = self._judge(packet, ingress)
        if reason is not None:
            return reason
        if place is None and target.endpoint.port and not target.vip.service.is_single:
            return "drop_no_connection"  # nothing tells the port that the client knows
        if packet.kind is Kind.FIRST_FRAGMENT:
            self._fragments.remember(packet, "from_backend", target)
            if place is not None and target.vip.mode is Mode.FULLNAT:
                self._fragments.remember_place(packet, "from_backend", place)
        return _answer_of(target, place.connection if place is not None else None, packet.source_port)

    def _identify_fragment(self, packet: Packet, ingress: int) -> Owner | str:
        owner = self._recalled(packet, "to_vip") or self._recalled(packet, "from_backend")
        if owner is None and not (packet.is_flow and packet.destination in self._services.addresses):
            return "pass_fragment"
        reason = self._judge(packet, ingress)
        if reason is not None:
            return reason
        if owner is None:
            return "drop_fragment"
        return self._placed(packet, owner) if owner.target.vip.mode is Mode.FULLNAT else owner

    def _recalled(self, packet: Packet, way: Way) -> Owner | None:
        target = self._fragments.recall(packet, way)
        return Owner(target, way) if target is not None else None

    def _placed(self, packet: Packet, owner: Owner) -> Owner | str:
        """A later fragment by fullnat goes with the connection of its first one."""
        place = self._fragments.recall_place(packet, owner.way)
        if owner.way == "to_vip":
            owner.place = place.number if place is not None else None
            return owner if place is not None else "drop_fragment"
        if place is None or self._pools.at(owner.target, place.number) is not place.connection:
            return "pass_fragment"  # it may be the gateway's own
        owner.client = place.connection.client
        return owner

    # From a client to a backend

    def _to_backend(self, packet: Packet, owner: Owner, ingress: int) -> Outcome:
        target = owner.target
        vip, frame = target.vip, bytearray(packet.frame)
        if target.hop is None:
            return ended("drop_no_next_hop", packet.frame)
        if vip.mode is not Mode.DSR and packet.ttl <= 1:
            return ended("pass_ttl_expired", packet.frame)
        if packet.total > target.room:
            return self._too_big(packet, target.room, ingress)
        way = exit_by(self.world, target.hop, ingress)
        if way is None:
            return ended("drop_no_egress", packet.frame)
        clamp(packet, frame, vip.mss)
        if target.by_connection and packet.kind is not Kind.LATER_FRAGMENT:
            found = self._pools.place(packet, target)
            if found == "drop_no_connection" and packet.protocol == Protocol.TCP:
                told = self._reset(packet)
                return ended("answer_reset", told, ingress) if told is not None else ended(found, packet.frame)
            if isinstance(found, str):
                return ended(found, packet.frame)
            place = Place(*found)
            if vip.mode is Mode.FULLNAT:
                owner.place = place.number
                if packet.kind is Kind.FIRST_FRAGMENT:
                    self._fragments.remember_place(packet, "to_vip", place)
        if vip.mode.tunnels:
            outer, v6 = encapsulated(packet, target, self._flow(packet), frame)
            return self._forwarded(owner, way, way.frame(outer, v6), ingress)
        if vip.mode.translates:
            destination = target.address, target.endpoint.port or packet.destination_port
            source = source_at(target, owner.place) if owner.place is not None else None
            translated(packet, Translation(source, destination, any_source=True), frame)
        return self._forwarded(owner, way, way.frame(bytes(frame[packet.ip :]), packet.v6), ingress)

    def _flow(self, packet: Packet) -> int:
        """The hash of a packet's flow; of a later fragment, that of its source."""
        return self.world.flow_hash64(Endpoint(address_of(packet.source), packet.source_port), packet.destination_port)

    # From a backend to a client

    def _to_client(self, packet: Packet, owner: Owner, ingress: int) -> Outcome:
        vip, frame = owner.target.vip, bytearray(packet.frame)
        client = owner.client[0] if owner.client is not None else packet.destination
        if packet.ttl <= 1:
            return ended("pass_ttl_expired", packet.frame)
        hop = self._route(client)
        if hop == "pass_resolve_neighbour":
            return ended(hop, emptied(packet, client))
        if isinstance(hop, str):
            return ended(hop, packet.frame)
        way = exit_by(self.world, hop, ingress)
        if way is None:
            return ended("drop_no_egress", packet.frame)
        most = longest(hop, way.mtu)
        if packet.total > most:
            # By fullnat the kernel would take it for its own, and reset the connection.
            if vip.mode is Mode.FULLNAT:
                return self._too_big(packet, most, ingress)
            if packet.may_fragment:
                return ended("drop_too_big", packet.frame)
            return ended("pass_too_big", packet.frame)
        clamp(packet, frame, vip.mss)
        source = vip.service.address.packed, owner.service_port
        translated(packet, Translation(source, owner.client), frame)
        return self._forwarded(owner, way, way.frame(bytes(frame[packet.ip :]), packet.v6), ingress)

    def _route(self, client: bytes) -> Hop | str:
        if not self.world.forwarding:
            return "drop_forwarding_off"
        hop = self._routes.get(client)
        if hop is None:
            hop = self._routes[client] = self.world.route(address_of(client))
        return hop

    # The ends

    def _too_big(self, packet: Packet, mtu: int, ingress: int) -> Outcome:
        if not answer.may_be_told(packet) or not self.world.may_answer():
            return ended("drop_too_big", packet.frame)
        return ended("answer_too_big", answer.too_big(packet, mtu), ingress)

    def _forwarded(self, owner: Owner, way: Exit, frame: bytes, ingress: int) -> Outcome:
        verdict: Verdict = "tx" if way.egress == ingress else "redirect"
        target = owner.target
        return Outcome(verdict, None, frame, target.endpoint, target.vip.name, owner.way, way.egress)


def _answer_of(target: Target, connection: Connection | None, port: int) -> Owner:
    """Whose an answer is that came from a port: it leaves from the port that the client connected to."""
    service = target.vip.service
    owner = Owner(target, "from_backend", service.first_port if target.endpoint.port else port)
    if connection is not None:
        owner.service_port = connection.service_port
        if target.vip.mode is Mode.FULLNAT:
            owner.client = connection.client
    return owner
