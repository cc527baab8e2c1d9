"""Which program and maps a configuration and its limits need: the -D switches that ``bpf/`` is compiled with."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from l4lb.balance.flowhash import seeds
from l4lb.datapath.source import BPF_DIR, Source, inline
from l4lb.model import Mode
from l4lb.plan.limits import Limits


def fingerprint(limits: Limits) -> str:
    """16 hex digits that differ when the maps' types, sizes or values could differ.

    It is part of the pins' path: bcc takes any map it finds under a pin, of whatever type and size.
    """
    digest = hashlib.sha256(repr(limits).encode())
    for name in ("abi.h", "maps.h"):
        digest.update((BPF_DIR / name).read_bytes())
    return digest.hexdigest()[:16]


def balancer_source(modes: Iterable[Mode], seed: int, maps: Path, limits: Limits) -> Source:
    """The balancer for VIPs of these modes only, with its maps pinned in a folder and its flow hash keyed by `seed`."""
    wanted = frozenset(modes)
    names = ("FLOW_KEY", "FLOW_MUL0", "FLOW_MUL1", "FLOW_MUL2")
    return Source(
        text=inline(BPF_DIR / "l4lb.c"),
        function="l4lb",
        switches={
            **{name.upper(): str(value) for name, value in asdict(limits).items()},
            **{name: f"{value:#x}ULL" for name, value in zip(names, seeds(seed), strict=True)},
            **{f"WITH_{mode.name}": str(int(mode in wanted)) for mode in Mode},
            "PINS": f'"{maps}"',
        },
    )
