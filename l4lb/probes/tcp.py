"""A connection can be made."""

from l4lb.health.check import Check
from l4lb.probes.sockets import connect
from l4lb.probes.target import Target


async def probe(_check: Check, target: Target) -> None:
    """Connects, and resets the connection at once."""
    (await connect(target)).close()
