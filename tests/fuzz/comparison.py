"""Program and reference side by side on one packet after another."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from l4lb.balance.flowhash import flow_hash64, seeds
from l4lb.datapath import bpf
from l4lb.datapath.links import TAG_8021AD, Link, mac_bytes
from l4lb.datapath.nexthops import NextHop
from l4lb.lab.testbed import GATEWAY_MAC, LOOPBACK, Testbed, hop
from l4lb.model import Config, IPAddress, Vip
from tests.fuzz import network
from tests.fuzz.choice import Choice
from tests.fuzz.maps import Account, Counters, Memory, tick
from tests.fuzz.worlds import World
from tests.packet.harness import SEED
from tests.reference import Hop, Outcome, Port, Reference
from tests.reference import World as Surroundings
from tests.reference.parse import Kind, Packet, parse
from tests.reference.world import Verdict, Way

BACKEND_MAC = "02:00:00:00:00:04"
VLAN, STACKED, NOWHERE = 40, 41, 50  # interface indexes; the last one is none of ours
_ROUTER = next(iter(network.CLIENTS[4]))  # whichever: only that there is one matters
_SMALL = 1_300
_VERDICTS: dict[int, Verdict] = {1: "drop", 2: "pass", 3: "tx", 4: "redirect"}
_ANSWERS_BETWEEN = 128  # packets until the limit on answers is lifted again, which is higher

Step = bytes | int
"""A frame, or how many ticks pass."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A packet that program and reference do not agree on; both as text."""

    frame: bytes
    expected: str
    found: str
    kind: tuple[str, str]


class Comparison:
    """A world in a testbed, made by :func:`compared`.

    Attributes:
        packets: how many there were.
        resets: how often both forgot everything.
        coverage: how often each reason, and each (mode, families, kind of packet, way), came up.
    """

    def __init__(self, bed: Testbed, world: World, files: ExitStack) -> None:
        self.packets = self.resets = 0
        self.coverage: Counter[str] = Counter()
        self.bed = bed
        self._world = world
        self._memory = Memory(bed, files)
        self._counters = Counters(bed, files)
        config = Config(world.vips, SEED)
        constants = seeds(SEED)
        self._vips = {vip.name: vip for vip in world.vips}
        choice = Choice(bed, config, constants, self._program, self.coverage)
        self._numbers = {(record.vip, record.endpoint): number for number, record in bed.image.backends.items()}
        self._vip_numbers = choice.numbers
        ours = set(bed.maps.ports())
        self._surroundings = Surroundings(
            config,
            {
                index: Port(link.mac, link.mtu, link.parent, link.tags)
                for index, link in bed.links.items()
                if index in ours
            },
            {
                address: Hop(way.ifindex, way.mac, way.mtu, way.source, way.router is not None)
                for address, way in _next_hops(world, bed.wan).items()
            },
            network.Routes(bed.wan),
            choice,
            lambda client, port: flow_hash64(client, port, constants),
            features=world.features,
            forwarding=world.forwarding,
            now=lambda: self._now + self._passed,
            fragment_lines=bed.limits.fragment_lines,
            constants=constants,
            numbers=choice.numbers,
        )
        self._now, self._passed = tick(), 0
        self._frame, self._run = b"", bpf.PacketRun(0, b"", 0)
        self._has_run = False
        self._outcome: Outcome | None = None
        self._ledger = Counter({account: self._counters.packets(account) for account in self._counters.accounts})
        self._bytes = Counter({account: self._counters.bytes(account) for account in self._counters.accounts})
        self._packets_before = sum(self._ledger.values())
        self._reference = Reference(self._surroundings)
        self.reset()

    def reset(self) -> None:
        """Both forget all that they remember of packets."""
        self.resets += 1
        self._memory.empty()
        self._reference = Reference(self._surroundings)
        self._passed = 0

    def step(self, step: Step) -> Difference | None:
        """Lets time pass, or both have a frame."""
        if isinstance(step, int):
            self._memory.age(step)
            self._passed += step
            return None
        return self._packet(step)

    def shown(self) -> str:
        """What became of the last frame, as the reference says."""
        return _shown(self._outcome) if self._outcome is not None else ""

    def left(self) -> bytes:
        """The last frame as it left, if it was forwarded to a backend; else nothing."""
        outcome = self._outcome
        return outcome.frame if outcome is not None and outcome.reason is None and outcome.way == "to_vip" else b""

    def _program(self) -> bpf.PacketRun:
        """Runs the program on the frame, once."""
        if not self._has_run:
            self._has_run = True
            self._run = self.bed.send(self._frame)
        return self._run

    def _packet(self, frame: bytes) -> Difference | None:
        if self.packets % _ANSWERS_BETWEEN == 0:
            self._memory.allow_answers()
        self.packets += 1
        self._frame, self._has_run, self._now, self._outcome = frame, False, tick(), None
        try:
            self._outcome = self._reference.run(frame, LOOPBACK)
        except Exception as error:  # whatever it is, the packet that does it is what is wanted
            expected = f"the reference fails: {error!r}"
        else:
            expected = _shown(self._outcome)
        run, outcome = self._program(), self._outcome
        if outcome is not None and self._agrees(outcome, run):
            account = self._account(outcome)
            self._charge(account, frame)
            self.coverage.update(self._features(frame, outcome))
            difference = None
        else:
            account = self._charged()
            difference = Difference(
                frame,
                expected,
                f"{_VERDICTS.get(run.verdict, run.verdict)} {account}\n    {run.packet.hex()}",
                (outcome.reason or "forwarded" if outcome is not None else "failure", _kind_of(account)),
            )
        if tick() != self._now:
            # A tick has passed between the two, or may have: what they remember of the packet may be different.
            self.reset()
            return None
        return difference

    def _agrees(self, outcome: Outcome, run: bpf.PacketRun) -> bool:
        """Whether the program did as the reference says; what a dropped packet looks like does not matter."""
        account = self._account(outcome)
        return (
            _VERDICTS.get(run.verdict) == outcome.verdict
            and (outcome.verdict == "drop" or run.packet == outcome.frame)
            and self._counters.packets(account) == self._ledger[account] + 1
        )

    # Who is charged

    def _account(self, outcome: Outcome) -> Account:
        if outcome.reason is not None or outcome.vip is None or outcome.backend is None or outcome.way is None:
            return outcome.reason or "none"
        return self._numbers[self._vip_numbers[outcome.vip], outcome.backend], outcome.way

    def _charge(self, account: Account, frame: bytes) -> None:
        self._ledger[account] += 1
        if not isinstance(account, str):
            self._bytes[account] += len(frame)

    def _charged(self) -> Account:
        """Whom the program charged the last packet to, if that was one; the ledger follows."""
        changed = [
            account for account in self._counters.accounts if self._counters.packets(account) != self._ledger[account]
        ]
        for account in changed:
            self._ledger[account] = self._counters.packets(account)
            self._bytes[account] = self._counters.bytes(account)
        return changed[0] if len(changed) == 1 else f"{len(changed)} counters: {changed}"

    def audit(self) -> list[str]:
        """What is wrong with the counters, after any number of packets: each packet has to be in one of them."""
        wrong = [
            f"{account}: {self._counters.packets(account):,} packets and {self._counters.bytes(account):,} bytes"
            f" counted instead of {self._ledger[account]:,} and {self._bytes[account]:,}"
            for account in self._counters.accounts
            if (self._counters.packets(account), self._counters.bytes(account))
            != (self._ledger[account], self._bytes[account])
        ]
        counted = sum(map(self._counters.packets, self._counters.accounts)) - self._packets_before
        return wrong + ([f"{counted:,} packets counted of {self.packets:,}"] if counted != self.packets else [])

    def _features(self, frame: bytes, outcome: Outcome) -> list[str]:
        """What a packet counts for in :attr:`coverage`."""
        if outcome.reason is not None:
            return [outcome.reason]
        packet = parse(frame, ipv6=True, vlans=True)
        if not isinstance(packet, Packet) or outcome.vip is None or outcome.backend is None or outcome.way is None:
            return []
        vip = self._vips[outcome.vip]
        found = [covered(vip, outcome.backend.address, packet.kind, outcome.way), outcome.verdict]
        if outcome.way == "to_vip":
            found.append(f"scheduler {vip.scheduler}")
        return found


