"""Compiling and loading, in a process of its own: ``python -m l4lb.datapath.loader``.

bcc brings LLVM (about 120 MB resident) and may abort the process that uses it. So the daemon starts this module,
which compiles, loads, pins and exits; the daemon then opens the pins. The job comes as JSON on standard input; what
goes wrong is one JSON object on standard output, with the compiler's and the verifier's words on standard error.
"""

import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from l4lb.datapath import bpf, uapi
from l4lb.datapath.source import Source
from l4lb.errors import L4lbError

_WARNINGS = ("-Werror=implicit-function-declaration", "-Wno-unused-value", "-Wno-address-of-packed-member")


def main() -> int:
    """Does the job on standard input; 0 if the program is pinned."""
    job = json.load(sys.stdin)
    try:
        load(Source(**job["source"]), Path(job["pin"]))
    except L4lbError as error:
        json.dump({"message": error.message, "hint": error.hint}, sys.stdout)
        return 1
    return 0


def load(source: Source, pin: Path) -> None:
    """Compiles `source`, loads it as an XDP program and pins it; bcc makes and pins the maps that are not there yet.

    The map through which it goes on to its other stages is pinned beside it: it would forget them otherwise.

    Raises:
        L4lbError: no bcc, no headers, or the compiler or the kernel refused; their words are on standard error.
    """
    with tempfile.TemporaryDirectory(prefix="l4lb-") as folder:
        tree = Path(folder)
        uapi.write_tree(tree)
        os.environ["BCC_KERNEL_SOURCE"] = folder
        try:
            import bcc  # reads the environment when it is imported or used
        except ImportError as error:
            raise L4lbError(
                f"bcc is missing ({error})",
                "install python3-bpfcc, and make the venv by /usr/bin/python3 with --system-site-packages",
            ) from error
        cflags = [f"-D{name}={value}" for name, value in source.switches.items()]
        cflags.append(f'-DSTAGES="{stages_of(pin)}"')
        try:
            module = bcc.BPF(text=source.text, cflags=[*_WARNINGS, *uapi.include_flags(), *cflags])
        except Exception as error:  # bcc raises nothing more specific
            raise L4lbError(
                f"the program {source.function} does not compile", "what the compiler says follows"
            ) from error
        for number, stage in enumerate(source.stages):
            bpf.map_update(module["stages"].map_fd, number, _load(module, stage).to_bytes(4, sys.byteorder))
        for errand in source.errands:
            bpf.pin(_load(module, errand), errand_of(pin, errand))
        bpf.pin(_load(module, source.function), pin)


def stages_of(pin: Path) -> Path:
    """Where the map of a program's further stages is pinned, if the program is at `pin`."""
    return pin.with_name(f"{pin.name}_stages")


def errand_of(pin: Path, function: str) -> Path:
    """Where a function is pinned that the control plane runs, if its program is at `pin`."""
    return pin.with_name(f"{pin.name}_{function}")


def _load(module: Any, name: str) -> int:
    """Loads one function; answers its file descriptor."""
    try:
        function = module.load_func(name, module.XDP)
    except Exception as error:
        reason = str(error).rpartition(": ")[2]
        raise L4lbError(
            f"the kernel refuses the program {name} ({reason})", "what its verifier says follows"
        ) from error
    fd: int = function.fd
    return fd


def job(source: Source, pin: Path) -> bytes:
    """What :func:`main` expects on standard input."""
    return json.dumps({"source": asdict(source), "pin": str(pin)}).encode()


if __name__ == "__main__":
    sys.exit(main())
