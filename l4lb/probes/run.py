"""Runs one check against one backend, and always comes back with a result."""

import asyncio
import contextlib
import errno
import functools
import importlib
import logging
import os
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace

from l4lb.health.check import Check, missing_extra
from l4lb.health.result import Result
from l4lb.probes.refusals import refusals
from l4lb.probes.target import Target, Unwell

log = logging.getLogger(__name__)

_MAX_REASON = 200  # characters

_ERRNOS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection closed",
    errno.EHOSTUNREACH: "no route to it, it does not answer on its link, or a firewall refuses",
    errno.ENETUNREACH: "no route to it",
    errno.ETIMEDOUT: "connection timed out",
    errno.EMFILE: "too many files are open here",
    errno.ENFILE: "too many files are open here",
    errno.EADDRNOTAVAIL: "no free port, or no address to send from",
    errno.EACCES: "not allowed to",
    errno.EPERM: "not allowed to (a firewall here?)",
}

Probe = Callable[[Check, Target], Awaitable[str | None]]


def prepare(kind: str) -> None:
    """Loads what a kind of checks needs, which may take a while; what is missing, the probes themselves tell."""
    with contextlib.suppress(ImportError):
        _load(kind)


async def run(check: Check, target: Target, timeout: float) -> Result:  # noqa: ASYNC109 - it is part of the result
    """Makes one probe.

    Args:
        check: what to look for; its option ``port`` outranks the target's port.
        target: the backend.
        timeout: seconds after which it has failed.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        probe = _probe(check, target)
        if port := check.get("port"):
            target = replace(target, port=int(port))
        began = clock()
        async with asyncio.timeout(timeout) as limit:
            advice = await probe(check, target)
    except Unwell as unwell:
        return Result(False, _tidy(unwell.reason), clock() - began, unwell.advice)
    except TimeoutError as error:
        if not limit.expired():
            return Result(False, _reason(error), clock() - began)
        if not _silence_is_well(check, target):
            return Result(False, f"no answer within {timeout * 1000:g} ms", clock() - began)
        if refusals.lately(target, clock()):
            return Result(False, "no answer, and port unreachable a moment ago", clock() - began)
        return Result(True, "ok, nothing came back", clock() - began)
    except OSError as error:
        return Result(False, _tidy(_reason(error)), clock() - began)
    except Exception as error:
        # A fault of ours or of a library: the backend has not been seen well, and nobody else's check may suffer.
        log.exception("check %s of %s failed by a fault of its own", check, target.address)
        return Result(False, _tidy(f"the check itself failed ({type(error).__name__}: {error})"), clock() - began)
    return Result(True, "ok", clock() - began, advice)


def _silence_is_well(check: Check, target: Target) -> bool:
    """Services over UDP say nothing to what they do not know; only 'port unreachable' tells that there is none.

    By way of the dataplane silence may as well be that of a backend that has lost the VIP.
    """
    return check.kind == "udp" and not check.get("expect") and target.way is None


def _probe(check: Check, target: Target) -> Probe:
    """What makes a check. Loaded when first used, as libraries take time and memory."""
    if target.way is not None:
        return _load("dataplane")
    if extra := missing_extra(check):
        raise Unwell(f"check {check.kind} needs a library that is not installed: pip install 'l4lb[{extra}]'")
    return _load(check.kind)


@functools.cache
def _load(kind: str) -> Probe:
    probe: Probe = importlib.import_module(f"l4lb.probes.{kind}").probe
    return probe


def _reason(error: OSError) -> str:
    """An error of the system in a person's words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        # As in "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:992)".
        told = re.sub(r"^\[[^\]]*\] | \(_ssl\.c:\d+\)$", "", error.args[-1] if error.args else "")
        return f"TLS failed: {told or 'for no reason told'}"
    if error.errno is None:
        return str(error) or type(error).__name__
    return _ERRNOS.get(error.errno) or os.strerror(error.errno).lower()


def _tidy(reason: str) -> str:
    """A reason on one short line: what backends say may hold anything, a terminal's control codes too."""
    plain = "".join(character if character.isprintable() else " " for character in reason)
    plain = " ".join(plain.split())
    return plain if len(plain) <= _MAX_REASON else plain[: _MAX_REASON - 3] + "..."
