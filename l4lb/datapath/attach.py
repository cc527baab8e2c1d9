"""The program on the interfaces: attached by links that are pinned, so it stays when the daemon goes.

A link's program is replaced between two packets. It is never detached to be attached again: on real NICs the
carrier would drop.
"""

import errno
import os
from contextlib import ExitStack
from pathlib import Path

from l4lb.datapath import bpf
from l4lb.datapath.pins import Pins
from l4lb.errors import KernelError, L4lbError

_FLAGS = {"native": bpf.XDP_FLAGS_DRV_MODE, "generic": bpf.XDP_FLAGS_SKB_MODE}


def attach(program: Path, pins: Pins, interfaces: dict[int, str], mode: str) -> None:
    """Puts the pinned program on these interfaces (index to name), and takes it off all others that it was on.

    Raises:
        L4lbError: an interface's driver has no native XDP, or another program is on it. Then it is on no interface that
            it was not on before, and those that it was on keep what they had, unless their mode was to change.
    """
    with bpf.opened(program) as fd:
        before = pins.links()
        for (old_mode, ifindex), pin in before.items():
            if ifindex in interfaces and old_mode != mode:
                detach(pin)
        with ExitStack() as undo:
            # New ones first: what can be refused comes before what is changed for good.
            for ifindex, name in sorted(interfaces.items(), key=lambda item: (mode, item[0]) in before):
                pin = pins.link(mode, ifindex)
                if not pin.exists() or not _replace(pin, fd):
                    _attach(fd, ifindex, name, mode, pin)
                    undo.callback(detach, pin)
            undo.pop_all()
        for (_, ifindex), pin in before.items():
            if ifindex not in interfaces:
                detach(pin)


def detach(pin: Path) -> int:
    """Takes off what a link holds, and the pin away; answers the index of the interface, 0 if that is gone."""
    with bpf.opened(pin) as link:
        ifindex = bpf.info(link, bpf.LinkInfo).ifindex
        if ifindex:
            bpf.link_detach(link)
    pin.unlink()
    return ifindex


def _replace(pin: Path, program: int) -> bool:
    """False if the link's interface is gone; then so is the pin."""
    with bpf.opened(pin) as link:
        if bpf.info(link, bpf.LinkInfo).ifindex:
            bpf.link_update(link, program)
            return True
    pin.unlink()
    return False


def _attach(program: int, ifindex: int, name: str, mode: str, pin: Path) -> None:
    try:
        link = bpf.link_xdp(program, ifindex, _FLAGS[mode])
    except KernelError as error:
        raise _explained(error, name, mode) from error
    try:
        bpf.pin(link, pin)
    finally:
        os.close(link)


def _explained(error: KernelError, name: str, mode: str) -> L4lbError:
    if error.errno == errno.EOPNOTSUPP and mode == "native":
        return L4lbError(
            f"the driver of {name} has no native XDP",
            "use another interface, or accept the slower --xdp-mode generic",
        )
    if error.errno in (errno.EBUSY, errno.EEXIST):
        return L4lbError(f"another XDP program is on {name}", f"take it off with `ip link set dev {name} xdp off`")
    if error.errno == errno.ERANGE or error.errno == errno.EINVAL:
        return L4lbError(
            f"{name} cannot run XDP as it is set up (MTU, LRO or channels; {os.strerror(error.errno)})",
            "the kernel's log (dmesg) says which",
        )
    return L4lbError(f"cannot put the program on {name}: {os.strerror(error.errno)}", "see the kernel's log (dmesg)")
