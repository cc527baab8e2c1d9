"""Nanoseconds per packet, net of what a bare MAC-swap-and-transmit program takes in the same run.

The kernel's test run repeats a program on one packet without putting it back. So a wrapper (``bpf/bench.c``) copies a
fresh frame over it and then tail-calls the program under test. The same wrapper around the bare program is subtracted.
"""

import asyncio
import itertools
import mmap
import os
import random
import re
import statistics
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

import click

from l4lb.datapath import bpf, programs
from l4lb.datapath.checksum import sum_words
from l4lb.datapath.links import mac_bytes
from l4lb.datapath.source import BPF_DIR, Source, inline
from l4lb.lab.testbed import CLIENT, CLIENT_MAC, GATEWAY_MAC, LOOPBACK, Testbed, testbed
from l4lb.model import Backend, Config, Endpoint, IPAddress, Mode, Protocol, Vip
from l4lb.plan.limits import Limits

BACKEND_MAC = "02:00:00:00:00:04"
VIPS = {Mode.NAT: IPv4Address("192.0.2.1"), Mode.DSR: IPv4Address("192.0.2.2")}
PORTS = {Mode.NAT: 8080, Mode.DSR: 80}
MOVED_VIP = IPv4Address("192.0.2.3")  # by nat; every one of its slots is unsettled
MOVED_PORT = 8081
BACKENDS = [IPv4Address("10.2.0.0") + number for number in range(1, 101)]
FRAME = 64  # bytes, as bpf/bench.c has them
XDP_TX, XDP_PASS, XDP_REDIRECT = 3, 2, 4
SYN, ACK = 0x02, 0x10

# kind, number of flows, verdict
ROWS = [
    ("bare", 1, XDP_TX),
    ("bare", 1 << 16, XDP_TX),
    ("nat in", 1, XDP_TX),
    ("nat in", 1 << 16, XDP_TX),
    ("nat back", 1, XDP_REDIRECT),
    ("nat back", 1 << 16, XDP_REDIRECT),
    ("dsr", 1, XDP_TX),
    ("dsr", 1 << 16, XDP_TX),
    ("unsettled", 1, XDP_TX),
    ("unsettled", 1 << 16, XDP_TX),
    ("new flow", 1, XDP_TX),
    ("new flow", 1 << 16, XDP_TX),
    ("no VIP", 1, XDP_PASS),
]


