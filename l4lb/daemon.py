"""The daemon: the one writer of state file and maps. It wires the parts together and holds none of their logic."""

import asyncio
import logging
import signal
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

from pyroute2 import AsyncIPRoute

from l4lb import __version__
from l4lb.changes import CHANGES, apply_change, parse_question
from l4lb.datapath.addresses import VipAddresses
from l4lb.datapath.dataplane import Account, Dataplane
from l4lb.datapath.explain import Packet
from l4lb.datapath.layout import Features, features_of
from l4lb.datapath.links import choose, links_on, read_devices
from l4lb.datapath.nexthops import NextHops
from l4lb.datapath.requirements import check_machine, forwarding_off
from l4lb.errors import L4lbError, UsageError
from l4lb.model import Config, Endpoint, IPAddress, Mode, Vip
from l4lb.options import RunOptions
from l4lb.plan.limits import Limits
from l4lb.plan.records import VipRecord
from l4lb.server import ControlServer
from l4lb.state import StateFile
from l4lb.view import NO_TRANSMIT, Live, Traffic, backend_list_view, explain_view, status_view, vip_list_view

log = logging.getLogger(__name__)

_PERIOD_SECONDS = 1.0  # between looks at which slots are quiet; an idle timeout is at least as long


class Controller:
    """Answers requests, one change after another.

    A change is checked, planned and compiled before it is saved, saved before it is applied, and applied before it is
    acknowledged. So one that fails has changed nothing, and one that was acknowledged is kept.
    """

    def __init__(
        self,
        options: RunOptions,
        config: Config,
        state: StateFile,
        dataplane: Dataplane,
        next_hops: NextHops,
        addresses: VipAddresses | None,
    ) -> None:
        self._options = options
        self._config = config
        self._state = state
        self._dataplane = dataplane
        self._next_hops = next_hops
        self._addresses = addresses
        self._changing = asyncio.Lock()
        self._retired: dict[str, Traffic] = {}
        self._started = time.monotonic()

    async def handle(self, op: str, args: Mapping[str, object]) -> object:
        """Does one request; its result is made of what msgpack knows."""
        if op in CHANGES:
            await self._change(op, args)
            return None
        if op == "status":
            return status_view(self._config, await self._live())
        if op == "vip.list":
            return vip_list_view(self._config, await self._live())
        if op == "backend.list":
            return backend_list_view(self._config, await self._live(), str(args.get("vip")))
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

    async def _change(self, op: str, args: Mapping[str, object]) -> None:
        async with self._changing:
            config = apply_change(self._config, op, args)
            if config == self._config:
                return
            self._check_forwarding(config)
            plan = await asyncio.to_thread(self._dataplane.plan, config)
            try:
                await self._next_hops.watch(_backend_addresses(config))
                await self._dataplane.require(self._features(config), config.seed)
                await self._announce(config)
                await asyncio.to_thread(self._state.save, config)
                gone = self._dataplane.apply(plan)
            except BaseException:
                await self._put_back()
                raise
            self._retire(config, gone)
            self._config = config
            log.info("%s %s", op, " ".join(f"{name}={value}" for name, value in args.items()))

    async def _put_back(self) -> None:
        """After a change that failed half-way, makes everything as the configuration still has it."""
        try:
            self._dataplane.apply(self._dataplane.plan(self._config))
            await self._next_hops.watch(_backend_addresses(self._config))
            await self._announce(self._config)
            await asyncio.to_thread(self._state.save, self._config)
        except L4lbError as error:
            log.error("cannot take a failed change back: %s", error)  # noqa: TRY400 - the change's own error is told

    async def _announce(self, config: Config) -> None:
        if self._addresses is not None:
            await self._addresses.reconcile(_own_addresses(config))

    def _features(self, config: Config) -> Features:
        return features_of(config, vlans=self._dataplane.vlans)

    async def look_after(self) -> None:
        """What time brings about, for ever: slots settle that have been quiet for long enough, VLANs appear."""
        while True:
            await asyncio.sleep(_PERIOD_SECONDS)
            async with self._changing:
                self._dataplane.settle(time.monotonic())
                self._dataplane.sweep()
                if self._dataplane.links_changed():
                    await self._follow_links()

    async def _follow_links(self) -> None:
        """VLANs may need another program, and an interface that was down has lost its IPv6 addresses."""
        try:
            await self._dataplane.require(self._features(self._config), self._config.seed)
            await self._announce(self._config)
        except L4lbError as error:
            log.error("cannot follow a change of the network: %s", error)  # noqa: TRY400 - told once, in a line

    def _check_forwarding(self, config: Config) -> None:
        """Refuses the first VIP that translates on a host that would not forward the backends' answers."""
        for version in _translated(config) - _translated(self._config):
            for name in forwarding_off(self._options.interfaces, version):
                setting = "net.ipv4.ip_forward" if version == 4 else "net.ipv6.conf.all.forwarding"
                raise L4lbError(
                    f"modes nat and fullnat need IPv{version} forwarding, which is off on {name}",
                    f"turn it on with `sysctl -w {setting}=1`",
                )

    def _retire(self, config: Config, gone: Mapping[Account, Traffic]) -> None:
        """Adds what backends that are gone have carried to the sums of those VIPs that are still there."""
        names = {VipRecord(vip.service): vip.name for vip in config.vips}
        self._retired = {name: sum_ for name, sum_ in self._retired.items() if name in names.values()}
        for (vip, _), traffic in gone.items():
            if vip in names:
                self._retired[names[vip]] = self._retired.get(names[vip], Traffic()) + traffic

    def _next_hop(self, vip: Vip, backend: Endpoint) -> str:
        return str(self._dataplane.next_hop(backend.address, vip.mode, vip.source_for(backend.address)))

    async def _live(self) -> Live:
        interfaces = await self._dataplane.interfaces()  # before all that has to be of one moment
        names = {VipRecord(vip.service): vip.name for vip in self._config.vips}
        return Live(
            version=__version__,
            uptime_seconds=time.monotonic() - self._started,
            interfaces=interfaces,
            traffic={(names[vip], backend): traffic for (vip, backend), traffic in self._dataplane.traffic().items()},
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
        )


