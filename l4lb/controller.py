"""What becomes of requests, of health and of time: one change after another, and the views of what there is."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from l4lb import __version__, document
from l4lb.changes import CHANGES, apply_change, find_backend, parse_question, vip_and_endpoint
from l4lb.datapath.addresses import VipAddresses
from l4lb.datapath.dataplane import Account, Dataplane
from l4lb.datapath.explain import Packet
from l4lb.datapath.layout import Features, features_of
from l4lb.datapath.nexthops import NextHops
from l4lb.datapath.requirements import forwarding_off
from l4lb.difference import Difference, differences, listed
from l4lb.errors import L4lbError, UsageError
from l4lb.feed import Feed
from l4lb.health.book import Key
from l4lb.health.check import missing_extra
from l4lb.health.events import Event
from l4lb.health.handshakes import LOOK_SECONDS
from l4lb.health.report import Clocks, in_full, in_short
from l4lb.health.weights import Picture, Verdict
from l4lb.health_file import HealthFile
from l4lb.listening import Listening
from l4lb.model import Admin, Backend, Config, Endpoint, IPAddress, Mode, Vip
from l4lb.options import RunOptions
from l4lb.plan.planner import Plan
from l4lb.plan.records import VipRecord
from l4lb.probe_ways import probe_way
from l4lb.probes.target import NoWay, Way
from l4lb.settings import value
from l4lb.state import StateFile
from l4lb.view import Live, Traffic, backend_list_view, explain_view, status_view, vip_list_view
from l4lb.watching import Watching

log = logging.getLogger(__name__)

_PERIOD_SECONDS = 1.0  # between looks at which slots are quiet; an idle timeout is at least as long
_SAVE_SECONDS = 10.0  # between savings of health
_AGAIN_SECONDS = 1.0  # after a change of health that could not be made


@dataclass(frozen=True, slots=True)
class _Change:
    """That a backend's health, or what the operator wants of it, has changed."""

    vip: str
    backend: str
    what: str
    why: str


