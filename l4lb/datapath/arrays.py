"""Pinned arrays, opened with a check of what they are, and mapped into memory where they can be.

A store is seen by the next packet with no system call in between. One of 8 aligned bytes is one instruction, and on
x86-64 no later one overtakes it.
"""

import ctypes
import mmap
import os
from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from l4lb.datapath import bpf
from l4lb.errors import L4lbError


def open_array(path: Path, value_size: int, entries: int, files: ExitStack) -> int:
    """Opens a pinned map until `files` is closed.

    Raises:
        L4lbError: it is not there, or not the one expected there.
    """
    fd = bpf.open_pin(path)
    files.callback(os.close, fd)
    found = bpf.info(fd, bpf.MapInfo)
    if (found.value_size, found.max_entries) != (value_size, entries):
        raise L4lbError(
            f"{path} holds {found.max_entries:,} values of {found.value_size} bytes"
            f" instead of {entries:,} of {value_size}",
            "remove the pins with `l4lb unload`",
        )
    return fd


def counters(fd: int, names: Iterable[str]) -> dict[str, int]:
    """The counters in a per-CPU array, by their names in order: all CPUs together."""
    size = 8 * bpf.possible_cpus()
    return {name: sum(array("Q", bpf.map_lookup(fd, number, size))) for number, name in enumerate(names)}


class MappedArray:
    """One map in memory: an array of values whose sizes are multiples of 8 bytes."""

    def __init__(self, path: Path, value_size: int, entries: int, files: ExitStack) -> None:
        fd = open_array(path, value_size, entries, files)
        self._size = value_size
        self._memory = mmap.mmap(fd, -(-entries * value_size // mmap.PAGESIZE) * mmap.PAGESIZE)
        files.callback(self._memory.close)

    def read(self, number: int, length: int) -> bytes:
        """`length` bytes from the start of a value."""
        return self._memory[number * self._size : number * self._size + length]

    def write(self, number: int, data: bytes) -> None:
        """Copies `data` over the array from the start of a value; a packet may see a part of it."""
        self._memory[number * self._size : number * self._size + len(data)] = data

    def store(self, number: int, word: int, offset: int = 0) -> None:
        """Stores 8 bytes at once."""
        ctypes.c_uint64.from_buffer(self._memory, number * self._size + offset).value = word

    def load(self, number: int, offset: int = 0) -> int:
        """Loads 8 bytes at once."""
        value: int = ctypes.c_uint64.from_buffer(self._memory, number * self._size + offset).value
        return value

    def used(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """The values whose byte at `offset` is not 0, by number."""
        marks = self._memory[offset :: self._size]
        return ((number, self.read(number, self._size)) for number, mark in enumerate(marks) if mark)
