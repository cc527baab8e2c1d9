"""On a backend: the program that takes outer headers off (``bpf/decap.c``), attached and then left alone.

There is no daemon. Everything is in the pins' folder, so the next command finds it:

    PINS/decap_<layout>/reasons                     the counters, which outlive every change of VIPs
    PINS/decap_<layout>/vips_<GUE port>_<setup>     the VIPs of one setup; read only by its program
    PINS/program_<GUE port>_<setup>                 that program
    PINS/link_<mode>_<ifindex>                      what holds it on an interface

Nothing that a program on an interface reads is ever changed: another setup is another map and another program, and the
links go from one program to the other between two packets.
"""

import asyncio
import contextlib
import hashlib
import shutil
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute

from l4lb.balance.flowhash import address_words
from l4lb.datapath import addresses, attach, bpf, programs
from l4lb.datapath.abi import Abi
from l4lb.datapath.arrays import counters
from l4lb.datapath.links import Device, choose, read_devices
from l4lb.datapath.pins import Pins, on_bpf_fs
from l4lb.datapath.requirements import check_machine
from l4lb.datapath.source import BPF_DIR, Source, inline
from l4lb.datapath.values import address_of
from l4lb.errors import L4lbError, UsageError
from l4lb.model import IPAddress
from l4lb.plan.limits import Limits
from l4lb.rules import address_problems

_WORDS = struct.Struct("<QQ")  # struct address in bpf/decap.c
_GLOBAL = 0  # RT_SCOPE_UNIVERSE
_LOOPBACK = 1  # its index in every network namespace


@cache
def _header() -> str:
    return (BPF_DIR / "decap_abi.h").read_text()


def max_vips() -> int:
    """How many VIPs there is room for."""
    return Abi(_header()).constants["MAX_DECAP_VIPS"]


def reason_names() -> tuple[str, ...]:
    """The reasons' names as users meet them (``decap_ipv4_in_ipv4``), by their position in the kernel's counters."""
    return Abi(_header()).names("decap_reason")


@dataclass(frozen=True, slots=True)
class Setup:
    """What is taken off: headers before packets for these VIPs, and GUE's if they came to this UDP port."""

    vips: frozenset[IPAddress]
    gue_port: int

    @property
    def name(self) -> str:
        """In the pins: the GUE port, and 16 hex digits that differ when VIPs or program do."""
        vips = "".join(sorted(f"{vip}\n" for vip in self.vips))
        digest = hashlib.sha256(f"{vips}{inline(BPF_DIR / 'decap.c')}".encode()).hexdigest()[:16]
        return f"{self.gue_port}_{digest}"


def decap_source(setup: Setup, reasons: Path, vips: Path) -> Source:
    """The program for a setup, with its maps pinned at these two paths."""
    return Source(
        text=inline(BPF_DIR / "decap.c"),
        function="decap",
        switches={"GUE_PORT": str(setup.gue_port), "REASONS": f'"{reasons}"', "VIPS": f'"{vips}"'},
    )


class DecapPins(Pins):
    """The folder's paths and its lock."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, Limits())
        self.maps = root / f"decap_{hashlib.sha256(_header().encode()).hexdigest()[:16]}"
        self.reasons = self.maps / "reasons"

    def vips(self, setup: str) -> Path:
        """Where a setup's VIPs are, by the setup's name."""
        return self.maps / f"vips_{setup}"

    def prepare(self) -> None:
        """Makes the folders and locks them; mounts the BPF file system at its usual place if it is not.

        Raises:
            L4lbError: another command has them, they are a balancer's, or they would not last.
        """
        if self.root.is_dir() and any(self.root.glob("maps_*")):
            raise L4lbError(f"{self.root} is the folder of an `l4lb run`", "name another one with --pins")
        if not on_bpf_fs(self.root.parent) and not _mounts_last():
            raise L4lbError(
                f"{self.root} would be gone when this command ends, as its mount namespace is",
                "enter the network namespace by `nsenter --net`, or name a folder in a BPF file system by --pins",
            )
        try:
            super().prepare()
        except L4lbError as error:
            if isinstance(error.__cause__, BlockingIOError):
                raise L4lbError(f"another `l4lb decap` works on {self.root}", "try again when it is done") from error
            raise

    def forget_all_but(self, program: Path) -> None:
        """Removes programs and maps of earlier setups and versions."""
        setup = program.name.removeprefix("program_")
        for path in (*self.root.glob("program_*"), *self.maps.glob("vips_*")):
            if path not in (program, self.vips(setup)):
                path.unlink()
        for folder in self.root.glob("decap_*"):
            if folder != self.maps:
                shutil.rmtree(folder)

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """Locked, for the length of a with block."""
        self.prepare()
        try:
            yield
        finally:
            self.release()


def _mounts_last() -> bool:
    """Whether what is mounted here is there for the processes that started this one: `ip netns exec` hides it."""
    process, namespaces = "self", set()
    with contextlib.suppress(FileNotFoundError):  # ended, or hidden
        while process != "0":
            with contextlib.suppress(PermissionError):  # another user's, or a container's first
                namespaces.add(Path(f"/proc/{process}/ns/mnt").readlink())
            process = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]
    return len(namespaces) == 1


@dataclass(frozen=True, slots=True)
class Host:
    """Of the host, what matters here: its interfaces, all its addresses, and those by which it serves VIPs."""

    devices: Mapping[int, Device]
    addresses: frozenset[IPAddress]
    vips: frozenset[IPAddress]


def host_of(devices: Mapping[int, Device], messages: Iterable[Mapping[str, Any]]) -> Host:
    """From the kernel's interfaces and its messages about addresses (RTM_NEWADDR)."""
    found = set()
    for message in messages:
        found.add((addresses.address_of(message), message["index"] == _LOOPBACK and message["scope"] == _GLOBAL))
    return Host(
        devices, frozenset(address for address, _ in found), frozenset(address for address, is_vip in found if is_vip)
    )


