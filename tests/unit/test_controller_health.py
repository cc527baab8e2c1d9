"""What the controller makes of health: what is forwarded by, what is told, and that neither is lost."""

import asyncio
import functools
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from l4lb import controller, feed, watching
from l4lb import daemon as daemon_module
from l4lb.errors import L4lbError, UsageError
from l4lb.health.handshakes import Handshakes
from l4lb.model import Config
from l4lb.plan.planner import Plan
from tests.unit.fake_edges import Edges, controller_of
from tests.unit.fake_probers import FakeProbers

Requests = tuple[tuple[str, dict[str, object]], ...]

WEB: dict[str, object] = {
    "name": "web", "address": "192.0.2.10:80", "protocol": "tcp", "mode": "dsr",
    "checks": ["tcp"], "fall": 1, "rise": 1,
}  # fmt: skip
B1: dict[str, object] = {"vip": "web", "address": "10.0.0.1"}
B2: dict[str, object] = {"vip": "web", "address": "10.0.0.2"}
BOTH: Requests = (("vip.add", WEB), ("backend.add", B1), ("backend.add", B2))
JOB1, JOB2 = "web 10.0.0.1:80 tcp", "web 10.0.0.2:80 tcp"


class Running:
    """A controller at work, with events read one after another."""

    def __init__(self, edges: Edges, folder: Path, config: Config | None = None) -> None:
        self.edges = edges
        self.controller = controller_of(edges, folder, config)
        self.probers: FakeProbers = self.controller.watching._probers  # type: ignore[assignment]
        self._next = 0

    async def do(self, *requests: tuple[str, dict[str, object]]) -> Any:
        """The result of the last one."""
        result = None
        for operation, arguments in requests:
            result = await self.controller.handle(operation, arguments)
        return result

    async def event(self) -> str:
        """The next one that there is or will be; others that came with it are for the next time."""
        found = await self.do(("events", {"since": self._next, "wait": 5}))
        event = found["events"][0]
        self._next = found["next"] - len(found["events"]) + 1
        return f"{event['backend'] or event['vip']} {event['what']}: {event['why']}; {event['effect']}"

    async def no_event(self) -> bool:
        """Whether there is none to come of what has happened yet."""
        return not (await self.do(("events", {"since": self._next, "wait": 0.02})))["events"]

    async def backends(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self.do(("backend.list", {"vip": "web"}))
        return found

    @property
    def shares(self) -> dict[str, int]:
        """Slots of web's backends."""
        return self.edges.shares()["192.0.2.10"]


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "Probers", FakeProbers)


@pytest.fixture
def edges() -> Edges:
    return Edges()


@asynccontextmanager
async def running(edges: Edges, folder: Path, *requests: tuple[str, dict[str, object]]) -> AsyncIterator[Running]:
    """With these requests done, and their events read."""
    found = Running(edges, folder)
    await found.controller.start()
    await found.do(*requests)
    found._next = (await found.do(("events", {})))["next"]
    work = asyncio.create_task(daemon_module._kept_going(found.controller.follow_health))
    try:
        yield found
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await found.controller.close()


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that is a coroutine; it has 10 seconds."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 10))

    return run


@in_loop
async def test_flows_follow_health(edges: Edges, tmp_path: Path) -> None:
    """Out at the failure and back at the success; both are told with what became of the table."""
    async with running(edges, tmp_path, *BOTH) as daemon:
        before = daemon.shares
        assert before.keys() == {"10.0.0.1", "10.0.0.2"}
        daemon.probers.tell(JOB1, "connection refused")
        assert await daemon.event() == f"10.0.0.1:80 down: connection refused; {before['10.0.0.1']:,} slots moved"
        assert daemon.shares == {"10.0.0.2": sum(before.values())}
        assert [backend["state"] for backend in await daemon.backends()] == ["down", "unknown"]
        daemon.probers.tell(JOB1, "")
        assert await daemon.event() == f"10.0.0.1:80 up: passed; {before['10.0.0.1']:,} slots moved"
        assert daemon.shares == before
        daemon.probers.tell(JOB1, "")
        assert await daemon.no_event()


@in_loop
async def test_a_backend_that_is_down_stays_out_through_changes(edges: Edges, tmp_path: Path) -> None:
    async with running(edges, tmp_path, *BOTH) as daemon:
        daemon.probers.tell(JOB1, "connection refused")
        await daemon.event()
        await daemon.do(("backend.add", {**B1, "address": "10.0.0.3"}), ("vip.set", {"name": "web", "mss": 1400}))
        assert daemon.shares.keys() == {"10.0.0.2", "10.0.0.3"}
        await daemon.do(("vip.set", {"name": "web", "checks": []}))
        assert daemon.shares.keys() == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}, "nobody says that it is down any more"


