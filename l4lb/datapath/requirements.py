"""What has to be true of a machine before l4lb can work on it, checked before anything is touched."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from l4lb.errors import L4lbError

# 5.12 has compare-and-exchange, 5.11 the coarse clock, 5.9 links for XDP; 5.15 is the long-term kernel after them.
OLDEST_KERNEL = (5, 12)

# Positions in the sets of /proc/self/status (uapi/linux/capability.h).
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_BPF": 39, "CAP_PERFMON": 38}


def check_machine() -> None:
    """Checks kernel and privileges.

    Raises:
        L4lbError: either is not enough.
    """
    check_kernel(os.uname().release)
    check_capabilities(Path("/proc/self/status").read_text())


def check_kernel(release: str) -> None:
    """Refuses a kernel that is too old; `release` as ``uname -r`` prints it."""
    if kernel_version(release) < OLDEST_KERNEL:
        oldest = ".".join(map(str, OLDEST_KERNEL))
        raise L4lbError(f"kernel {release} is too old", f"l4lb needs Linux {oldest} or newer")


def kernel_version(release: str) -> tuple[int, ...]:
    """The first two numbers of what ``uname -r`` prints."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])


def check_capabilities(status: str) -> None:
    """Refuses a process that may not load programs; `status` is the text of ``/proc/self/status``."""
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    held = int(effective[1], 16) if effective else 0
    missing = [name for name, position in _CAPABILITIES.items() if not held >> position & 1]
    if missing:
        raise L4lbError(
            f"l4lb may not load programs ({', '.join(missing)} missing)",
            "run it as root, by sudo or as a service",
        )


def forwarding_off(interfaces: Iterable[str], version: int) -> list[str]:
    """Those of the interfaces on which the kernel does not forward an IP version, as the answers of backends need.

    Each interface has a setting. IPv6 asks for the common one as well: only the route look-up goes by the interface's.
    """
    common_is_off = version == 6 and not _is_on(Path("/proc/sys/net/ipv6/conf/all/forwarding"))
    settings = {name: Path(f"/proc/sys/net/ipv{version}/conf/{name}/forwarding") for name in interfaces}
    return [name for name, setting in settings.items() if common_is_off or not _is_on(setting)]


def _is_on(setting: Path) -> bool:
    """Whether a kernel parameter is not 0; one that is not there, as without IPv6, counts as off."""
    return setting.exists() and setting.read_text().strip() != "0"