async def _read_host() -> Host:
    async with AsyncIPRoute() as ipr:
        return host_of(await read_devices(ipr), [message async for message in await ipr.addr("dump")])


def chosen_vips(named: Collection[IPAddress], host: Host) -> frozenset[IPAddress]:
    """The VIPs that were named; if none was, those on the loopback interface.

    Raises:
        UsageError: one cannot be a VIP, or there are too many.
        L4lbError: there is none.
    """
    for address in named:
        for problem in address_problems("VIP", address):
            raise problem
    vips = frozenset(named) or host.vips
    if not vips:
        raise L4lbError(
            "no VIP is on the loopback interface",
            "put it there with `ip address add ADDRESS dev lo`, or name it with --vip",
        )
    if len(vips) > max_vips():
        raise UsageError(f"{len(vips):,} VIPs are more than there is room for", f"{max_vips():,} fit")
    return vips


@dataclass(frozen=True, slots=True)
class Decap:
    """One interface that the program is on, and what it does there."""

    name: str
    xdp_mode: str
    setup: Setup


@dataclass(frozen=True, slots=True)
class Status:
    """What is at work.

    Attributes:
        reasons: how many packets ended for each, since the program was first attached.
        missing: VIPs that are no addresses of the host, so that their packets come to nothing.
    """

    interfaces: tuple[Decap, ...]
    reasons: Mapping[str, int]
    missing: frozenset[IPAddress]


def install(
    root: Path, names: Iterable[str], vips: Collection[IPAddress], gue_port: int, mode: str
) -> tuple[Setup, frozenset[IPAddress]]:
    """Puts the program on these interfaces for these VIPs, and takes it off all others.

    Answers what it does now, and which of the VIPs are no addresses of this host. What was there before is replaced
    between two packets.

    Args:
        root: the pins' folder.
        names: of interfaces.
        vips: those on the loopback interface if there are none.
        gue_port: the UDP port at which GUE comes in.
        mode: of XDP, ``native`` or ``generic``.

    Raises:
        L4lbError: it cannot be; then all is as before.
    """
    check_machine()
    host = asyncio.run(_read_host())
    interfaces = {link.ifindex: link.name for link in choose(host.devices, names)}
    setup = Setup(chosen_vips(vips, host), gue_port)
    pins = DecapPins(root)
    with pins.prepared():
        program = load(pins, setup)
        attach.attach(program, pins, interfaces, mode)
        pins.forget_all_but(program)
    return setup, setup.vips - host.addresses


def load(pins: DecapPins, setup: Setup) -> Path:
    """The pin of a setup's program, which is made with its maps if it is not there.

    Raises:
        ProgramError: it cannot be compiled or loaded.
    """
    program, vips = pins.program(setup.name), pins.vips(setup.name)
    asyncio.run(programs.ensure(decap_source(setup, pins.reasons, vips), program))
    with bpf.opened(vips) as table:
        for vip in setup.vips:
            bpf.map_insert(table, _WORDS.pack(*address_words(vip)), b"\1")
    return program


def remove(root: Path) -> list[str]:
    """Takes the program off, and its pins away; answers the names of the interfaces that it was on.

    Raises:
        L4lbError: no permission, or the folder is another's.
    """
    check_machine()
    if not root.exists():
        return []
    devices = asyncio.run(_read_host()).devices
    pins = DecapPins(root)
    with pins.prepared():
        indexes = [attach.detach(pin) for pin in pins.links().values()]
        shutil.rmtree(root)
    return sorted(devices[ifindex].name for ifindex in indexes if ifindex in devices)


def status(root: Path) -> Status:
    """What is at work under `root`.

    Raises:
        L4lbError: nothing is.
    """
    check_machine()
    pins = DecapPins(root)
    host = asyncio.run(_read_host())
    if pins.links() and not pins.maps.exists():
        raise L4lbError(
            f"another version of l4lb attached what is in {root}", "run `l4lb decap --interface IF` to replace it"
        )
    interfaces = tuple(_interfaces(pins, host.devices))
    if not interfaces:
        raise L4lbError(
            f"no decapsulation is at work by {root}", "begin it with `l4lb decap --interface IF`, or see --pins"
        )
    vips = frozenset(vip for interface in interfaces for vip in interface.setup.vips)
    return Status(interfaces, read_reasons(pins.reasons), vips - host.addresses)


def _interfaces(pins: DecapPins, devices: Mapping[int, Device]) -> Iterator[Decap]:
    setups = {}
    for path in pins.root.glob("program_*"):
        with bpf.opened(path) as program:
            setups[bpf.info(program, bpf.ProgramInfo).id] = path.name.removeprefix("program_")
    for (mode, _), path in sorted(pins.links().items()):
        with bpf.opened(path) as link:
            found = bpf.info(link, bpf.LinkInfo)
        if found.ifindex in devices and found.program in setups:
            yield Decap(devices[found.ifindex].name, mode, _read_setup(pins, setups[found.program]))


def _read_setup(pins: DecapPins, name: str) -> Setup:
    with bpf.opened(pins.vips(name)) as table:
        vips = frozenset(address_of(*_WORDS.unpack(key)) for key in bpf.map_keys(table, _WORDS.size))
    return Setup(vips, int(name.partition("_")[0]))


def read_reasons(pin: Path) -> dict[str, int]:
    """How many packets ended for each reason, all CPUs together."""
    with bpf.opened(pin) as table:
        return counters(table, reason_names())
