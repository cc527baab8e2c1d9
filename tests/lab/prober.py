"""Checks made in a namespace of the lab, without a daemon: by a process with the rights that workers have."""

import asyncio
import json
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from l4lb.health.check import Check
from l4lb.health.result import Result
from l4lb.lab.namespace import Namespace
from l4lb.probes import privileges
from l4lb.probes.run import run
from l4lb.probes.target import Target

_PATIENCE = 20.0  # seconds for all results of one call


class Prober:
    """The process; a context manager, at whose end it ends, as it does when we die."""

    def __init__(self, namespace: Namespace, address: str) -> None:
        self._address = address
        self._process = subprocess.Popen(
            namespace.command(sys.executable, "-m", "tests.lab.prober"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def check(self, text: str, timeout: float = 5.0, address: str = "") -> Result:
        """The result of one check of the prober's address, or another."""
        return self.checks([text], timeout, address)[0]

    def checks(self, texts: list[str], timeout: float = 5.0, address: str = "") -> list[Result]:
        """The results of checks that are made at the same time."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps([address or self._address, timeout, texts]).encode() + b"\n")
        stdin.flush()
        assert select.select([stdout], [], [], _PATIENCE)[0], f"no results of {texts}"
        return [Result(*values) for values in json.loads(stdout.readline())]

    def children(self) -> list[str]:
        """The processes that it has started."""
        pid = self._process.pid  # of `ip netns exec`, which has become the prober
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    def network(self) -> str:
        """The namespace that it is in, as links of /proc name it."""
        return str(Path(f"/proc/{self._process.pid}/ns/net").readlink())


def until_well(prober: Prober, *texts: str) -> None:
    """Waits until all of some checks pass."""
    deadline = time.monotonic() + _PATIENCE
    while ill := [
        (text, result.reason)
        for text, result in zip(texts, prober.checks(list(texts), 1.0), strict=True)
        if not result.ok
    ]:
        assert time.monotonic() < deadline, ill
        time.sleep(0.02)


async def _run(address: str, seconds: float, texts: list[str]) -> list[Result]:
    target = Target(address, 8080, vip_address="10.1.0.100", vip_port=80, protocol="tcp", vip_name="web")
    return await asyncio.gather(*(run(Check.parse(text), target, seconds) for text in texts))


def _main() -> None:
    privileges.raise_open_files()
    privileges.drop()
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            results = runner.run(_run(*json.loads(line)))
            print(json.dumps([[each.ok, each.reason, each.latency, each.advice] for each in results]), flush=True)


if __name__ == "__main__":
    _main()
