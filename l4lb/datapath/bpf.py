"""The kernel's BPF objects through libbpf, which is there wherever bcc is: file descriptors, pins, links, test runs.

Every function raises :class:`~l4lb.errors.KernelError` with the kernel's errno and the object's name.
"""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from l4lb.errors import KernelError, L4lbError

XDP_ATTACH_TYPE = 37  # BPF_XDP, uapi/linux/bpf.h
XDP_FLAGS_SKB_MODE = 1 << 1
XDP_FLAGS_DRV_MODE = 1 << 2


class MapInfo(ctypes.Structure):
    """The head of ``struct bpf_map_info``."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
    )
    type: int
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int


class ProgramInfo(ctypes.Structure):
    """The head of ``struct bpf_prog_info``."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_bytes", ctypes.c_uint32),
        ("translated_bytes", ctypes.c_uint32),
    )
    id: int
    jited_bytes: int
    translated_bytes: int


class LinkInfo(ctypes.Structure):
    """``struct bpf_link_info`` of an XDP link; `ifindex` is 0 once the interface is gone."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("program", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),  # what follows is a union with 8-byte members
        ("ifindex", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 15),
    )
    program: int
    ifindex: int


class _LinkOptions(ctypes.Structure):
    """``struct bpf_link_create_opts`` up to its flags."""

    _fields_ = (("size", ctypes.c_size_t), ("flags", ctypes.c_uint32), ("pad", ctypes.c_uint32))


class _TestRunOptions(ctypes.Structure):
    """``struct bpf_test_run_opts``."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int32),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


@cache
def _libbpf() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise L4lbError(f"libbpf is missing ({error})", "install python3-bpfcc, which brings it") from error


def _checked(result: int, action: str) -> int:
    """As libbpf answers with a negative errno."""
    if result < 0:
        raise KernelError(action, -result)
    return result


def open_pin(path: Path) -> int:
    """A new file descriptor of the object pinned at `path`."""
    return _checked(_libbpf().bpf_obj_get(os.fsencode(path)), f"open {path}")


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """The object pinned at `path`, for the length of a with block."""
    fd = open_pin(path)
    try:
        yield fd
    finally:
        os.close(fd)


def pin(fd: int, path: Path) -> None:
    """Keeps the object alive under `path` in a BPF file system."""
    _checked(_libbpf().bpf_obj_pin(fd, os.fsencode(path)), f"pin {path}")


_Info = TypeVar("_Info", MapInfo, ProgramInfo, LinkInfo)


def info(fd: int, kind: type[_Info]) -> _Info:
    """What the kernel says of a map, program or link."""
    answer = kind()
    size = ctypes.c_uint32(ctypes.sizeof(answer))
    _checked(_libbpf().bpf_obj_get_info_by_fd(fd, ctypes.byref(answer), ctypes.byref(size)), "describe a BPF object")
    return answer


@cache
def possible_cpus() -> int:
    """How many values a per-CPU map holds for each key."""
    return _checked(_libbpf().libbpf_num_possible_cpus(), "count the CPUs")


def map_lookup(fd: int, key: int, value_size: int) -> bytes:
    """The value of an array's element, `value_size` bytes (of a per-CPU array: every CPU's, one after another)."""
    value = ctypes.create_string_buffer(value_size)
    number = ctypes.c_uint32(key)
    _checked(_libbpf().bpf_map_lookup_elem(fd, ctypes.byref(number), value), f"read element {key} of a map")
    return value.raw


def map_update(fd: int, key: int, value: bytes) -> None:
    """Writes an array's element (of a per-CPU array: every CPU's, one after another)."""
    number = ctypes.c_uint32(key)
    _checked(_libbpf().bpf_map_update_elem(fd, ctypes.byref(number), value, 0), f"write element {key} of a map")


def map_insert(fd: int, key: bytes, value: bytes) -> None:
    """Writes an element of a hash map, which may be there already."""
    _checked(_libbpf().bpf_map_update_elem(fd, key, value, 0), "write an element of a map")


def map_keys(fd: int, key_size: int) -> Iterator[bytes]:
    """The keys of a hash map that nobody changes meanwhile."""
    key = ctypes.create_string_buffer(key_size)
    previous = None
    while (result := _libbpf().bpf_map_get_next_key(fd, previous, key)) != -errno.ENOENT:
        _checked(result, "read the keys of a map")
        yield key.raw
        previous = key


def map_delete(fd: int, key: int) -> None:
    """Deletes an element."""
    number = ctypes.c_uint32(key)
    _checked(_libbpf().bpf_map_delete_elem(fd, ctypes.byref(number)), f"delete element {key} of a map")


def link_xdp(program: int, ifindex: int, flags: int) -> int:
    """Attaches an XDP program to an interface; the link's file descriptor holds it there (kernel 5.9)."""
    options = _LinkOptions(size=ctypes.sizeof(_LinkOptions), flags=flags)
    return _checked(
        _libbpf().bpf_link_create(program, ifindex, XDP_ATTACH_TYPE, ctypes.byref(options)),
        f"attach the program to interface {ifindex}",
    )


def link_update(link: int, program: int) -> None:
    """Replaces a link's program between two packets (kernel 5.9)."""
    _checked(_libbpf().bpf_link_update(link, program, None), "replace the program")


def link_detach(link: int) -> None:
    """Takes a link's program off, at once; closing or unpinning the link would do so a little later (kernel 5.9)."""
    _checked(_libbpf().bpf_link_detach(link), "take the program off")


@dataclass(frozen=True, slots=True)
class PacketRun:
    """What a program made of a packet: its verdict, the packet afterwards, and nanoseconds per repeat."""

    verdict: int
    packet: bytes
    nanoseconds: int


def run_on_packet(program: int, packet: bytes, repeat: int = 1) -> PacketRun:
    """Runs an XDP program on a packet of 14 bytes or more, as if it came in by the loopback interface.

    The packet is not put back between repeats.
    """
    output = ctypes.create_string_buffer(len(packet) + 256)
    options = _TestRunOptions(
        size=ctypes.sizeof(_TestRunOptions),
        data_in=ctypes.cast(ctypes.c_char_p(packet), ctypes.c_void_p),
        data_out=ctypes.cast(output, ctypes.c_void_p),
        data_size_in=len(packet),
        data_size_out=len(output),
        repeat=repeat,
    )
    _checked(_libbpf().bpf_prog_test_run_opts(program, ctypes.byref(options)), "run the program on a packet")
    return PacketRun(options.retval, output.raw[: options.data_size_out], options.duration)


def wait_for_readers() -> None:
    """Returns when every packet that was being handled at the call has been dealt with.

    Programs run as RCU readers, and membarrier(2)'s global command waits for all of them. What no map leads to any
    more can be used again after this.
    """
    _checked(_membarrier(), "wait for an RCU grace period")


def _membarrier() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 324, "aarch64": 283}[os.uname().machine]
    result: int = libc.syscall(number, 1, 0, 0)  # MEMBARRIER_CMD_GLOBAL
    return -ctypes.get_errno() if result < 0 else result