class Controller:
    """Answers requests, and follows health and time; one change after another.

    A change is checked, planned and compiled before it is saved, saved before it is applied, and applied before it is
    acknowledged. So one that fails has changed nothing, and one that was acknowledged is kept. Changes of health are
    applied only: they are found again.
    """

    def __init__(
        self,
        options: RunOptions,
        config: Config,
        state: StateFile,
        dataplane: Dataplane,
        next_hops: NextHops,
        addresses: VipAddresses | None,
        health: HealthFile,
    ) -> None:
        self._options = options
        self._config = config
        self._state = state
        self._dataplane = dataplane
        self._next_hops = next_hops
        self._addresses = addresses
        self._health = health
        self._book = health.load(config)
        self.watching = Watching(self._book, self._health_changed, self._way_to)
        self._listening = Listening(self._book, dataplane.handshakes, self.watching.suspect, self._health_changed)
        self._changing = asyncio.Lock()
        self._moved = asyncio.Event()  # health has, and what is forwarded by does not follow yet
        self._changes: list[_Change] = []  # of health, to be told when it does
        self._unsaved = False  # whether a change of health is not on the disk yet
        self._verdicts: dict[str, Verdict] = {}
        self._feed = Feed()
        self._retired: dict[str, Traffic] = {}
        self._carried: dict[Key, Traffic] = {}  # by backends that are there, under numbers that they had before
        self._started = time.monotonic()

    async def handle(self, op: str, args: Mapping[str, object]) -> object:
        """Does one request; its result is made of what msgpack knows."""
        if op in CHANGES:
            changes = await self._change(op, args)
            return changes if op == "config.apply" else None
        if op == "config.diff":
            return await asyncio.to_thread(_difference, self._config, args)
        if op == "config.export":
            return document.plain(self._config)
        if op in ("status", "vip.list", "backend.list", "backend.show"):
            return self._show(op, args, await self._live())
        if op == "events":
            return await self._feed.tell(args)
        if op == "explain":
            return self._explain(args)
        raise UsageError(
            f"the daemon does not know the request {op!r}", "use a command line and a daemon of one version"
        )

    def _explain(self, args: Mapping[str, object]) -> object:
        question = parse_question(args)
        vip = self._config.vip_for(question.service, question.protocol)
        if vip is None:
            raise L4lbError(
                f"no VIP listens on {question.service}/{question.protocol.label}",
                "its packets are the kernel's; see `l4lb vip list`",
            )
        packet = Packet(question.client, question.service.port, question.begins)
        backend, why = self._dataplane.explain(VipRecord(vip.service), packet, self._config.seed)
        if backend is None:
            return explain_view(vip, None, why, None)
        endpoint = Endpoint(backend.endpoint.address, backend.endpoint.port or packet.port)
        return explain_view(vip, endpoint, why, self._next_hop(vip, endpoint))

    async def _change(self, op: str, args: Mapping[str, object]) -> list[Difference]:
        """Makes a change; what it has changed."""
        async with self._changing:
            config = await asyncio.to_thread(apply_change, self._config, op, args)
            if config == self._config:
                return []
            check_host(config, self._config, self._options.interfaces)
            changes = await asyncio.to_thread(differences, self._config, config)
            plan = await self._plan(config)
            if self._book.leaves_out(config, time.monotonic()):
                await asyncio.to_thread(self._dataplane.plan, config)  # it has to fit when all are up, too
            try:
                await self._next_hops.watch(backend_addresses(config))
                await self._dataplane.require(self._features(config), config.seed)
                await self._announce(config)
                await asyncio.to_thread(self._state.save, config)
                gone = self._dataplane.apply(plan)
            except BaseException:
                await self._put_back()
                raise
            self._retire(config, gone)
            before, self._config = self._config, config
            self._follow()
            for line in listed(changes):
                log.info("%s", line)
            await self._tell(_administered(before, config), plan)
            return changes

    async def _plan(self, config: Config) -> Plan:
        """What makes the maps right for a configuration, as health is now."""
        served = self._book.served(config, time.monotonic())
        return await asyncio.to_thread(self._dataplane.plan, served, config)

    async def _put_back(self) -> None:
        """After a change that failed half-way, makes everything as the configuration still has it."""
        try:
            self._retire(self._config, self._dataplane.apply(await self._plan(self._config)))
            await self._next_hops.watch(backend_addresses(self._config))
            await self._dataplane.require(self._features(self._config), self._config.seed)
            await self._announce(self._config)
            await asyncio.to_thread(self._state.save, self._config)
        except L4lbError as error:
            log.error("cannot take a failed change back: %s", error)  # noqa: TRY400 - the change's own error is told

    async def _announce(self, config: Config) -> None:
        if self._addresses is not None:
            await self._addresses.reconcile(own_addresses(config))

    def _features(self, config: Config) -> Features:
        return features_of(config, vlans=self._dataplane.vlans)

    async def start(self, *, unsaved: bool = False) -> None:
        """Makes the maps right for the configuration and the health that are known, and begins to watch backends.

        A configuration that is `unsaved` is saved first.
        """
        plan = await self._plan(self._config)
        if unsaved:
            await asyncio.to_thread(self._state.save, self._config)
        self._retire(self._config, self._dataplane.apply(plan))
        self._follow()
        await self.watching.start()
        await self._tell([], plan)

    async def close(self) -> None:
        """Ends watching; what is known is kept for the next start."""
        await self.watching.close()
        self._health.save(self._book)

    def _follow(self) -> None:
        """Watches what the configuration has by now."""
        self.watching.follow(self._config)
        self._listening.follow(self._config)

    def _health_changed(self, vip: Vip, backend: Backend, what: str, why: str) -> None:
        self._changes.append(_Change(vip.name, str(backend.endpoint), what, why))
        self._moved.set()

    async def follow_health(self) -> None:
        """Forwards by what health has become, for ever."""
        while True:
            await self._movement()
            async with self._changing:
                self._moved.clear()
                changes, self._changes = self._changes, []
                try:
                    plan = await self._plan(self._config)
                    self._retire(self._config, self._dataplane.apply(plan))
                except Exception as error:
                    self._changes = [*changes, *self._changes]
                    asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._moved.set)
                    if not isinstance(error, L4lbError):
                        raise
                    log.error("cannot forward by what health has become: %s", error)  # noqa: TRY400 - told in a line
                    continue
                self._unsaved = True
                await self._tell(changes, plan)

    async def _movement(self) -> None:
        """Waits until health has changed, or a weight is due to grow."""
        now = time.monotonic()
        due = self._book.next_change(self._config, now)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(0.0, due - now)):
                await self._moved.wait()

    async def _tell(self, changes: Iterable[_Change], plan: Plan) -> None:
        """Tells who wants to know what has changed, and what became of it."""
        now = time.time()
        events = [
            Event(now, change.vip, change.backend, change.what, change.why, _effect(plan, change.vip))
            for change in changes
        ]
        events += self._judged(now, plan)
        await self._feed.add(events)

    def _judged(self, now: float, plan: Plan) -> Iterator[Event]:
        """Of VIPs that are not as they were."""
        pictures = self._pictures()
        for name, picture in pictures.items():
            before = self._verdicts.get(name, Verdict.OK)
            if picture.verdict is not before and (picture.backends or before is not Verdict.OK):
                why = picture.why or "its first tier takes all flows"
                yield Event(now, name, None, str(picture.verdict), why, _effect(plan, name))
        self._verdicts = {name: picture.verdict for name, picture in pictures.items() if picture.backends}

    def _pictures(self) -> dict[str, Picture]:
        now = time.monotonic()
        return {vip.name: self._book.picture(vip, now) for vip in self._config.vips}

    async def listen(self) -> None:
        """Hears what clients' connections tell of backends, and compares those that may degrade, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._listening.look(time.monotonic())

    async def look_after(self) -> None:
        """What time brings about, for ever: slots settle that have been quiet for long enough, VLANs appear."""
        saved = time.monotonic()
        while True:
            await asyncio.sleep(_PERIOD_SECONDS)
            async with self._changing:
                self._dataplane.settle(time.monotonic())
                self._dataplane.sweep()
                if self._dataplane.links_changed():
                    await self._follow_links()
            if self._unsaved or time.monotonic() > saved + _SAVE_SECONDS:
                self._unsaved = False
                saved = time.monotonic()
                await asyncio.to_thread(self._health.save, self._book)

    async def _follow_links(self) -> None:
        """VLANs may need another program, and an interface that was down has lost its IPv6 addresses."""
        try:
            await self._dataplane.require(self._features(self._config), self._config.seed)
            await self._announce(self._config)
        except L4lbError as error:
            log.error("cannot follow a change of the network: %s", error)  # noqa: TRY400 - told once, in a line

    def _retire(self, config: Config, gone: Mapping[Account, Traffic]) -> None:
        """Keeps what was carried under numbers that are gone: for their backends, or for those VIPs that are left."""
        names = {VipRecord(vip.service): vip.name for vip in config.vips}
        keys = {(vip.name, backend.endpoint) for vip in config.vips for backend in vip.backends}
        for (vip, endpoint), traffic in gone.items():
            if vip in names:
                key = (names[vip], endpoint)
                self._carried[key] = self._carried.get(key, Traffic()) + traffic
        for key in self._carried.keys() - keys:
            name, traffic = key[0], self._carried.pop(key)
            self._retired[name] = self._retired.get(name, Traffic()) + traffic
        self._retired = {name: sum_ for name, sum_ in self._retired.items() if name in names.values()}

    def _traffic(self) -> dict[Key, Traffic]:
        """What each backend has carried."""
        names = {VipRecord(vip.service): vip.name for vip in self._config.vips}
        found = dict(self._carried)
        for (vip, endpoint), traffic in self._dataplane.traffic().items():
            key = (names[vip], endpoint)
            found[key] = found.get(key, Traffic()) + traffic
        return found

    def _next_hop(self, vip: Vip, backend: Endpoint) -> str:
        return str(self._dataplane.next_hop(backend.address, vip.mode, vip.source_for(backend.address)))

    def _way_to(self, vip: Vip, backend: Backend, vips: Collection[IPAddress]) -> Way | NoWay:
        """By which way a probe takes the place of traffic."""
        address = backend.endpoint.address
        answer = self._dataplane.next_hop(address, vip.mode, vip.source_for(address))
        return probe_way(vip, address, answer, self._next_hops.own_addresses, vips)

    async def _live(self) -> Live:
        interfaces = await self._dataplane.interfaces()  # before all that has to be of one moment
        names = {VipRecord(vip.service): vip.name for vip in self._config.vips}
        return Live(
            version=__version__,
            uptime_seconds=time.monotonic() - self._started,
            interfaces=interfaces,
            traffic=self._traffic(),
            retired=self._retired,
            next_hops={
                (vip.name, backend.endpoint): self._next_hop(vip, backend.endpoint)
                for vip in self._config.vips
                for backend in vip.backends
            },
            open_connections={
                (names[vip], backend): count for (vip, backend), count in self._dataplane.open_connections().items()
            },
            settling=frozenset(names[vip] for vip in self._dataplane.settling()),
            flows=self._dataplane.maps.events(),
            reasons=self._dataplane.maps.reasons(),
            health=self._health_in_short(),
            verdicts={
                name: {"verdict": str(picture.verdict), "verdict_why": picture.why}
                for name, picture in self._pictures().items()
            },
        )

    def _health_in_short(self) -> dict[Key, dict[str, object]]:
        clocks, pictures = _clocks(), self._pictures()
        return {
            (vip.name, backend.endpoint): in_short(
                vip, backend, self._book.health(vip, backend, clocks.monotonic), effective, clocks
            )
            for vip in self._config.vips
            for backend, effective in zip(vip.backends, pictures[vip.name].backends, strict=True)
        }

    def _show(self, op: str, args: Mapping[str, object], live: Live) -> object:
        """What reading requests show; nothing has been awaited since `live` was, or it would be of something else."""
        if op == "status":
            return status_view(self._config, live)
        if op == "vip.list":
            return vip_list_view(self._config, live)
        if op == "backend.list":
            return backend_list_view(self._config, live, value(args, "vip", str))
        vip, endpoint = vip_and_endpoint(self._config, args)
        backend, clocks = find_backend(vip, endpoint), _clocks()
        listed = backend_list_view(self._config, live, vip.name)[vip.backends.index(backend)]
        health = self._book.health(vip, backend, clocks.monotonic)
        heard = self._dataplane.handshakes().get((VipRecord(vip.service), endpoint))
        handshakes = {"handshakes": heard.plain()} if heard is not None else {}
        return {"vip": vip.name, **listed, **in_full(vip, backend, health, clocks), **handshakes}


def _difference(config: Config, args: Mapping[str, object]) -> list[Difference]:
    """What it would change to apply a document."""
    return differences(config, apply_change(config, "config.apply", args))


def _administered(before: Config, after: Config) -> Iterator[_Change]:
    """What the operator has changed about who takes flows."""
    known = {(vip.name, backend.endpoint): backend for vip in before.vips for backend in vip.backends}
    words = {Admin.NONE: "resumed", Admin.DRAIN: "draining", Admin.DISABLED: "disabled"}
    for vip in after.vips:
        for backend in vip.backends:
            old = known.get((vip.name, backend.endpoint), Backend(backend.endpoint))
            if old.admin is not backend.admin:
                yield _Change(vip.name, str(backend.endpoint), words[backend.admin], "by the operator")


def _effect(plan: Plan, vip: str) -> str:
    """What a change has made of a VIP's table."""
    moved = plan.moved.get(vip, 0)
    return f"{moved:,} slots moved" if moved else "no slot moved"


