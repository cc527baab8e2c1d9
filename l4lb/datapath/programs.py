"""Compiled programs: from the pins, or from a child process that compiles (:mod:`l4lb.datapath.loader`)."""

import asyncio
import json
import sys
from pathlib import Path

from l4lb.datapath import loader
from l4lb.datapath.source import Source
from l4lb.errors import L4lbError, ProgramError

_TIMEOUT = 60  # seconds; compiling takes 0.3 on an idle machine


async def ensure(source: Source, pin: Path) -> None:
    """Makes sure that the program is pinned at `pin`.

    Raises:
        ProgramError: it cannot be compiled or loaded; carries the compiler's and the verifier's words.
    """
    if await asyncio.to_thread(pin.exists):
        return
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        loader.__name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        answer, log = await asyncio.wait_for(child.communicate(loader.job(source, pin)), _TIMEOUT)
    except TimeoutError as error:
        child.kill()
        await child.wait()
        raise L4lbError(
            f"compiling the program took more than {_TIMEOUT} seconds", "try again on a less busy machine"
        ) from error
    if child.returncode:
        raise _failure(source, child.returncode, answer, log.decode(errors="replace"))


def _failure(source: Source, status: int, answer: bytes, log: str) -> ProgramError:
    try:
        said = json.loads(answer)
        return ProgramError(said["message"], said["hint"], detail=log)
    except (ValueError, KeyError):
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return ProgramError(f"the compiler of the program {source.function} ended with {how}", detail=log)
