"""Which certificates a check believes: its TLS context, made once."""

import functools
import ssl
from pathlib import Path

from l4lb.health.check import Check
from l4lb.probes.target import Unwell


def optional(check: Check, *protocols: str) -> tuple[ssl.SSLContext, str | None] | None:
    """What to make a handshake with, and the name to ask for; None for a check that does not say ``tls=yes``.

    Raises:
        Unwell: as :func:`context`.
    """
    if check.get("tls") != "yes":
        return None
    name = check.get("sni") or None
    return context(check, name, *protocols), name


def context(check: Check, name: str | None, *protocols: str) -> ssl.SSLContext:
    """What to make a handshake with that asks for `name`, and by ALPN for one of `protocols`.

    Raises:
        Unwell: the file that the check names is of no use.
    """
    ca = check.get("ca")
    if not ca:
        return _context(check.get("verify") == "yes", name is not None, "", 0, protocols)
    try:
        return _context(True, name is not None, ca, Path(ca).stat().st_mtime_ns, protocols)
    except ssl.SSLError:
        raise Unwell(f"there is no certificate in file {ca}") from None
    except OSError as error:
        raise Unwell(f"cannot read the certificates in {ca}: {error.strerror}") from None


@functools.lru_cache(maxsize=256)
def _context(verify: bool, for_name: bool, ca: str, _changed: int, protocols: tuple[str, ...]) -> ssl.SSLContext:
    """Reading the system's certificates takes tens of milliseconds; a file that changed is read again."""
    if verify:
        made = ssl.create_default_context(cafile=ca or None)
        made.check_hostname = for_name
    else:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if protocols:
        made.set_alpn_protocols(protocols)
    return made
