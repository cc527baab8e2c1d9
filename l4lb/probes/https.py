"""An HTTP request over TLS is answered as expected."""

import re

from l4lb.health.check import Check
from l4lb.probes import http, trust
from l4lb.probes.stream import Stream
from l4lb.probes.target import Target


async def probe(check: Check, target: Target) -> None:
    """Makes a handshake and a request, and judges the answer."""
    name = _name(check)
    context = trust.context(check, name)
    async with Stream(target) as stream:
        await stream.start_tls(context, name)
        await http.ask(check, target, stream)


def _name(check: Check) -> str | None:
    """The name or address that the certificate has to be for; where none is said, any will do."""
    return check.get("sni") or re.sub(r":[0-9]+\Z", "", check.get("host")).strip("[]") or None
