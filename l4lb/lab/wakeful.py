"""Makes the far end of a gateway's veth take frames at once.

Frames that an XDP program sends back out of the veth they came by (``XDP_TX``) wait in the far end's queue until
something wakes it, and the kernel does so only if a program is on that end too; GRO there is enough for redirects
alone. Real network cards have no such dependence.
"""

import ctypes
import os
import socket
from pathlib import Path

from pyroute2 import netns

from l4lb.datapath import bpf
from l4lb.errors import KernelError
from l4lb.lab.namespace import Namespace

_BPF_PROG_TYPE_XDP = 6  # uapi/linux/bpf.h
_PASS_ALL = bytes.fromhex("b700000002000000 9500000000000000")  # r0 = XDP_PASS; exit
_INSTRUCTION_BYTES = 8


def keep_awake(namespace: Namespace, interface: str, pin: Path) -> None:
    """Puts a program that passes every packet on an interface; it stays as long as the pin does."""
    program = _load()
    try:
        netns.pushns(namespace.name)
        try:
            link = bpf.link_xdp(program, socket.if_nametoindex(interface), bpf.XDP_FLAGS_DRV_MODE)
        finally:
            netns.popns()
    finally:
        os.close(program)
    try:
        bpf.pin(link, pin)
    finally:
        os.close(link)


def _load() -> int:
    libbpf = ctypes.CDLL("libbpf.so.1")
    instructions = ctypes.create_string_buffer(_PASS_ALL, len(_PASS_ALL))
    count = ctypes.c_size_t(len(_PASS_ALL) // _INSTRUCTION_BYTES)
    program: int = libbpf.bpf_prog_load(_BPF_PROG_TYPE_XDP, b"pass_all", b"GPL", instructions, count, None)
    if program < 0:
        raise KernelError("load a program of two instructions", -program)
    return program
