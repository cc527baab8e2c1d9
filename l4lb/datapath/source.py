"""The program's source for one configuration: ``bpf/l4lb.c`` with its headers put in place, and its switches.

bcc rewrites map accesses only in the main file, so the project's own headers are inlined before it sees the text,
with ``#line`` marks that keep the compiler's and the verifier's messages true.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# A wheel carries the sources inside the package; a checkout has them beside it.
_INSTALLED = Path(__file__).resolve().parent.parent / "bpf"
BPF_DIR = _INSTALLED if _INSTALLED.is_dir() else _INSTALLED.parent.parent / "bpf"

_INCLUDE = re.compile(r'^#include "(?P<name>[\w.]+)"$')


def inline(main: Path) -> str:
    """The text of `main` with every ``#include "..."`` replaced by that file, headers found beside `main`."""
    lines = [f'#line 1 "{main.name}"']
    for number, line in enumerate(main.read_text().splitlines(), start=1):
        include = _INCLUDE.match(line)
        if include is None:
            lines.append(line)
        else:
            header = main.parent / include["name"]
            lines += [inline(header).rstrip("\n"), f'#line {number + 1} "{main.name}"']
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Source:
    """A program to compile: its text, its -D switches, and the function to load.

    Attributes:
        switches: names and values of the preprocessor's switches.
        stages: the functions that `function` goes on to, in the order of the map ``stages``.
        errands: functions that the control plane runs, on no interface.
    """

    text: str
    function: str
    switches: Mapping[str, str]
    stages: tuple[str, ...] = ()
    errands: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """16 hex digits that differ when the compiled program could differ (but for compiler and kernel)."""
        switches = "".join(f"{name}={value}\n" for name, value in sorted(self.switches.items()))
        return hashlib.sha256(
            f"{self.function} {self.stages} {self.errands}\n{switches}{self.text}".encode()
        ).hexdigest()[:16]
