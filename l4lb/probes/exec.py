"""A user's program ends with status 0.

It runs without a shell, as an unprivileged user, in a session of its own, and knows nothing of the daemon but what is
meant for it. When it has ended or its time is over, its whole process group is killed; if this process dies, the
program does too.
"""

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator

from l4lb.health.check import Check
from l4lb.probes.accounts import Account, Accounts
from l4lb.probes.target import Target, Unwell

MAX_OUTPUT = 4_096  # bytes
_PATH = "/usr/local/bin:/usr/bin:/bin"
_DYING_SECONDS = 1.0  # that a killed program may take; more if it hangs in the kernel
_OPEN_FILES = 1_024  # what programs are used to; select() takes no more
_PR_SET_PDEATHSIG = 1  # uapi/linux/prctl.h

_accounts = Accounts()
_prctl = ctypes.CDLL(None).prctl
_prctl.argtypes = [ctypes.c_int, ctypes.c_ulong]


async def probe(check: Check, target: Target) -> None:
    """Runs the program.

    Raises:
        Unwell: it could not be run, wrote too much, or ended otherwise; then with the first line that it wrote.
    """
    process = _start(check, target, await _account(check.get("user")))
    assert process.stdout is not None
    with process.stdout, _pidfd(process) as pidfd:
        try:
            output = await _output(process.stdout.fileno(), pidfd)
        finally:
            _kill(process)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DYING_SECONDS):
                    await _readable(pidfd)
            status = process.poll()
    if status:
        how = f"exit status {status}" if status > 0 else f"ended by signal {signal.strsignal(-status) or -status}"
        said = output.decode(errors="replace").strip().partition("\n")[0]
        raise Unwell(": ".join(filter(None, (how, said))))


async def _account(user: str) -> Account:
    account = await _accounts.find(user)
    if account is None:
        raise Unwell(f"there is no user {user}")
    if account.uid == 0:
        raise Unwell(f"user {user} is root by another name")
    return account


def _start(check: Check, target: Target, account: Account) -> subprocess.Popen[bytes]:
    command, user = check.get("command"), check.get("user")
    try:
        return subprocess.Popen(
            [command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={
                "PATH": _PATH,
                "L4LB_ADDRESS": target.address,
                "L4LB_PORT": str(target.port),
                "L4LB_VIP": target.vip_name,
                "L4LB_VIP_ADDRESS": target.vip_address,
                "L4LB_VIP_PORT": str(target.vip_port),
                "L4LB_PROTOCOL": target.protocol,
            },
            start_new_session=True,
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            preexec_fn=_bound_to(os.getpid()),
        )
    except OSError as error:
        what = command if error.filename else f"programs as user {user}"
        raise Unwell(f"cannot run {what}: {error.strerror}") from None


def _bound_to(parent: int) -> Callable[[], None]:
    """What is done in the new process, once it is its user's: the kernel forgets a wish to die when the user changes.

    Other threads of this process may hold locks that nobody opens there, so nothing is imported, logged or looked up.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)

    def bind() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before that
            os._exit(1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return bind


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kills the process group, which is the program's as long as nobody has asked for the program's status."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _pidfd(process: subprocess.Popen[bytes]) -> Iterator[int]:
    """A file that can be read when the program has ended: asyncio's own way takes a thread for each."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        _kill(process)
        raise
    try:
        yield pidfd
    finally:
        os.close(pidfd)


async def _output(pipe: int, pidfd: int) -> bytes:
    """What the program and its children write until the program ends."""
    os.set_blocking(pipe, False)
    output = b""
    watched = {pipe, pidfd}
    while True:
        await _readable(*watched)
        ended = _has_ended(pidfd)
        try:
            piece = os.read(pipe, MAX_OUTPUT + 1)
        except BlockingIOError:
            pass
        else:
            output += piece
            if not piece:
                watched.discard(pipe)
        if len(output) > MAX_OUTPUT:
            raise Unwell(f"the program wrote more than {MAX_OUTPUT:,} bytes")
        if ended:
            return output


def _has_ended(pidfd: int) -> bool:
    return os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


async def _readable(*files: int) -> None:
    """Waits until one of them can be read."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    for file in files:
        loop.add_reader(file, ready.set)
    try:
        await ready.wait()
    finally:
        for file in files:
            loop.remove_reader(file)
