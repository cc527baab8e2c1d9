"""Two namespaces for what l4lb asks of the kernel's network configuration: the test's own, and a host's."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from pyroute2 import AsyncIPRoute, netns

from l4lb.datapath.links import Link, choose, links_on, read_devices
from l4lb.datapath.nexthops import Answer, NextHops
from l4lb.lab.namespace import Namespace
from l4lb.model import IPAddress


class Site:
    """The namespaces, and what was told of their network."""

    def __init__(self, here: Namespace, host: Namespace) -> None:
        self.here, self.host = here, host
        self.answers: dict[IPAddress, list[Answer]] = {}
        self.links: list[Link] = []
        self.gone: list[int] = []
        self.routing_changes = 0

    def on_next_hop(self, address: IPAddress, answer: Answer) -> None:
        self.answers.setdefault(address, []).append(answer)

    def on_routing_changed(self) -> None:
        self.routing_changes += 1

    @asynccontextmanager
    async def following(self, *watched: IPAddress) -> AsyncIterator[NextHops]:
        following = NextHops(
            await ours(), self.on_next_hop, self.links.append, self.gone.append, self.on_routing_changed
        )
        await following.start()
        try:
            await following.watch(watched)
            yield following
        finally:
            await following.close()

    def shown(self, *arguments: str) -> str:
        return self.here.run("ip", *arguments).stdout

    @contextmanager
    def entered(self) -> Iterator["Site"]:
        """The calling thread is in the first namespace as long as the with block runs."""
        netns.pushns(self.here.name)
        try:
            yield self
        finally:
            netns.popns()


@contextmanager
def namespaces() -> Iterator[Site]:
    """Both, with nothing but their loopback interfaces."""
    name = f"l4lb-site-{secrets.token_hex(3)}"
    site = Site(Namespace(name), Namespace(f"{name}-host"))
    try:
        site.here.create()
        site.host.create()
        yield site
    finally:
        site.host.delete()
        site.here.delete()


async def ours() -> tuple[Link, ...]:
    """The interface that l4lb would run on, and its VLANs."""
    async with AsyncIPRoute() as ipr:
        devices = await read_devices(ipr)
    (lan,) = choose(devices, ["lan"])
    return tuple(links_on(devices, {lan.ifindex}).values())


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something to come true, for 5 seconds at the most."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - conditions of any kind
            await asyncio.sleep(0.01)