def _backend_addresses(config: Config) -> set[IPAddress]:
    return {backend.endpoint.address for vip in config.vips for backend in vip.backends}


def _own_addresses(config: Config) -> set[IPAddress]:
    """The addresses that the gateway answers for: VIPs, and those that fullnat sends from."""
    addresses = {vip.service.address for vip in config.vips}
    for vip in config.vips:
        if vip.mode is Mode.FULLNAT:
            addresses.update(address for source in vip.sources for address in source)
    return addresses


def _translated(config: Config) -> set[int]:
    """The IP versions in which answers come back through the gateway."""
    return {vip.service.address.version for vip in config.vips if vip.mode.translates}


def run(options: RunOptions) -> None:
    """Runs the daemon until SIGTERM or SIGINT; forwarding goes on after it.

    Raises:
        L4lbError: it cannot start; what was forwarded before still is.
    """
    check_machine()
    asyncio.run(_serve(options))


def _configuration(state: StateFile, options: RunOptions) -> Config:
    """The saved configuration, with what the command line decides."""
    if options.reset_state:
        state.reset()
    config = state.load() or Config()
    if options.seed is not None and options.seed != config.seed:
        if config.vips:
            log.warning("the seed changes from %d to %d: flows move to other backends", config.seed, options.seed)
        config = replace(config, seed=options.seed)
        state.save(config)
    return config


async def _serve(options: RunOptions) -> None:
    """What can be refused comes first, and the program is attached last, when the maps are right."""
    state = StateFile(options.state)
    config = _configuration(state, options)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        ipr = await stack.enter_async_context(AsyncIPRoute())
        devices = await read_devices(ipr)
        links = choose(devices, options.interfaces)
        interfaces = {link.ifindex: link.name for link in links}
        links_and_vlans = tuple(links_on(devices, interfaces).values())

        dataplane = Dataplane(options.pins, interfaces, options.xdp_mode, Limits(), echo=options.echo)
        stack.callback(dataplane.close)
        next_hops = NextHops(
            links_and_vlans,
            dataplane.set_next_hop,
            dataplane.set_link,
            dataplane.forget_link,
            dataplane.forget_routes,
        )
        addresses = VipAddresses(links) if options.announce else None
        controller = Controller(options, config, state, dataplane, next_hops, addresses)
        server = ControlServer(options.socket, controller.handle, options.socket_group)
        server.listen()
        stack.push_async_callback(server.close)

        features = features_of(config, vlans=any(link.tags for link in links_and_vlans))
        await dataplane.open(features, config.seed, links_and_vlans)
        await next_hops.start()
        stack.push_async_callback(next_hops.close)
        await next_hops.watch(_backend_addresses(config))
        dataplane.apply(await asyncio.to_thread(dataplane.plan, config))
        dataplane.attach()
        if addresses is not None:
            await addresses.reconcile(_own_addresses(config))
            stack.push_async_callback(addresses.close)
        await server.start()
        looking = asyncio.create_task(controller.look_after())
        stack.callback(looking.cancel)

        for interface in await dataplane.interfaces():
            if len(links) > 1 and interface.xdp_transmit is False:
                log.warning(NO_TRANSMIT.format(interface.name))
        log.info("forwarding on %s, control socket %s", ", ".join(options.interfaces), options.socket)
        await stop.wait()
        log.info("stopping; forwarding goes on (l4lb unload ends it)")
