"""A TLS handshake ends well, with a certificate that is valid for some days yet."""

import ssl
import time

from l4lb.health.check import Check
from l4lb.probes import trust
from l4lb.probes.stream import Stream
from l4lb.probes.target import Target, Unwell

_DAY = 24 * 3600.0


async def probe(check: Check, target: Target) -> None:
    """Makes a handshake and looks at the certificate."""
    name = check.get("sni") or None
    async with Stream(target) as stream:
        tls = await stream.start_tls(trust.context(check, name), name)
    if days := check.get("days"):
        problem = lifetime_problem(*_lifetime(tls), time.time(), int(days))
        if problem:
            raise Unwell(problem)


def lifetime_problem(begins: float, ends: float, now: float, days: int) -> str | None:
    """What is wrong with a certificate that is valid from `begins` to `ends` and shall be so for `days` from `now`.

    Times are seconds since 1970.
    """
    if begins > now:
        return f"certificate is not valid yet: it will be in {_span(begins - now)}"
    if ends <= now:
        return f"certificate expired {_span(now - ends)} ago"
    if ends < now + days * _DAY:
        return f"certificate expires in {_span(ends - now)}, expected {_span(days * _DAY)} at least"
    return None


def _span(seconds: float) -> str:
    for unit, length in (("day", _DAY), ("hour", 3600.0), ("minute", 60.0)):
        count = int(seconds / length)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "a minute"


def _lifetime(tls: ssl.SSLObject) -> tuple[float, float]:
    """When the peer's certificate begins and ends."""
    verified = tls.getpeercert()
    if verified:
        return (
            ssl.cert_time_to_seconds(str(verified["notBefore"])),
            ssl.cert_time_to_seconds(str(verified["notAfter"])),
        )
    # Python reads certificates only where they were verified.
    from cryptography import x509

    der = tls.getpeercert(binary_form=True)
    if der is None:
        raise Unwell("no certificate was shown")
    try:
        certificate = x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise Unwell(f"certificate cannot be read: {error}") from None
    return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
