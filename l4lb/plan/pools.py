"""Pools of connections: one for each server whose answers need more than their source to be told whose they are."""

from collections.abc import Collection, Mapping

from l4lb.errors import L4lbError
from l4lb.model import Config, Mode
from l4lb.plan.limits import Limits
from l4lb.plan.records import BackendRecord, Pool, Server
from l4lb.plan.stretches import Stretches


def shared(config: Config) -> frozenset[Server]:
    """The servers behind nat whose answers do not tell by their source where the client connected to.

    Those are servers of several VIPs, and those that get all ports of a VIP at one.
    """
    vips: dict[Server, set[str]] = {}
    found: set[Server] = set()
    for vip in config.vips:
        for backend in vip.backends if vip.mode is Mode.NAT else ():
            server = backend.endpoint, vip.protocol
            vips.setdefault(server, set()).add(vip.name)
            if len(vips[server]) > 1 or (backend.endpoint.port and not vip.service.is_single):
                found.add(server)
    return frozenset(found)


def place(
    backends: Mapping[int, BackendRecord],
    several: Collection[Server],
    sizes: Mapping[int, int],
    found: Mapping[Server, Pool],
    limits: Limits,
) -> dict[int, Pool]:
    """The pool of each backend that needs one, by its number; the backends of one server have one pool.

    A pool of the right size stays where it is.

    Args:
        backends: by number.
        several: the servers by nat that need one.
        sizes: how many connections there is to be room for, by the VIP's number.
        found: the pools there are.
        limits: of the maps.

    Raises:
        L4lbError: there is no room.
    """
    servers: dict[Server, list[int]] = {}
    for number, record in backends.items():
        if record.mode is Mode.FULLNAT or record.server in several:
            servers.setdefault(record.server, []).append(number)
    free = Stretches({(pool.first, pool.size) for pool in found.values()}, limits.max_connections)
    placed: dict[int, Pool] = {}
    for server, numbers in servers.items():
        size = max(sizes[backends[number].vip] for number in numbers)
        pool = found.get(server)
        if pool is None or pool.size != size:
            first = free.take(size)
            if first is None:
                raise L4lbError(
                    f"the maps have no room for another {size:,} connections",
                    f"make the pools smaller (--pool), of {limits.max_connections:,} connections together at the most",
                )
            pool = Pool(first, size)
        placed |= dict.fromkeys(numbers, pool)
    return placed