@in_loop
async def test_a_vip_without_backends_is_told_and_so_is_its_end(edges: Edges, tmp_path: Path) -> None:
    async with running(edges, tmp_path, *BOTH) as daemon:
        daemon.probers.tell(JOB1, "connection refused")
        daemon.probers.tell(JOB2, "HTTP 503")
        told = [await daemon.event() for _ in range(3)]
        assert [event.partition(";")[0] for event in told] == [
            "10.0.0.1:80 down: connection refused", "10.0.0.2:80 down: HTTP 503",
            "web none: no backend can take a flow",
        ]  # fmt: skip
        assert daemon.shares == {}
        (vip,) = (await daemon.do(("status", {})))["vips"]
        assert (vip["verdict"], vip["verdict_why"]) == ("none", "no backend can take a flow")
        daemon.probers.tell(JOB2, "")
        assert (await daemon.event()).startswith("10.0.0.2:80 up")
        assert (await daemon.event()).startswith("web ok: its first tier takes all flows")


@in_loop
async def test_a_vip_that_is_set_up_or_taken_down_is_no_event(edges: Edges, tmp_path: Path) -> None:
    async with running(edges, tmp_path, *BOTH) as daemon:
        other = {"vip": "other", "address": "10.0.0.1"}
        await daemon.do(("vip.add", {**WEB, "name": "other", "address": "192.0.2.11:80"}), ("backend.add", other))
        await daemon.do(("backend.remove", B1), ("vip.remove", {"name": "web"}))
        assert await daemon.no_event()


@in_loop
async def test_what_the_operator_does_is_an_event(edges: Edges, tmp_path: Path) -> None:
    async with running(edges, tmp_path, *BOTH) as daemon:
        slots = daemon.shares["10.0.0.1"]
        for verb, state in (("drain", "draining"), ("disable", "disabled"), ("resume", "resumed")):
            await daemon.do((f"backend.{verb}", B1), (f"backend.{verb}", B1))
            moved = "no slot moved" if verb == "disable" else f"{slots:,} slots moved"
            assert await daemon.event() == f"10.0.0.1:80 {state}: by the operator; {moved}"
            assert ("10.0.0.1" in daemon.shares) == (verb == "resume")
        assert await daemon.no_event()


@in_loop
async def test_only_a_backend_that_drains_keeps_its_flows(edges: Edges, tmp_path: Path) -> None:
    """One that is disabled or down has no record any more that theirs could lead to."""

    def known() -> set[str]:
        return {str(record.endpoint.address) for record in edges.image.backends.values()}

    async with running(edges, tmp_path, *BOTH) as daemon:
        await daemon.do(("backend.drain", B1))
        assert known() == {"10.0.0.1", "10.0.0.2"}
        await daemon.do(("backend.disable", B1))
        assert known() == {"10.0.0.2"}
        await daemon.do(("backend.resume", B1))
        daemon._next = (await daemon.do(("events", {})))["next"]
        daemon.probers.tell(JOB2, "connection refused")
        await daemon.event()
        assert known() == {"10.0.0.1"}


@in_loop
async def test_a_backend_counts_on_after_it_was_down(edges: Edges, tmp_path: Path) -> None:
    """The datapath tells 10 packets of each number that goes, and 5 of each that is there."""
    async with running(edges, tmp_path, *BOTH) as daemon:
        for result, packets in (("no answer", 10), ("", 15), ("no answer", 20), ("", 25)):
            daemon.probers.tell(JOB1, result)
            await daemon.event()
            assert [backend["packets"] for backend in await daemon.backends()] == [packets, 5]
            (vip,) = await daemon.do(("vip.list", {}))
            assert vip["packets"] == packets + 5
        await daemon.do(("backend.remove", B1))
        (vip,) = await daemon.do(("vip.list", {}))
        assert vip["packets"] == 35, "what it has carried is the VIP's now"
        await daemon.do(("backend.add", B1))
        assert [backend["packets"] for backend in await daemon.backends()] == [5, 5], "another backend"


@in_loop
async def test_a_backend_counts_on_after_a_change_was_taken_back(edges: Edges, tmp_path: Path) -> None:
    """Its health has changed meanwhile, so what takes the change back takes the backend out too."""
    async with running(edges, tmp_path, *BOTH) as daemon:
        edges.broken = "save"
        edges.also["save"] = lambda: daemon.probers.tell(JOB1, "connection refused")
        with pytest.raises(L4lbError, match="save is broken"):
            await daemon.do(("backend.add", {**B1, "address": "10.0.0.3"}))
        assert [backend["packets"] for backend in await daemon.backends()] == [10, 5]
        assert (await daemon.event()).startswith("10.0.0.1:80 down: connection refused")


