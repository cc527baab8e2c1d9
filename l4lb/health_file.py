"""Health on the disk, so that a restart of the daemon begins with what was known.

It is worth less than the configuration: one that is damaged is no reason not to start, and a power cut may cost the
last seconds of it.
"""

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l4lb.errors import L4lbError
from l4lb.health import saved
from l4lb.health.book import Entry, HealthBook, Key
from l4lb.health.check import Check
from l4lb.model import Config

log = logging.getLogger(__name__)

FORMAT = "l4lb-health"
VERSION = 1
# What comes of JSON that is not as it should be.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class HealthFile:
    """The file, beside the state file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, book: HealthBook) -> None:
        """Saves it; the old file stays if that fails. Before anything is configured there is no folder for it."""
        if not self._path.parent.exists():
            return
        content = {
            "format": FORMAT,
            "version": VERSION,
            "boot": _boot(),
            "monotonic": time.monotonic(),
            "wall": time.time(),
            "backends": [
                [vip, str(endpoint), [str(check) for check in entry.checks], saved.plain(entry.health)]
                for (vip, endpoint), entry in book.entries.items()
                if entry.checks
            ],
        }
        new = self._path.with_name(self._path.name + ".new")
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(content, file)
            new.replace(self._path)
        except OSError as error:
            log.warning("cannot save the health of backends in %s (%s)", self._path, error.strerror)

    def load(self, config: Config) -> HealthBook:
        """What was saved of the backends that there are; nothing, if that is of no use."""
        try:
            content = json.loads(self._path.read_text())
            return HealthBook(_entries(content, config))
        except FileNotFoundError:
            return HealthBook()
        except (OSError, L4lbError, *_DAMAGE) as error:
            log.warning("the health of backends in %s cannot be used: %s", self._path, error)
            return HealthBook()


def _entries(content: Mapping[str, Any], config: Config) -> dict[Key, Entry]:
    if (content["format"], content["version"]) != (FORMAT, VERSION):
        raise L4lbError(f"it is no {FORMAT} of version {VERSION}")
    now = time.monotonic()
    shift = 0.0
    if content["boot"] != _boot():  # the monotonic clock began anew; the wall clock tells how long ago it was
        shift = now - content["monotonic"] - max(0.0, time.time() - content["wall"])
    keys = {
        (vip.name, str(backend.endpoint)): (vip.name, backend.endpoint)
        for vip in config.vips
        for backend in vip.backends
    }
    return {
        keys[vip, endpoint]: _entry(checks, health, shift, now)
        for vip, endpoint, checks, health in content["backends"]
        if (vip, endpoint) in keys
    }


def _entry(checks: Any, health: object, shift: float, now: float) -> Entry:
    entry = Entry(tuple(map(Check.parse, checks)), saved.parse(health, shift, now))
    if len(entry.checks) != len(entry.health.checks):
        raise L4lbError("a backend has more checks than results of them, or fewer")
    return entry


def _boot() -> str:
    return _BOOT_ID.read_text().strip()
