"""A shell inside a lab."""

import os
import subprocess
import sys
from pathlib import Path

from l4lb.errors import L4lbError
from l4lb.lab.namespace import Namespace


def open_shell(folder: Path, host: str = "gateway") -> None:
    """Opens an interactive shell on one of a lab's hosts, where `l4lb` talks to the lab's daemon; returns when it ends.

    Raises:
        L4lbError: there is no such host.
    """
    namespace = Namespace(f"{folder.name}-{host}")
    if not Path("/run/netns", namespace.name).exists():
        raise L4lbError(f"{folder.name} has no host {host}", "there are client, gateway, switch, b1, b2 ...")
    environment = {
        **os.environ,
        "L4LB_SOCKET": str(folder / "control.sock"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        "PS1": f"{host}# ",
    }
    subprocess.run(namespace.command("bash", "--norc"), env=environment, check=False)
