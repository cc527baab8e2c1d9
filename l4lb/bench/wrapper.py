"""The wrapper of ``bpf/bench.c`` around a program under test: the kernel's test run, with a fresh frame each time."""

import asyncio
import mmap
import os
import struct
from contextlib import ExitStack
from pathlib import Path

import click

from l4lb.datapath import bpf, programs
from l4lb.datapath.source import BPF_DIR, Source, inline

_VERDICTS = {0: "XDP_ABORTED", 1: "XDP_DROP", 2: "XDP_PASS", 3: "XDP_TX", 4: "XDP_REDIRECT"}


class Wrapper:
    """Feeds frames in turn.

    Args:
        pins: a folder in a BPF file system.
        count: how many frames; a power of two.
        size: of each, in bytes; a multiple of 8.
        stack: what is opened is closed with it.

    Attributes:
        bare: a program that swaps the MAC addresses and sends.
        grow: one that makes room for an IPv4 header before.
    """

    def __init__(self, pins: Path, count: int, size: int, stack: ExitStack) -> None:
        folder = pins / f"bench{count}x{size}"
        folder.mkdir()
        switches = {"FRAMES": str(count), "FRAME_WORDS": str(size // 8), "PINS": f'"{folder}"'}
        for function in ("restore", "bare", "grow"):
            source = Source(inline(BPF_DIR / "bench.c"), function, switches)
            asyncio.run(programs.ensure(source, folder / function))
        names = ("restore", "bare", "grow", "under_test", "frames")
        self._restore, self.bare, self.grow, self._programs, frames = (bpf.open_pin(folder / name) for name in names)
        for fd in (self._restore, self.bare, self.grow, self._programs, frames):
            stack.callback(os.close, fd)
        self._count = count
        self._memory = mmap.mmap(frames, -(-count * size // mmap.PAGESIZE) * mmap.PAGESIZE)
        stack.callback(self._memory.close)
        self._frame = bytes(size)

    def load(self, frames: bytes) -> None:
        """Takes over the frames, over and over if there are fewer than it holds."""
        whole, rest = divmod(self._count * len(self._frame), len(frames))
        data = frames * whole + frames[:rest]
        self._memory[: len(data)] = data

    def run(self, program: int, repeat: int, verdict: int) -> int:
        """Nanoseconds per packet as the kernel measures them, rounded down, the wrapper included.

        Measured from outside they would be some milliseconds more altogether, in which the kernel waits for others.

        Raises:
            click.ClickException: the last packet has another verdict.
        """
        bpf.map_update(self._programs, 0, struct.pack("=I", program))
        run = bpf.run_on_packet(self._restore, self._frame, repeat)
        if run.verdict != verdict:
            raise click.ClickException(
                f"a packet ended in {_VERDICTS[run.verdict]} instead of {_VERDICTS[verdict]}: nothing to measure"
            )
        return run.nanoseconds
