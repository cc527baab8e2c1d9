"""What a worker process gives up before it talks to anybody.

It stays the user that the daemon is, as it loads modules and certificates when they are needed, but root without
capabilities has no more rights than the owner of root's files.
"""

import ctypes
import os
import resource

# uapi/linux/capability.h and prctl.h
_CAP_KILL, _CAP_SETGID, _CAP_SETUID, _CAP_SETPCAP, _CAP_NET_RAW = 5, 6, 7, 8, 13
_KEPT = (
    _CAP_NET_RAW,  # ICMP sockets where ping_group_range has no place for us; marks on packets
    _CAP_SETUID,  # programs of exec checks run as another user,
    _CAP_SETGID,
    _CAP_KILL,  # and are ended when they take too long
)
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Words(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def drop() -> None:
    """Gives up all capabilities but those that checks need, for this process and all programs that it starts.

    Programs that it starts get none from their files either (setuid, file capabilities). Without root there is less to
    give up.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4

    def call(function: str, *arguments: object) -> int:
        result: int = getattr(libc, function)(*arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), f"{function}: {os.strerror(ctypes.get_errno())}")
        return result

    header, sets = _Header(_LINUX_CAPABILITY_VERSION_3, 0), (_Words * 2)()
    call("capget", ctypes.byref(header), sets)
    permitted = sets[0].permitted | sets[1].permitted << 32
    kept = permitted & sum(1 << capability for capability in _KEPT)
    if permitted >> _CAP_SETPCAP & 1:
        for capability in range(64):
            # Fails for the first one that the kernel does not have.
            if libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) < 0:
                break
            if not kept >> capability & 1:
                call("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)
    call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    sets[0] = _Words(kept & 0xFFFFFFFF, kept & 0xFFFFFFFF, 0)
    sets[1] = _Words(kept >> 32, kept >> 32, 0)
    call("capset", ctypes.byref(header), sets)
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def raise_open_files() -> int:
    """Allows this process as many open files as may be; how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