def check_host(config: Config, before: Config, interfaces: Iterable[str]) -> None:
    """Refuses what is new in a configuration and this host is not fit for."""
    _check_forwarding(config, before, interfaces)
    _check_libraries(config, before)


def _check_forwarding(config: Config, before: Config, interfaces: Iterable[str]) -> None:
    """Refuses the first VIP that translates on a host that would not forward the backends' answers."""
    for version in _translated(config) - _translated(before):
        for name in forwarding_off(interfaces, version):
            setting = "net.ipv4.ip_forward" if version == 4 else "net.ipv6.conf.all.forwarding"
            raise L4lbError(
                f"modes nat and fullnat need IPv{version} forwarding, which is off on {name}",
                f"turn it on with `sysctl -w {setting}=1`",
            )


def _check_libraries(config: Config, before: Config) -> None:
    """Refuses a new check whose library is not there; one that was configured before fails by itself."""
    known = {check for vip in before.vips for check in vip.checks}
    for vip in config.vips:
        for check in vip.checks:
            extra = missing_extra(check) if check not in known else None
            if extra is not None:
                raise L4lbError(
                    f"check {check.kind} needs a library that is not installed",
                    f"install it with `pip install 'l4lb[{extra}]'`",
                )


def _clocks() -> Clocks:
    return Clocks(time.monotonic(), time.time())


def backend_addresses(config: Config) -> set[IPAddress]:
    """Those that next hops are needed for."""
    return {backend.endpoint.address for vip in config.vips for backend in vip.backends}


def own_addresses(config: Config) -> set[IPAddress]:
    """The addresses that the gateway answers for: VIPs, and those that fullnat sends from."""
    addresses = {vip.service.address for vip in config.vips}
    for vip in config.vips:
        if vip.mode is Mode.FULLNAT:
            addresses.update(address for source in vip.sources for address in source)
    return addresses


def _translated(config: Config) -> set[int]:
    """The IP versions in which answers come back through the gateway."""
    return {vip.service.address.version for vip in config.vips if vip.mode.translates}
