"""The controller's order of things, with a datapath that remembers what it was told."""

import asyncio
from collections.abc import Collection
from pathlib import Path

import pytest

from l4lb.balance.slots import Table
from l4lb.daemon import Controller
from l4lb.datapath.layout import Features
from l4lb.datapath.nexthops import Answer, Unresolved
from l4lb.errors import L4lbError
from l4lb.model import Config, Endpoint, IPAddress, IPNetwork, Mode
from l4lb.options import RunOptions
from l4lb.plan.limits import Limits
from l4lb.plan.operations import ClearBackend
from l4lb.plan.planner import Plan, make_plan
from l4lb.plan.records import Image, Region, VipRecord
from l4lb.plan.tables import Contents
from l4lb.state import StateFile
from l4lb.view import Interface, Traffic

WEB = {"name": "web", "address": "192.0.2.10:80", "protocol": "tcp", "mode": "dsr"}
B1 = {"vip": "web", "address": "10.0.0.1"}


class Edges:
    """Datapath, next hops and addresses in one; fails at the step named by `broken`."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.broken = ""
        self.image = Image()
        self.addresses: set[IPAddress] = set()
        self.watched: set[IPAddress] = set()
        self.vlans = False

    def step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.broken:
            self.broken = ""
            raise L4lbError(f"{name} is broken")

    async def watch(self, addresses: Collection[IPAddress]) -> None:
        self.watched = set(addresses)
        self.step("watch")

    async def require(self, features: Features, seed: int) -> None:
        self.features = features
        self.step("compile")

    async def reconcile(self, addresses: Collection[IPAddress]) -> None:
        self.addresses = set(addresses)
        self.step("announce")

    def plan(self, config: Config) -> Plan:
        return make_plan(config, self.image, Limits(), self.read, 0)

    def read(self, region: Region) -> Contents:
        return Contents(Table.settled([0] * region.slots))

    def settling(self) -> list[VipRecord]:
        return []

    def events(self) -> dict[str, int]:
        return {}

    def apply(self, plan: Plan) -> dict[tuple[VipRecord, Endpoint], Traffic]:
        gone = {
            (self.image.vips[record.vip], record.endpoint): Traffic(10, 1000, 1, 100)
            for operation in plan.operations
            if isinstance(operation, ClearBackend)
            for record in (self.image.backends[operation.number],)
        }
        self.step("apply")
        self.image = plan.image
        return gone

    def traffic(self) -> dict[tuple[VipRecord, Endpoint], Traffic]:
        return {(self.image.vips[b.vip], b.endpoint): Traffic(5, 500, 0, 0) for b in self.image.backends.values()}

    def open_connections(self) -> dict[tuple[VipRecord, Endpoint], int]:
        return {}

    def next_hop(self, address: IPAddress, mode: Mode, source: IPNetwork | None) -> Answer:
        return Unresolved("a test")

    async def interfaces(self) -> tuple[Interface, ...]:
        return ()

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


@pytest.fixture
def edges() -> Edges:
    return Edges()


@pytest.fixture
def controller(edges: Edges, tmp_path: Path) -> Controller:
    state = State(tmp_path / "state.json", edges)
    return Controller(RunOptions(("lo",)), Config(), state, edges, edges, edges)  # type: ignore[arg-type]


def do(controller: Controller, *requests: tuple[str, dict[str, object]]) -> object:
    async def all_of_them() -> object:
        result = None
        for operation, arguments in requests:
            result = await controller.handle(operation, arguments)
        return result

    return asyncio.run(all_of_them())


def test_a_change_is_compiled_then_saved_then_applied(controller: Controller, edges: Edges) -> None:
    do(controller, ("vip.add", WEB))
    assert edges.steps == ["watch", "compile", "announce", "save", "apply"]


def test_a_refused_change_touches_nothing(controller: Controller, edges: Edges) -> None:
    with pytest.raises(L4lbError):
        do(controller, ("backend.add", B1))
    assert edges.steps == []


def test_a_change_that_changes_nothing_touches_nothing(controller: Controller, edges: Edges) -> None:
    do(controller, ("vip.add", WEB))
    edges.steps.clear()
    do(controller, ("vip.set", {"name": "web", "mode": "dsr"}))
    assert edges.steps == []


@pytest.mark.parametrize("broken", ["watch", "compile", "announce", "save", "apply"])
def test_a_change_that_fails_half_way_is_taken_back(
    controller: Controller, edges: Edges, tmp_path: Path, broken: str
) -> None:
    do(controller, ("vip.add", WEB), ("backend.add", B1))
    before = edges.image, edges.addresses, edges.watched, do(controller, ("vip.list", {}))
    saved = (tmp_path / "state.json").read_bytes()
    edges.broken = broken
    with pytest.raises(L4lbError, match=f"{broken} is broken"):
        do(controller, ("vip.add", {**WEB, "name": "other", "address": "192.0.2.11:80"}))
    assert (edges.image, edges.addresses, edges.watched, do(controller, ("vip.list", {}))) == before
    assert (tmp_path / "state.json").read_bytes() == saved
    do(controller, ("vip.add", {**WEB, "name": "other", "address": "192.0.2.11:80"}))


def test_a_vips_sum_keeps_what_removed_backends_carried(controller: Controller) -> None:
    do(controller, ("vip.add", WEB), ("backend.add", B1), ("backend.add", {**B1, "address": "10.0.0.2"}))
    do(controller, ("backend.remove", B1))
    (vip,) = do(controller, ("vip.list", {}))  # type: ignore[misc]
    assert (vip["packets"], vip["bytes"]) == (15, 1500)
    do(controller, ("vip.remove", {"name": "web"}), ("vip.add", WEB))
    (vip,) = do(controller, ("vip.list", {}))  # type: ignore[misc]
    assert vip["packets"] == 0, "another VIP of that name"


def test_changes_wait_for_each_other(controller: Controller) -> None:
    async def both() -> None:
        await asyncio.gather(
            *(controller.handle("vip.add", {**WEB, "name": f"v{n}", "address": f"192.0.2.{n}:80"}) for n in range(1, 9))
        )

    asyncio.run(both())
    assert len(do(controller, ("vip.list", {}))) == 8  # type: ignore[arg-type]


def test_an_unknown_request_is_refused(controller: Controller) -> None:
    with pytest.raises(L4lbError, match="does not know the request 'reboot'"):
        do(controller, ("reboot", {}))
