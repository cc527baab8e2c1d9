"""Which program and maps a configuration and its limits need: the -D switches that ``bpf/`` is compiled with."""

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path

from l4lb.balance.flowhash import seeds
from l4lb.datapath.source import BPF_DIR, Source, inline
from l4lb.model import Config, Mode, Scheduler
from l4lb.plan import pools
from l4lb.plan.limits import Limits

MODES = tuple(mode.name for mode in Mode)
EXTRAS = ("MSS", "RANGES", "SOURCE_HASH", "TRACKING", "SHARED", "WATCHING")

# Everything that is compiled in only where it is wanted.
FEATURES = (*MODES, "IPV6", "VLAN", *EXTRAS)

Features = frozenset[str]

SWEEP = "l4lb_sweep"  # the function that forgets flows which schedulers count


def together(features: Features) -> Features:
    """The least that can be compiled of what has these: one mode or all, no extra or all.

    So there are few programs, each of which a test loads, and a change seldom asks for another one. All of it costs a
    packet some nanoseconds more than the one mode (``scripts/bench packet``).
    """
    modes = MODES if len(features.intersection(MODES)) > 1 else ()
    extras = EXTRAS if features.intersection(EXTRAS) else ()
    return features.union(modes, extras)


def every_program() -> Iterator[Features]:
    """All that :func:`together` can answer."""
    for modes in (*((mode,) for mode in MODES), MODES):
        for number in range(8):
            chosen = (("IPV6",), ("VLAN",), EXTRAS)
            yield frozenset(modes).union(*(names for bit, names in enumerate(chosen) if number >> bit & 1))


def features_of(config: Config, *, vlans: bool) -> Features:
    """What the program has to have for a configuration; `vlans`: whether there are VLANs on its interfaces."""
    # With nothing to do yet, what most will want first, so that the first VIP need not wait for a compiler.
    wanted = {vip.mode.name for vip in config.vips} or {Mode.NAT.name}
    for vip in config.vips:
        if vip.service.address.version == 6:
            wanted.add("IPV6")
        if vip.mss:
            wanted.add("MSS")
        if vip.passive:
            wanted.add("WATCHING")
        if not vip.service.is_single:
            wanted.add("RANGES")
        if vip.scheduler is Scheduler.SOURCE_HASH:
            wanted.add("SOURCE_HASH")
        if not vip.scheduler.hashes:
            wanted.add("TRACKING")
        for backend in vip.backends:
            if backend.endpoint.address.version == 6:
                wanted.add("IPV6")
    if pools.shared(config):
        wanted.add("SHARED")
    if vlans:
        wanted.add("VLAN")
    return together(frozenset(wanted))


def fingerprint(limits: Limits) -> str:
    """16 hex digits that differ when the maps' types, sizes or values could differ.

    It is part of the pins' path: bcc takes any map it finds under a pin, of whatever type and size.
    """
    digest = hashlib.sha256(repr(limits).encode())
    for name in ("abi.h", "maps.h"):
        digest.update((BPF_DIR / name).read_bytes())
    return digest.hexdigest()[:16]


def balancer_source(features: Collection[str], seed: int, maps: Path, limits: Limits) -> Source:
    """The balancer with these of :data:`FEATURES`, its maps pinned in a folder and its flow hash keyed by `seed`.

    With ``LRU``, which no configuration asks for, it looks each flow up in a table of the kernel's, for comparison.
    """
    names = ("FLOW_KEY", "FLOW_MUL0", "FLOW_MUL1", "FLOW_MUL2")
    return Source(
        text=inline(BPF_DIR / "l4lb.c"),
        function="l4lb",
        stages=("l4lb_rare4", "l4lb_rare6") if "IPV6" in features else ("l4lb_rare4",),
        errands=(SWEEP,) if "TRACKING" in features else (),
        switches={
            **{name.upper(): str(value) for name, value in asdict(limits).items()},
            **{name: f"{value:#x}ULL" for name, value in zip(names, seeds(seed), strict=True)},
            **{f"WITH_{feature}": str(int(feature in features)) for feature in FEATURES},
            "WITH_LRU": str(int("LRU" in features)),
            "LRU_ENTRIES": str(4 * limits.flow_lines),
            "PINS": f'"{maps}"',
        },
    )
