"""The folder in a BPF file system in which everything stays that has to outlive the daemon.

    PINS/maps_<layout>/<map>         the maps of one layout
    PINS/program_<fingerprint>       the compiled program, so that a restart need not compile
    PINS/program_<fingerprint>_stages  the map of its further stages
    PINS/link_<mode>_<ifindex>       what holds the program on an interface

Dots are not allowed in these names.
"""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

from l4lb.datapath.layout import fingerprint
from l4lb.errors import L4lbError
from l4lb.plan.limits import Limits

_USUAL_PLACE = Path("/sys/fs/bpf")


class Pins:
    """The paths, and the lock that keeps a second daemon off them."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root = root
        self.maps = root / f"maps_{fingerprint(limits)}"
        self._lock: int | None = None

    def program(self, fingerprint: str) -> Path:
        """Where a compiled program is kept."""
        return self.root / f"program_{fingerprint}"

    def link(self, mode: str, ifindex: int) -> Path:
        """Where an interface's link is kept."""
        return self.root / f"link_{mode}_{ifindex}"

    def links(self) -> dict[tuple[str, int], Path]:
        """All links there are, by mode and interface index."""
        found = {}
        for path in self.root.glob("link_*"):
            _, mode, ifindex = path.name.split("_")
            found[mode, int(ifindex)] = path
        return found

    def prepare(self) -> None:
        """Makes the folders and locks them; mounts the BPF file system at its usual place if it is not.

        Raises:
            L4lbError: another daemon has them, or they are in no BPF file system.
        """
        try:
            if not on_bpf_fs(self.root.parent):
                if self.root.parent != _USUAL_PLACE:
                    raise L4lbError(
                        f"{self.root} is in no BPF file system",
                        f"mount one there, or use --pins {_USUAL_PLACE / 'NAME'}",
                    )
                _mount(_USUAL_PLACE)
            self.root.mkdir(mode=0o700, exist_ok=True)
            self.maps.mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise L4lbError(
                f"another l4lb daemon works on {self.root}", "stop it, or give this one another folder with --pins"
            ) from error
        except OSError as error:
            raise L4lbError(
                f"cannot use {self.root}: {error.strerror}", "run as root, or name another folder with --pins"
            ) from error

    def forget_all_but(self, program: Path) -> None:
        """Removes programs and maps of earlier versions and configurations."""
        for path in self.root.glob("program_*"):
            if not path.name.startswith(program.name):
                path.unlink()
        for path in self.root.glob("maps_*"):
            if path != self.maps:
                shutil.rmtree(path)

    def release(self) -> None:
        """Gives up the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def on_bpf_fs(path: Path) -> bool:
    """Whether the mount that `path` is (or would be) in is a BPF file system."""
    types = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, rest = line.partition(" - ")
        types[place.split()[4]] = rest.split()[0]
    return next((types[str(folder)] for folder in (path, *path.parents) if str(folder) in types), "") == "bpf"


def _mount(path: Path) -> None:
    answer = subprocess.run(
        ["mount", "-t", "bpf", "-o", "mode=0700", "bpf", str(path)], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise L4lbError(f"cannot mount a BPF file system on {path}: {answer.stderr.strip()}", "run as root")
