"""A flood of frames, each from another client: into a program under test, or out of an interface."""

import asyncio
import ctypes
import os
import struct
from contextlib import ExitStack
from pathlib import Path

from l4lb.datapath import bpf, programs
from l4lb.datapath.source import BPF_DIR, Source, inline
from l4lb.errors import KernelError

_SOURCE_ENDS = {0x0800: 26, 0x86DD: 34}  # where the last four bytes of the source address are, by EtherType
_LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES, uapi/linux/bpf.h


class Flood:
    """Frames that are alike but for their source address, whose last four bytes count up from the first frame's.

    Checksums stay as they are in the first frame, so whoever gets the others throws them away.

    Args:
        folder: for pins, in a BPF file system.
        frame: the first; a multiple of 8 bytes.
        stack: what is opened is closed with it.
    """

    def __init__(self, folder: Path, frame: bytes, stack: ExitStack) -> None:
        folder.mkdir()
        source_at = _SOURCE_ENDS[int.from_bytes(frame[12:14], "big")]
        switches = {
            "FRAME_WORDS": str(len(frame) // 8),
            "SOURCE_AT": str(source_at),
            "PINS": f'"{folder}"',
        }
        source = Source(inline(BPF_DIR / "flood.c"), "flood", switches)
        asyncio.run(programs.ensure(source, folder / "flood"))
        names = ("flood", "frame", "under_test")
        self._program, template, self._under_test = (bpf.open_pin(folder / name) for name in names)
        for fd in (self._program, template, self._under_test):
            stack.callback(os.close, fd)
        bpf.map_update(template, 0, frame)
        self._frame = frame

    def into(self, program: int, count: int) -> bpf.PacketRun:
        """Runs a program on so many frames; what became of the last."""
        bpf.map_update(self._under_test, 0, struct.pack("=I", program))
        return bpf.run_on_packet(self._program, self._frame, count)

    def out_of(self, ifindex: int, count: int) -> None:
        """Sends so many frames out of an interface of the calling thread's namespace; some get lost where it is full.

        Raises:
            KernelError: the kernel refuses.
        """
        data = ctypes.create_string_buffer(self._frame, len(self._frame))
        context = _Context(data_end=len(self._frame), ingress_ifindex=ifindex)
        options = _Options(
            size=ctypes.sizeof(_Options),
            data_in=ctypes.addressof(data),
            ctx_in=ctypes.addressof(context),
            data_size_in=len(self._frame),
            ctx_size_in=ctypes.sizeof(context),
            repeat=count,
            flags=_LIVE_FRAMES,
        )
        libbpf = ctypes.CDLL("libbpf.so.1")
        result = libbpf.bpf_prog_test_run_opts(self._program, ctypes.byref(options))
        if result < 0:
            raise KernelError("send frames", -result)


class _Context(ctypes.Structure):
    """``struct xdp_md``."""

    _fields_ = tuple(
        (name, ctypes.c_uint32)
        for name in ("data", "data_end", "data_meta", "ingress_ifindex", "rx_queue_index", "egress_ifindex")
    )


class _Options(ctypes.Structure):
    """``struct bpf_test_run_opts``."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        *((name, ctypes.c_void_p) for name in ("data_in", "data_out")),
        *((name, ctypes.c_uint32) for name in ("data_size_in", "data_size_out")),
        *((name, ctypes.c_void_p) for name in ("ctx_in", "ctx_out")),
        *((name, ctypes.c_uint32) for name in ("ctx_size_in", "ctx_size_out", "retval")),
        ("repeat", ctypes.c_int32),
        *((name, ctypes.c_uint32) for name in ("duration", "flags", "cpu", "batch_size")),
    )
