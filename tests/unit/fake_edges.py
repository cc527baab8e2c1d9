"""A controller with a datapath that is none: it remembers what it was told, and fails where a test wants it to."""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from l4lb.balance.slots import NOBODY
from l4lb.controller import Controller
from l4lb.datapath.dataplane import Account
from l4lb.datapath.layout import Features
from l4lb.datapath.nexthops import Answer, Unresolved
from l4lb.errors import L4lbError
from l4lb.health.handshakes import Handshakes
from l4lb.health_file import HealthFile
from l4lb.model import Config, IPAddress, IPNetwork, Mode
from l4lb.options import RunOptions
from l4lb.plan import tables
from l4lb.plan.limits import Limits
from l4lb.plan.operations import ClearBackend, WriteTable
from l4lb.plan.planner import Plan, make_plan
from l4lb.plan.records import Image, Region, VipRecord
from l4lb.state import StateFile
from l4lb.view import Interface, Traffic

LIMITS = Limits()


class Edges:
    """Datapath, next hops and addresses in one.

    Attributes:
        steps: what was done, in order.
        broken: the step that fails next, once, with a `fault`.
        also: what happens with a step, once.
        meanwhile: what happens next while somebody waits for interfaces.
        heard: what connections tell of backends.
    """

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.broken = ""
        self.fault: type[Exception] = L4lbError
        self.image = Image()
        self.addresses: set[IPAddress] = set()
        self.watched: set[IPAddress] = set()
        self.vlans = False
        self.tables: dict[Region, bytes] = {}
        self.heard: dict[Account, Handshakes] = {}
        self.also: dict[str, Callable[[], object]] = {}
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    def step(self, name: str) -> None:
        self.steps.append(name)
        self.also.pop(name, lambda: None)()
        if name == self.broken:
            self.broken = ""
            raise self.fault(f"{name} is broken")

    def shares(self) -> dict[str, dict[str, int]]:
        """Slots of backends, by the VIP's and the backend's addresses."""
        found: dict[str, dict[str, int]] = {}
        for number, table in self.image.tables.items():
            slots = Counter(self.read(table.region).table.current)
            found[str(self.image.vips[number].service.address)] = {
                str(self.image.backends[backend].endpoint.address): count
                for backend, count in sorted(slots.items())
                if backend != NOBODY
            }
        return found

    async def watch(self, addresses: Collection[IPAddress]) -> None:
        self.watched = set(addresses)
        self.step("watch")

    async def require(self, features: Features, seed: int) -> None:
        self.features, self.seed = features, seed
        self.step("compile")

    async def reconcile(self, addresses: Collection[IPAddress]) -> None:
        self.addresses = set(addresses)
        self.step("announce")

    def plan(self, config: Config, configured: Config | None = None) -> Plan:
        return make_plan(config, self.image, LIMITS, self.read, 0, configured=configured)

    def read(self, region: Region) -> tables.Contents:
        def lines(first_line: int, length: int) -> bytes:
            start = 64 * (first_line - region.first_line)
            return self.tables[region][start : start + length]

        return tables.decode(lines, region, LIMITS)

    def settling(self) -> list[VipRecord]:
        return []

    def events(self) -> dict[str, int]:
        return {}

    def apply(self, plan: Plan) -> dict[Account, Traffic]:
        gone = {
            (self.image.vips[record.vip], record.endpoint): Traffic(10, 1000, 1, 100)
            for operation in plan.operations
            if isinstance(operation, ClearBackend)
            for record in (self.image.backends[operation.number],)
        }
        self.step("apply")
        self.tables.update((done.region, done.slots) for done in plan.operations if isinstance(done, WriteTable))
        self.image = plan.image
        return gone

    def traffic(self) -> dict[Account, Traffic]:
        return {(self.image.vips[b.vip], b.endpoint): Traffic(5, 500, 0, 0) for b in self.image.backends.values()}

    def open_connections(self) -> dict[Account, int]:
        return {}

    def next_hop(self, address: IPAddress, mode: Mode, source: IPNetwork | None) -> Answer:
        return Unresolved("a test")

    async def interfaces(self) -> tuple[Interface, ...]:
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            await happens()
        return ()

    def handshakes(self) -> dict[Account, Handshakes]:
        return self.heard

    def reasons(self) -> dict[str, int]:
        return {"pass_not_vip": 3}

    @property
    def maps(self) -> "Edges":
        return self


class State(StateFile):
    """A state file that takes part in the order of steps."""

    def __init__(self, path: Path, edges: Edges) -> None:
        super().__init__(path)
        self.edges = edges

    def save(self, config: Config) -> None:
        self.edges.step("save")
        super().save(config)


def controller_of(edges: Edges, folder: Path, config: Config | None = None) -> Controller:
    """A controller on these edges, with its files in a folder."""
    state, health = State(folder / "state.json", edges), HealthFile(folder / "health.json")
    options = RunOptions(("lo",))
    return Controller(options, config or Config(), state, edges, edges, edges, health)  # type: ignore[arg-type]