@in_loop
async def test_what_was_in_the_maps_before_a_start_counts(edges: Edges, tmp_path: Path) -> None:
    """Here of a backend that no configuration has any more: it is a part of its VIP's sum."""
    async with running(edges, tmp_path, *BOTH) as daemon:
        (vip,) = daemon.controller._config.vips
    config = Config((replace(vip, backends=vip.backends[1:]),))
    again = Running(edges, tmp_path, config)
    await again.controller.start()
    (view,) = await again.do(("vip.list", {}))
    assert (view["packets"], [backend["packets"] for backend in view["backends"]]) == (15, [5])
    await again.controller.close()


@pytest.mark.parametrize("fault", [L4lbError, RuntimeError])
@in_loop
async def test_what_cannot_be_applied_is_tried_again(
    edges: Edges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    """And told when it is done: an event says what became of it."""
    monkeypatch.setattr(controller, "_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(daemon_module, "_PAUSE_SECONDS", 0.0)
    async with running(edges, tmp_path, *BOTH) as daemon:
        slots = daemon.shares["10.0.0.1"]
        edges.broken, edges.fault = "apply", fault
        daemon.probers.tell(JOB1, "connection refused")
        assert await daemon.event() == f"10.0.0.1:80 down: connection refused; {slots:,} slots moved"
        assert daemon.shares.keys() == {"10.0.0.2"}
        assert edges.steps[-2:] == ["apply", "apply"]
        assert await daemon.no_event()


@in_loop
async def test_a_weight_grows_with_time(edges: Edges, tmp_path: Path) -> None:
    async with running(edges, tmp_path, *BOTH, ("vip.set", {"name": "web", "slow_start": 0.05})) as daemon:
        before = daemon.shares
        daemon.probers.tell(JOB1, "connection refused")
        await daemon.event()
        daemon.probers.tell(JOB1, "")
        await daemon.event()
        seen = {0, daemon.shares["10.0.0.1"]}
        while daemon.shares != before:
            await asyncio.sleep(0.001)
            seen.add(daemon.shares["10.0.0.1"])
        assert len(seen) > 3, "it did not come back at once"
        assert await daemon.no_event(), "it was told once"


@in_loop
async def test_what_was_known_is_known_after_a_restart(edges: Edges, tmp_path: Path) -> None:
    async with running(edges, tmp_path, *BOTH) as daemon:
        daemon.probers.tell(JOB1, "connection refused")
        await daemon.event()
        config = daemon.controller._config
    edges.steps.clear()
    again = Running(edges, tmp_path, config)
    await again.controller.start()
    assert edges.steps == ["apply"]
    first, second = await again.backends()
    assert (first["state"], first["stale"], second["state"]) == ("down", True, "unknown")
    assert again.shares.keys() == {"10.0.0.2"}
    assert again.probers.running
    assert again.probers.jobs.keys() == {JOB1, JOB2}
    await again.controller.close()
    assert not again.probers.running


@in_loop
async def test_a_backend_is_shown_with_all_that_is_known(edges: Edges, tmp_path: Path) -> None:
    """The keys are a stable interface."""
    async with running(edges, tmp_path, *BOTH, ("backend.set", {**B1, "rise": 4, "priority": 1})) as daemon:
        daemon.probers.tell(JOB1, "")
        daemon.probers.tell(JOB1, "HTTP 503")
        await daemon.event()
        view = await daemon.do(("backend.show", B1))
        (check,) = view.pop("checks")
        results = check.pop("results")
        since = view.pop("since")
        assert view == {
            "vip": "web", "address": "10.0.0.1", "port": 80, "weight": 1, "priority": 1, "admin": "none",
            "rise": 4, "fall": 1, "interval": 2.0, "timeout": 1.0, "via": "direct",
            "state": "down", "health": "down", "reason": "down: HTTP 503", "why": "HTTP 503", "stale": False,
            "suspected": None, "advice": None, "effective_weight": 0, "weight_share": 0.0,
            "next_hop": "unresolved: a test", "packets": 10, "bytes": 1000, "packets_back": 1, "bytes_back": 100,
        }  # fmt: skip
        assert check == {"check": "tcp", "state": "down", "why": "HTTP 503", "in_a_row": -1}
        assert [(result["ok"], result["reason"], result["latency_ms"]) for result in results] == [
            (False, "HTTP 503", 0.0), (True, "", 0.0),
        ]  # fmt: skip
        assert since == pytest.approx(results[0]["time"], abs=0.002)


@in_loop
async def test_who_waits_for_events_gets_the_next_one_at_once(edges: Edges, tmp_path: Path) -> None:
    async with running(edges, tmp_path, *BOTH) as daemon:
        since = (await daemon.do(("events", {})))["next"]
        waiting = [asyncio.create_task(daemon.do(("events", {"since": since, "wait": 60}))) for _ in range(16)]
        await asyncio.sleep(0)
        with pytest.raises(L4lbError, match="16 clients follow the events already: ask without --follow"):
            await daemon.do(("events", {"since": since, "wait": 1}))
        assert (await daemon.do(("events", {"since": since})))["events"] == [], "who does not wait is no follower"
        daemon.probers.tell(JOB1, "connection refused")
        found = await asyncio.gather(*waiting)
        assert all([event["what"] for event in each["events"]] == ["down"] for each in found)
        assert {each["next"] for each in found} == {since + 1}
        assert (await daemon.do(("events", {"since": since, "wait": 1})))["events"], "there is room again"


@in_loop
async def test_who_waits_in_vain_is_let_go(edges: Edges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "LONGEST_WAIT", 0.02)
    async with running(edges, tmp_path, *BOTH) as daemon:
        since = (await daemon.do(("events", {})))["next"]
        assert await daemon.do(("events", {"since": since, "wait": 1e9})) == {"events": [], "next": since, "lost": 0}


@pytest.mark.parametrize(
    "arguments",
    [
        {"since": "0"}, {"since": 1.5}, {"since": None}, {"since": True},
        {"wait": "5"}, {"wait": None}, {"wait": math.nan}, {"wait": math.inf}, {"wait": True}, {"wait": 10**400},
    ],
)  # fmt: skip
@in_loop
async def test_bad_questions_for_events(edges: Edges, tmp_path: Path, arguments: dict[str, object]) -> None:
    async with running(edges, tmp_path) as daemon:
        with pytest.raises(UsageError) as refusal:
            await daemon.do(("events", arguments))
        assert refusal.value.hint


@in_loop
async def test_a_new_check_needs_its_library(edges: Edges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was configured before is kept, and fails by itself."""
    grpc: dict[str, object] = {"name": "web", "checks": ["tcp", "grpc"]}
    missing: dict[str, str] = {}
    monkeypatch.setattr(controller, "missing_extra", lambda check: missing.get(check.kind))
    async with running(edges, tmp_path, *BOTH, ("vip.set", {"name": "web", "checks": ["redis"]})) as daemon:
        missing.update(grpc="grpc", redis="redis")
        with pytest.raises(L4lbError) as refusal:
            await daemon.do(("vip.set", grpc))
        assert str(refusal.value) == (
            "check grpc needs a library that is not installed: install it with `pip install 'l4lb[grpc]'`"
        )
        await daemon.do(("vip.set", {"name": "web", "checks": ["tcp", "redis"]}))
        del missing["grpc"]
        await daemon.do(("vip.set", grpc))


@in_loop
async def test_what_connections_tell_has_a_backend_probed(
    edges: Edges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "forwarding_off", lambda *_: [])
    nat = {"name": "web", "mode": "nat", "passive": True}
    async with running(edges, tmp_path, *BOTH, ("vip.set", nat)) as daemon:
        account = next(account for account in edges.traffic() if str(account[1].address) == "10.0.0.1")
        daemon.probers.tell(JOB1, "")
        await daemon.event()
        daemon.probers.done.clear()
        now = 1000.0
        for begun, later in ((0, 0.0), (5, 0.1), (5, 0.2), (5, 0.3), (5, 0.5), (5, 0.8), (5, 1.2)):
            edges.heard = {account: Handshakes(begun=begun, times=(0,) * 16)}
            daemon.controller._listening.look(now + later)
        assert daemon.probers.done == [("probe", JOB1)]
        view = await daemon.do(("backend.show", B1))
        assert view["suspected"].startswith("5 handshakes unanswered for")
        assert view["handshakes"]["begun"] == 5
        assert daemon.shares.keys() == {"10.0.0.1", "10.0.0.2"}, "suspicion alone takes nobody out"
        daemon.probers.tell(JOB1, "no answer within 300 ms")
        event = await daemon.event()
        assert event.startswith("10.0.0.1:80 down: no answer within 300 ms; suspected: 5 handshakes unanswered for")


@in_loop
async def test_what_fits_only_while_backends_are_down_is_refused(
    edges: Edges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(edges, tmp_path, *BOTH) as daemon:
        plan = edges.plan

        def bounded(config: Config, configured: Config | None = None) -> Plan:
            if sum(len(vip.backends) for vip in config.vips) > 2:
                raise L4lbError("more than 2 backends do not fit into the maps")
            return plan(config, configured)

        monkeypatch.setattr(edges, "plan", bounded)
        daemon.probers.tell(JOB1, "connection refused")
        await daemon.event()
        with pytest.raises(L4lbError, match="do not fit"):
            await daemon.do(("backend.add", {"vip": "web", "address": "10.0.0.9"}))
