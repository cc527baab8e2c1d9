"""Ending what a daemon left behind: the program on the interfaces, its maps, and the VIPs' addresses."""

import asyncio
import shutil
from pathlib import Path

from pyroute2 import AsyncIPRoute

from l4lb.datapath.addresses import VipAddresses
from l4lb.datapath.attach import detach
from l4lb.datapath.links import links_on, read_devices
from l4lb.datapath.pins import Pins
from l4lb.datapath.requirements import check_machine
from l4lb.plan.limits import Limits


def unload(root: Path) -> list[str]:
    """Takes everything under `root` away; answers the names of the interfaces that the program was on.

    Raises:
        L4lbError: a daemon still works there, or no permission.
    """
    check_machine()
    if not root.exists():
        return []
    pins = Pins(root, Limits())
    pins.prepare()
    try:
        names = asyncio.run(_take_addresses({detach(pin) for pin in pins.links().values()}))
        shutil.rmtree(root)
    finally:
        pins.release()
    return names


async def _take_addresses(ifindexes: set[int]) -> list[str]:
    async with AsyncIPRoute() as ipr:
        links = [link for link in links_on(await read_devices(ipr), ifindexes).values() if not link.tags]
    if links:
        await VipAddresses(links).reconcile(())
    return [link.name for link in links]