class Wrapper:
    """The wrapper around a program, feeding it `count` frames in turn."""

    def __init__(self, bed: Testbed, count: int, stack: ExitStack) -> None:
        folder = bed.pins / f"bench{count}"
        folder.mkdir()
        switches = {"FRAMES": str(count), "PINS": f'"{folder}"'}
        for function in ("restore", "bare"):
            source = Source(inline(BPF_DIR / "bench.c"), function, switches)
            asyncio.run(programs.ensure(source, bed.pins / f"{function}{count}"))
        self._restore, self.bare, self._programs, frames = (
            bpf.open_pin(path)
            for path in (
                bed.pins / f"restore{count}", bed.pins / f"bare{count}", folder / "under_test", folder / "frames"
            )
        )  # fmt: skip
        for fd in (self._restore, self.bare, self._programs, frames):
            stack.callback(os.close, fd)
        self._frames = mmap.mmap(frames, -(-count * FRAME // mmap.PAGESIZE) * mmap.PAGESIZE)
        stack.callback(self._frames.close)

    def measure(self, program: int, frames: list[bytes], repeat: int, verdict: int) -> float:
        """Nanoseconds per packet, wrapper included."""
        bpf.map_update(self._programs, 0, struct.pack("=I", program))
        data = b"".join(frames)
        self._frames[: len(data)] = data
        if bpf.run_on_packet(self._restore, frames[0]).verdict != verdict:
            raise click.ClickException(f"a packet has another verdict than {verdict}: nothing to measure")
        began = time.perf_counter()
        bpf.run_on_packet(self._restore, frames[0], repeat)
        return (time.perf_counter() - began) / repeat * 1e9


def tcp_frame(source: IPv4Address, sport: int, destination: IPv4Address, dport: int, flags: int = ACK) -> bytes:
    """A 64-byte frame with a TCP segment."""
    header = struct.pack("!BBHHHBBH", 0x45, 0, 50, 1, 0, 64, 6, 0) + source.packed + destination.packed
    header = header[:10] + struct.pack("<H", ~sum_words(header) & 0xFFFF) + header[12:]
    segment = struct.pack("!HHIIBBHHH", sport, dport, 1, 1, 0x50, flags, 512, 0, 0)
    return (mac_bytes(GATEWAY_MAC) + mac_bytes(CLIENT_MAC) + b"\x08\x00" + header + segment).ljust(FRAME, b"\0")


def frames_of(kind: str, flows: int) -> list[bytes]:
    """Frames of so many flows, in random order of what their look-ups touch."""
    numbers = random.Random(1)  # noqa: S311 - the same each time, so that runs compare
    client = IPv4Address(CLIENT)
    ports = [4000] if flows == 1 else [numbers.randrange(1024, 65_536) for _ in range(flows)]
    match kind:
        case "nat in":
            return [tcp_frame(client, port, VIPS[Mode.NAT], 80) for port in ports]
        case "nat back":
            return [tcp_frame(numbers.choice(BACKENDS), PORTS[Mode.NAT], client, port) for port in ports]
        case "unsettled":
            return [tcp_frame(client, port, MOVED_VIP, 80) for port in ports]
        case "new flow":
            return [tcp_frame(client, port, MOVED_VIP, 80, SYN) for port in ports]
        case "dsr":
            return [tcp_frame(client, port, VIPS[Mode.DSR], 80) for port in ports]
        case _:
            return [tcp_frame(client, port, IPv4Address("192.0.2.99"), 80) for port in ports]


@click.command()
@click.option("--runs", default=11, show_default=True, help="Runs of each row, in turns; the median counts.")
@click.option("--repeat", default=1_000_000, show_default=True, help="Packets in each run.")
@click.option("--cpu", default=(os.cpu_count() or 1) - 1, show_default=True, help="The processor to run on.")
def packet(runs: int, repeat: int, cpu: int) -> None:
    """Nanoseconds per packet for each way through the program, its size, and the memory of its maps."""
    if os.geteuid() != 0:
        raise click.ClickException("this loads BPF programs: run it as root")
    os.sched_setaffinity(0, {cpu})
    limits = Limits()
    with testbed(tuple(Mode), 0, limits) as bed, ExitStack() as stack:
        next_hops: dict[IPAddress, tuple[int, str]] = dict.fromkeys(BACKENDS, (LOOPBACK, BACKEND_MAC))
        for weights in (itertools.cycle((1, 0)), itertools.cycle((0, 1))):
            bed.configure(_config(weights), next_hops)
        wrappers = {flows: Wrapper(bed, flows, stack) for flows in {row[1] for row in ROWS}}
        frames = {(kind, flows): frames_of(kind, flows) for kind, flows, _ in ROWS}
        times: dict[tuple[str, int], list[float]] = {(kind, flows): [] for kind, flows, _ in ROWS}
        for _ in range(runs):
            for kind, flows, verdict in ROWS:
                wrapper = wrappers[flows]
                program = wrapper.bare if kind == "bare" else bed.program
                times[kind, flows].append(wrapper.measure(program, frames[kind, flows], repeat, verdict))
        _report(times, runs, cpu)
        _report_sizes(bed)


def _config(weights: Iterator[int]) -> Config:
    """A VIP of each mode, and one whose backends have these weights in turn."""
    vips = [
        Vip(
            mode,
            Endpoint(VIPS[mode], 80),
            Protocol.TCP,
            mode,
            backends=tuple(Backend(Endpoint(address, PORTS[mode])) for address in BACKENDS),
        )
        for mode in Mode
    ]
    moved = tuple(Backend(Endpoint(address, MOVED_PORT), next(weights)) for address in BACKENDS)
    return Config((*vips, Vip("moved", Endpoint(MOVED_VIP, 80), Protocol.TCP, backends=moved)))


def _report(times: dict[tuple[str, int], list[float]], runs: int, cpu: int) -> None:
    click.echo(f"ns per packet on CPU {cpu}, 64-byte TCP over IPv4, 100 backends, medians of {runs} runs\n")
    click.echo(f"{'':10}{'flows':>8}{'ns':>8}{'net':>8}{'lowest':>8}{'highest':>9}")
    for (kind, flows), values in times.items():
        middle = statistics.median(values)
        net = f"{middle - statistics.median(times['bare', flows]):.1f}" if kind != "bare" else "-"
        click.echo(f"{kind:10}{flows:>8,}{middle:>8.1f}{net:>8}{min(values):>8.1f}{max(values):>9.1f}")


def _report_sizes(bed: Testbed) -> None:
    size = bpf.info(bed.program, bpf.ProgramInfo)
    click.echo(f"\nprogram: {size.translated_bytes // 8:,} instructions, {size.jited_bytes:,} bytes of machine code")
    click.echo("\nmap               entries     value    memory")
    total = 0
    for path in sorted((bed.pins / "maps").iterdir()):
        with bpf.opened(path) as fd:
            found = bpf.info(fd, bpf.MapInfo)
            locked = _memory(fd)
        total += locked
        click.echo(f"{path.name:14}{found.max_entries:>11,}{found.value_size:>8} B{locked / 1e6:>7.2f} MB")
    click.echo(f"{'':33}{total / 1e6:>9.2f} MB")


def _memory(fd: int) -> int:
    """Bytes that the kernel holds for a map."""
    found = re.search(r"memlock:\s*(\d+)", Path(f"/proc/self/fdinfo/{fd}").read_text())
    return int(found[1]) if found else 0
