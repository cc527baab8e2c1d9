"""The daemon: the one writer of state file and maps. It wires the parts together and holds none of their logic."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from pyroute2 import AsyncIPRoute

from l4lb import document
from l4lb.controller import Controller, backend_addresses, check_host, own_addresses
from l4lb.datapath.addresses import VipAddresses
from l4lb.datapath.dataplane import Dataplane
from l4lb.datapath.layout import features_of
from l4lb.datapath.links import choose, links_on, read_devices
from l4lb.datapath.nexthops import NextHops
from l4lb.datapath.requirements import check_machine
from l4lb.difference import differences, listed
from l4lb.errors import UsageError
from l4lb.health_file import HealthFile
from l4lb.model import Config
from l4lb.options import RunOptions
from l4lb.plan.limits import Limits
from l4lb.server import ControlServer
from l4lb.state import StateFile
from l4lb.view import NO_TRANSMIT

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0  # after an internal error


def run(options: RunOptions) -> None:
    """Runs the daemon until SIGTERM or SIGINT; forwarding goes on after it.

    Raises:
        L4lbError: it cannot start; what was forwarded before still is.
    """
    check_machine()
    asyncio.run(_serve(options))


def configuration(state: StateFile, options: RunOptions) -> tuple[Config, Config]:
    """The configuration to start with, and the saved one."""
    content = _declared(options)
    if options.reset_state:
        state.reset()
    saved = state.load() or Config()
    seed = saved.seed if options.seed is None else options.seed
    config = replace(saved, seed=seed) if content is None else document.parse(content, seed)
    if saved.vips and config.seed != saved.seed:
        log.warning("the seed changes from %d to %d: flows move to other backends", saved.seed, config.seed)
    for line in listed(differences(saved, config)):
        log.info("not as it was saved: %s", line)
    return config, saved


def _declared(options: RunOptions) -> Mapping[str, object] | None:
    """What the file says that is named by --config, checked."""
    if options.config is None:
        return None
    from l4lb import document_file

    content = document_file.read(options.config)
    if options.seed is not None and content.get("seed", options.seed) != options.seed:
        raise UsageError(
            f"the seed is {options.seed} by --seed, and {content['seed']} in {options.config}", "leave one of them out"
        )
    return content


async def _kept_going(work: Callable[[], Awaitable[None]]) -> None:
    """Does what is to be done for ever, even after an error of our own."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("internal error; it is tried again")
            await asyncio.sleep(_PAUSE_SECONDS)


async def _serve(options: RunOptions) -> None:
    """What can be refused comes first, and the program is attached last, when the maps are right."""
    state = StateFile(options.state)
    config, saved = configuration(state, options)
    if options.config is not None:
        check_host(config, saved, options.interfaces)
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
        health = HealthFile(options.state.with_name("health.json"))
        controller = Controller(options, config, state, dataplane, next_hops, addresses, health)
        server = ControlServer(options.socket, controller.handle, options.socket_group)
        server.listen()
        stack.push_async_callback(server.close)

        features = features_of(config, vlans=any(link.tags for link in links_and_vlans))
        await dataplane.open(features, config.seed, links_and_vlans)
        await next_hops.start()
        stack.push_async_callback(next_hops.close)
        await next_hops.watch(backend_addresses(config))
        stack.push_async_callback(controller.close)
        await controller.start(unsaved=config != saved)
        dataplane.attach()
        if addresses is not None:
            await addresses.reconcile(own_addresses(config))
            stack.push_async_callback(addresses.close)
        await server.start()
        follow_ways = partial(controller.watching.follow_ways, dataplane.moved)
        for work in (controller.look_after, controller.follow_health, controller.listen, follow_ways):
            stack.callback(asyncio.create_task(_kept_going(work)).cancel)

        for interface in await dataplane.interfaces():
            if len(links) > 1 and interface.xdp_transmit is False:
                log.warning(NO_TRANSMIT.format(interface.name))
        log.info("forwarding on %s, control socket %s", ", ".join(options.interfaces), options.socket)
        await stop.wait()
        log.info("stopping; forwarding goes on (l4lb unload ends it)")
