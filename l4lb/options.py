"""What `l4lb run` is told on its command line."""

from dataclasses import dataclass
from pathlib import Path

DEFAULT_SOCKET = Path("/run/l4lb/control.sock")
DEFAULT_STATE = Path("/var/lib/l4lb/state.json")
DEFAULT_PINS = Path("/sys/fs/bpf/l4lb")

XDP_MODES = ("native", "generic")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The daemon's options.

    Attributes:
        xdp_mode: one of :data:`XDP_MODES`.
        echo: whether the program answers pings to VIPs; if not, they are the kernel's.
        announce: whether VIP addresses are put on an interface, so that the kernel answers ARP for them.
        config: the file of the configuration to start with, "-" for standard input; None keeps the saved one.
        seed: None keeps the saved one, or that of the file.
        reset_state: whether to begin with nothing if the state file is damaged.
    """

    interfaces: tuple[str, ...]
    state: Path = DEFAULT_STATE
    socket: Path = DEFAULT_SOCKET
    socket_group: str | None = None
    xdp_mode: str = "native"
    pins: Path = DEFAULT_PINS
    announce: bool = True
    echo: bool = True
    config: str | None = None
    seed: int | None = None
    reset_state: bool = False
