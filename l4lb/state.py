"""The state file: what was acknowledged, kept through kill -9 and power cuts.

JSON, with a digest of its own content: a file that was cut off, edited or damaged on the disk is found out.
"""

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from l4lb import settings
from l4lb.errors import L4lbError, UsageError
from l4lb.model import Backend, Config, Endpoint, Protocol, Service, Vip
from l4lb.rules import problems

FORMAT = "l4lb-state"
VERSION = 1


class StateError(L4lbError):
    """A state file that cannot be used."""


def encode(config: Config) -> bytes:
    """A configuration as it is saved."""
    content = {
        "seed": config.seed,
        "vips": [
            {
                "name": vip.name,
                "address": vip.service.place,
                "protocol": vip.protocol.label,
                **settings.plain(vip),
                "backends": [
                    {"address": str(backend.endpoint), **settings.plain_backend(backend)} for backend in vip.backends
                ],
            }
            for vip in config.vips
        ],
    }
    whole = {"format": FORMAT, "version": VERSION, "sha256": _digest(content), "config": content}
    return json.dumps(whole, indent=1).encode() + b"\n"


def decode(data: bytes) -> Config:
    """The configuration in a saved file.

    Raises:
        StateError: says what is wrong with it, all of it.
    """
    try:
        whole = json.loads(data)
        if not isinstance(whole, dict) or whole.get("format") != FORMAT:
            raise StateError("it is not an l4lb state file")
        if whole.get("version") != VERSION:
            raise StateError(f"it has version {whole.get('version')!r}, and this l4lb knows version {VERSION}")
        content = whole["config"]
        if whole.get("sha256") != _digest(content):
            raise StateError("its content does not match its digest")
        config = _config(content)
    except json.JSONDecodeError as error:
        raise StateError(f"it is cut off or no JSON (line {error.lineno}: {error.msg})") from error
    except UnicodeDecodeError as error:
        raise StateError(f"it is no text ({error.reason} at byte {error.start})") from error
    except UsageError as error:
        raise StateError(str(error)) from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise StateError(f"its content is not as it should be ({type(error).__name__}: {error})") from error
    broken = [str(problem) for problem in problems(config)]
    if broken:
        raise StateError("; ".join(broken))
    return config


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _config(content: Mapping[str, Any]) -> Config:
    return Config(vips=tuple(_vip(saved) for saved in content["vips"]), seed=int(content["seed"]))


def _vip(saved: Mapping[str, Any]) -> Vip:
    """A VIP as it was saved; a setting that is younger than the file has its default.

    One that is younger than this program is refused: to leave it out would lose it when the file is saved again.
    """
    _refuse_unknown(
        f"VIP {saved['name']}", saved.keys() - {"name", "address", "protocol", "backends", *settings.SETTINGS}
    )
    vip = Vip(
        name=str(saved["name"]),
        service=Service.parse(saved["address"], Protocol.parse(saved["protocol"])),
        backends=tuple(_backend(each) for each in saved["backends"]),
    )
    return settings.changed(vip, saved)


def _backend(saved: Mapping[str, Any]) -> Backend:
    """A backend as it was saved, in the same way."""
    _refuse_unknown(f"backend {saved['address']}", saved.keys() - {"address", *settings.BACKEND_SETTINGS})
    return settings.changed_backend(Backend(Endpoint.parse(saved["address"], default_port=0)), saved)


def _refuse_unknown(whose: str, unknown: Collection[str]) -> None:
    if unknown:
        raise StateError(f"{whose} has settings that this l4lb does not know ({', '.join(sorted(unknown))})")


class StateFile:
    """A configuration on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Config | None:
        """What was saved; None if nothing was yet.

        Raises:
            StateError: the file is damaged. It stays where it is, and a copy of it is kept aside.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"cannot read the state file {self.path} ({error.strerror})", "run as root") from error
        try:
            return decode(data)
        except StateError as error:
            aside = self._aside(data)
            if not aside.exists():
                _write(aside, data)
            raise StateError(
                f"the state file {self.path} cannot be used: {error.message} (a copy is kept as {aside})",
                "forwarding goes on as it was; put a good file there, or begin with nothing by --reset-state",
            ) from error

    def reset(self) -> None:
        """Moves a file that cannot be used aside, if there is one; a good file stays."""
        try:
            self.load()
        except StateError:
            self.path.rename(self._aside(self.path.read_bytes()))

    def save(self, config: Config) -> None:
        """Saves it so that after a power cut at any moment either the old or the new is there, whole.

        Raises:
            StateError: it could not be saved; the old file is as it was.
        """
        new = self.path.with_name(self.path.name + ".new")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(new, encode(config))
            new.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StateError(
                f"cannot save the state file {self.path} ({error.strerror})",
                "make room and see that the folder can be written",
            ) from error

    def _aside(self, data: bytes) -> Path:
        return self.path.with_name(f"{self.path.name}.damaged-{hashlib.sha256(data).hexdigest()[:8]}")


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
