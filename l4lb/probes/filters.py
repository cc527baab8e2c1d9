"""Which packets a packet socket takes, as a classic BPF program: answers to probes, of all that comes to the gateway.

It begins at the IP header. What it lets through still has to be looked at.
"""

import ctypes
import socket
import struct
from collections.abc import Collection

from l4lb.probes.packets import ACK, ERROR_TYPES, RST, SYN, TCP, UDP, IPAddress

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, jump if false, constant
_PROGRAM = struct.Struct("HP")  # struct sock_fprog: how many, and where

# uapi/linux/bpf_common.h: a word, half-word or byte at a constant place, or at one behind X
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _LOAD_BYTE_BEHIND_X = 0x20, 0x28, 0x30, 0x50
_X_HEADER_LENGTH, _X_CONSTANT = 0xB1, 0x01  # 4 * (byte & 15), an IPv4 header's length; a number
_IF_EQUAL, _IF_SET, _AND, _GO, _RETURN = 0x15, 0x45, 0x54, 0x05, 0x06

_TAKE = (_RETURN, 0, 0, 0x40000)  # so many bytes of it
_LEAVE = (_RETURN, 0, 0, 0)

MOST_ADDRESSES = 64  # the kernel takes 4,096 instructions

_Instruction = tuple[int, int, int, int]


def attach(sock: socket.socket, version: int, addresses: Collection[IPAddress]) -> None:
    """Has a packet socket take only what may answer probes from these addresses, of one IP version; replaces a filter.

    Raises:
        OSError: the kernel refuses.
    """
    program = b"".join(_INSTRUCTION.pack(*instruction) for instruction in _answers(version, addresses))
    instructions = ctypes.create_string_buffer(program, len(program))
    sock.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_FILTER,
        _PROGRAM.pack(len(program) // _INSTRUCTION.size, ctypes.addressof(instructions)),
    )


def _answers(version: int, addresses: Collection[IPAddress]) -> list[_Instruction]:
    words = [address.packed for address in addresses if address.version == version]
    program = [instruction for address in words for instruction in _goes_to(address, 16 if version == 4 else 24)]
    # Each address jumps to behind the last one, over what tells that it is none of them.
    program = [
        (code, then, otherwise, len(program) - place if code == _GO else constant)
        for place, (code, then, otherwise, constant) in enumerate(program)
    ]
    return [*program, _LEAVE, *_of_kind(version)]


def _goes_to(address: bytes, offset: int) -> list[_Instruction]:
    """Goes away if this is the destination, and on if it is not."""
    count = len(address) // 4
    program: list[_Instruction] = []
    for number, (word,) in enumerate(struct.iter_unpack("!I", address)):
        program += [
            (_LOAD_WORD, 0, 0, offset + 4 * number),
            (_IF_EQUAL, 0, 2 * (count - number) - 1, word),
        ]
    return [*program, (_GO, 0, 0, 0)]


def _of_kind(version: int) -> list[_Instruction]:
    """Takes what answers a SYN, all datagrams, and errors; no fragment but a first one."""
    if version == 4:
        protocol_at, icmp = 9, socket.IPPROTO_ICMP
        before: list[_Instruction] = [
            (_LOAD_HALF, 0, 0, 6),
            (_IF_SET, 0, 1, 0x1FFF),
            _LEAVE,
            (_X_HEADER_LENGTH, 0, 0, 0),
        ]
    else:
        protocol_at, icmp = 6, socket.IPPROTO_ICMPV6
        before = [(_X_CONSTANT, 0, 0, 40)]
    return [
        *before,
        (_LOAD_BYTE, 0, 0, protocol_at),
        (_IF_EQUAL, 0, 1, UDP),
        _TAKE,
        (_IF_EQUAL, 0, 7, TCP),
        (_LOAD_BYTE_BEHIND_X, 0, 0, 13),
        (_IF_SET, 0, 1, RST),
        _TAKE,
        (_AND, 0, 0, SYN | ACK),
        (_IF_EQUAL, 0, 1, SYN | ACK),
        _TAKE,
        _LEAVE,
        (_IF_EQUAL, 1, 0, icmp),
        _LEAVE,
        (_LOAD_BYTE_BEHIND_X, 0, 0, 0),
        *(instruction for type_ in ERROR_TYPES[version] for instruction in ((_IF_EQUAL, 0, 1, type_), _TAKE)),
        _LEAVE,
    ]
