"""A stand-in for a kernel source tree, made of the UAPI headers that every development package has.

bcc wants the headers of the running kernel. An XDP program needs none of them: the few files that bcc's own prelude
includes are here, empty or with the handful of types it uses, and everything else is an installed UAPI header. So the
program compiles on any kernel, custom and cloud ones too, and in a fraction of the time.
"""

import platform
from pathlib import Path

from l4lb.errors import L4lbError

_KCONFIG = """\
#define CONFIG_BPF_SYSCALL 1
#include <linux/types.h>
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;
typedef _Bool bool;
typedef __SIZE_TYPE__ size_t;
typedef __UINTPTR_TYPE__ uintptr_t;
#define PAGE_SIZE 4096
#define NULL ((void *)0)
"""


_SYSTEM = Path("/usr/include")


def include_flags() -> list[str]:
    """Compiler flags that lead to the installed UAPI headers."""
    folders = [_SYSTEM, _SYSTEM / f"{platform.machine()}-linux-gnu"]
    return [flag for folder in folders for flag in ("-isystem", str(folder))]


def write_tree(root: Path) -> None:
    """Writes the tree below `root`, an empty folder, to be named by ``BCC_KERNEL_SOURCE``.

    Raises:
        L4lbError: the UAPI headers are not installed.
    """
    if_packet = _SYSTEM / "linux" / "if_packet.h"
    if not if_packet.is_file():
        raise L4lbError(
            f"the kernel's UAPI headers are missing ({if_packet})",
            "install linux-libc-dev (Debian, Ubuntu) or kernel-headers (Fedora, RHEL)",
        )
    include = root / "include"
    for folder in ("linux", "asm", "uapi/linux"):
        (include / folder).mkdir(parents=True)
    (include / "linux" / "kconfig.h").write_text(_KCONFIG)
    for empty in ("linux/log2.h", "asm/page.h", "uapi/linux/bpf.h"):  # bcc brings a bpf.h of its own
        (include / empty).touch()
    (include / "uapi" / "linux" / "if_packet.h").symlink_to(if_packet)
