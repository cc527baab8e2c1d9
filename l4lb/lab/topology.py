"""Labs: a client, a gateway and servers in network namespaces.

    ROUTED                                     SEGMENT

    client ── gateway ── switch ─┬─ b1         client ── switch ─┬─ gateway
           wan      lan          ├─ b2                   wan     ├─ b1
                                 └─ b3                           └─ b2 ...

In `ROUTED` the gateway is the servers' router, which nat wants. In `SEGMENT` all are neighbours, so that servers can
answer the client past the gateway, which dsr wants.

A lab is a folder below /run/l4lb-lab, named as its namespaces begin, which says what there is and which process made
it. So a lab whose process died is taken down when the next one is made.
"""

import contextlib
import enum
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from l4lb.errors import L4lbError
from l4lb.lab.namespace import Namespace, connect
from l4lb.lab.wakeful import keep_awake

LABS = Path("/run/l4lb-lab")

CLIENT_ADDRESS = IPv4Address("10.1.0.2")
GATEWAY_ADDRESS = IPv4Address("10.1.0.1")
GATEWAY_LAN_ADDRESS = IPv4Address("10.2.0.1")


class Layout(enum.Enum):
    """How the hosts are connected."""

    ROUTED = "routed"
    SEGMENT = "segment"


@dataclass(frozen=True, slots=True)
class Server:
    """A host that serves, with one interface, eth0."""

    name: str
    namespace: Namespace
    address: IPv4Address


@dataclass(slots=True)
class Lab:
    """The hosts of a lab; :func:`lab` makes one.

    Attributes:
        folder: for the files of what runs in it.
        bpf: a BPF file system of its own.
        interfaces: the gateway's.
    """

    folder: Path
    layout: Layout
    client: Namespace
    gateway: Namespace
    switch: Namespace
    servers: tuple[Server, ...]
    _processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def bpf(self) -> Path:
        """Where pins can be."""
        return self.folder / "bpf"

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Those of the gateway."""
        return ("wan", "lan") if self.layout is Layout.ROUTED else ("wan",)

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        """All of them."""
        return (self.client, self.gateway, self.switch, *(server.namespace for server in self.servers))

    def start(self, namespace: Namespace, *arguments: str) -> None:
        """Starts a command that runs until the lab is taken down."""
        self._processes.append(namespace.start(*arguments))

    def own_vip(self, address: IPv4Address) -> None:
        """Gives every server the VIP, for dsr; they neither answer ARP for it nor ask in its name."""
        for server in self.servers:
            server.namespace.sysctl(net__ipv4__conf__all__arp_ignore=1, net__ipv4__conf__all__arp_announce=2)
            server.namespace.ip(f"address replace {address}/32 dev lo")

    def reap(self) -> None:
        """Waits for the processes that were killed when the lab was taken down."""
        for process in self._processes:
            process.wait()


@contextmanager
def lab(layout: Layout = Layout.ROUTED, servers: int = 3) -> Iterator[Lab]:
    """A lab, for as long as the with block runs."""
    made = set_up(layout, servers)
    try:
        yield made
    finally:
        take_down(made.folder)
        made.reap()


def set_up(layout: Layout = Layout.ROUTED, servers: int = 3) -> Lab:
    """Makes a lab, after taking down those whose process died.

    Raises:
        L4lbError: it cannot be made; nothing is left of it.
    """
    if os.geteuid() != 0:
        raise L4lbError("a lab of network namespaces needs root", "use sudo")
    for folder in labs():
        if not _owner_lives(folder):
            take_down(folder)
    name = f"l4lb-{secrets.token_hex(3)}"
    network = "10.2.0" if layout is Layout.ROUTED else "10.1.0"
    made = Lab(
        LABS / name,
        layout,
        Namespace(f"{name}-client"),
        Namespace(f"{name}-gateway"),
        Namespace(f"{name}-switch"),
        tuple(
            Server(f"b{number}", Namespace(f"{name}-b{number}"), IPv4Address(f"{network}.{10 + number}"))
            for number in range(1, servers + 1)
        ),
    )
    made.folder.mkdir(parents=True)
    try:
        record(made.folder, os.getpid(), [namespace.name for namespace in made.namespaces])
        made.bpf.mkdir()
        subprocess.run(["mount", "-t", "bpf", "bpf", made.bpf], check=True)
        _build(made)
    except BaseException:
        take_down(made.folder)
        raise
    return made


def record(folder: Path, owner: int | None, namespaces: Sequence[str]) -> None:
    """Writes down what belongs to a lab; without an owner it stays until it is taken down by name."""
    (folder / "lab.json").write_text(json.dumps({"owner": owner, "namespaces": namespaces}))


def labs() -> list[Path]:
    """The folders of all labs."""
    return sorted(path.parent for path in LABS.glob("*/lab.json"))


def take_down(folder: Path) -> None:
    """Ends what runs in a lab, and takes away its namespaces, pins and files."""
    with contextlib.suppress(FileNotFoundError):
        for name in json.loads((folder / "lab.json").read_text())["namespaces"]:
            Namespace(name).delete()
    subprocess.run(["umount", "--lazy", folder / "bpf"], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def _owner_lives(folder: Path) -> bool:
    owner = json.loads((folder / "lab.json").read_text())["owner"]
    return owner is None or Path("/proc", str(owner)).exists()


def _build(made: Lab) -> None:
    for namespace in made.namespaces:
        namespace.create()
    made.switch.ip("link add bridge type bridge", "link set bridge up")
    if made.layout is Layout.ROUTED:
        connect(made.gateway, "wan", made.client, "eth0")
        keep_awake(made.client, "eth0", made.bpf / "client")
        _plug_in(made, made.gateway, "lan", "gateway")
        made.gateway.ip(f"address add {GATEWAY_LAN_ADDRESS}/24 dev lan")
        router = GATEWAY_LAN_ADDRESS
    else:
        _plug_in(made, made.gateway, "wan", "gateway")
        _plug_in(made, made.client, "eth0", "client")
        router = GATEWAY_ADDRESS
    keep_awake(made.switch, "gateway", made.bpf / "switch")
    made.gateway.sysctl(net__ipv4__ip_forward=1, net__ipv4__conf__all__send_redirects=0)
    made.gateway.ip(f"address add {GATEWAY_ADDRESS}/24 dev wan")
    made.client.ip(f"address add {CLIENT_ADDRESS}/24 dev eth0", f"route add default via {GATEWAY_ADDRESS}")
    for server in made.servers:
        _plug_in(made, server.namespace, "eth0", server.name)
        server.namespace.ip(f"address add {server.address}/24 dev eth0", f"route add default via {router}")


def _plug_in(made: Lab, namespace: Namespace, interface: str, port: str) -> None:
    connect(namespace, interface, made.switch, port)
    made.switch.ip(f"link set {port} master bridge")