def covered(vip: Vip, backend: IPAddress, kind: Kind, way: Way) -> str:
    """What the forwarding of a packet is called in the coverage."""
    label = kind.name.lower().replace("_", " ")
    return f"{vip.mode} IPv{vip.service.address.version} by IPv{backend.version} {vip.protocol.label} {label} {way}"


def _kind_of(account: Account) -> str:
    return account if isinstance(account, str) else "forwarded"


def _shown(outcome: Outcome) -> str:
    reason = outcome.reason or f"forwarded for {outcome.vip}, backend {outcome.backend}, {outcome.way}"
    return f"{outcome.verdict} {reason}\n    {outcome.frame.hex()}"


def _next_hops(world: World, wan: int) -> dict[IPAddress, NextHop]:
    interfaces = {"wan": wan, "vlan": VLAN, "stacked": STACKED, "nowhere": NOWHERE, "": LOOPBACK}
    found = {}
    for vip in (*world.before, *world.vips):
        for backend in vip.backends:
            address = backend.endpoint.address
            if address in world.lost:
                continue
            interface = interfaces[world.leaves_by.get(address, "")]
            made = hop(interface, BACKEND_MAC, _SMALL if address in world.small else 0, address.version)
            found[address] = replace(made, router=_ROUTER if address in world.routed else None)
    return found


@contextmanager
def compared(bed: Testbed, world: World) -> Iterator[Comparison]:
    """Configures a testbed, whose namespace the calling thread is in, for a world; afterwards it is empty again."""
    with ExitStack() as stack:
        network.prepare(bed)
        network.set_forwarding(world.forwarding)
        stack.callback(network.set_forwarding, True)
        if "VLAN" in world.features:
            for index, tags in ((VLAN, (5,)), (STACKED, (TAG_8021AD | 5, 6))):
                bed.set_port(f"lo.{index}", index, LOOPBACK, tags)
                stack.callback(bed.links.pop, index)
                stack.callback(bed.maps.clear_port, index)
        bed.links[NOWHERE] = Link("nowhere", NOWHERE, mac_bytes(GATEWAY_MAC), 0xFFFF, True, NOWHERE)
        stack.callback(bed.links.pop, NOWHERE)
        stack.callback(bed.configure, Config((), SEED), {})
        next_hops = _next_hops(world, bed.wan)
        if world.before:
            bed.configure(Config(world.before, SEED), next_hops)
        bed.configure(Config(world.vips, SEED), next_hops)
        yield Comparison(bed, world, stack)
