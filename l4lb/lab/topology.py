"""Labs: a client, a gateway and servers in network namespaces.

    ROUTED                                     SEGMENT

    client ── gateway ── switch ─┬─ b1         client ── switch ─┬─ gateway
           wan      lan          ├─ b2                   wan     ├─ b1
                                 └─ b3                           └─ b2 ...

In `ROUTED` the gateway is the servers' router, which nat wants; with a `hop`, there is one more router before the
client, whose link to it takes smaller packets. In `SEGMENT` all are neighbours, so that servers can answer the client
past the gateway, which dsr and the tunnels want. All have IPv4 and IPv6 addresses.

A lab is a folder below /run/l4lb-lab, named as its namespaces begin, which says what there is and which process made
it. So a lab whose process died is taken down when the next one is made, unless it was kept on purpose.
"""

import contextlib
import enum
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from l4lb.errors import L4lbError
from l4lb.lab.namespace import Namespace, connect
from l4lb.lab.wakeful import keep_awake
from l4lb.model import IPAddress

LABS = Path("/run/l4lb-lab")

CLIENT_ADDRESS = IPv4Address("10.1.0.2")
CLIENT_ADDRESS6 = IPv6Address("fd01::2")
GATEWAY_ADDRESS = IPv4Address("10.1.0.1")
GATEWAY_ADDRESS6 = IPv6Address("fd01::1")
GATEWAY_LAN_ADDRESS = IPv4Address("10.2.0.1")
_GATEWAY_LAN = (GATEWAY_LAN_ADDRESS, IPv6Address("fd02::1"))
_HOP = (IPv4Address("10.1.0.254"), IPv6Address("fd01::254"))  # the router before the client
_BEHIND_HOP = (IPv4Address("10.3.0.1"), IPv6Address("fd03::1"))
_CLIENT_BEHIND_HOP = (IPv4Address("10.3.0.2"), IPv6Address("fd03::2"))
_PREFIX = {4: 24, 6: 64}


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
    address6: IPv6Address

    def address_of(self, version: int) -> IPAddress:
        """Its address of an IP version."""
        return self.address if version == 4 else self.address6


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
    hop: Namespace | None = None
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
        hops = (self.hop,) if self.hop else ()
        return (self.client, self.gateway, self.switch, *hops, *(server.namespace for server in self.servers))

    def start(self, namespace: Namespace, *arguments: str) -> None:
        """Starts a command that runs until the lab is taken down."""
        self._processes.append(namespace.start(*arguments))

    def own_vip(self, address: IPAddress) -> None:
        """Gives every server the VIP, for dsr and tunnels; they neither answer ARP for it nor ask in its name."""
        for server in self.servers:
            server.namespace.sysctl(net__ipv4__conf__all__arp_ignore=1, net__ipv4__conf__all__arp_announce=2)
            server.namespace.ip(f"address replace {address}/{address.max_prefixlen} dev lo")

    def reap(self) -> None:
        """Waits for the processes that were killed when the lab was taken down."""
        for process in self._processes:
            process.wait()


@contextmanager
def lab(layout: Layout = Layout.ROUTED, servers: int = 3, hop_mtu: int = 0) -> Iterator[Lab]:
    """A lab, for as long as the with block runs; see :func:`set_up`."""
    made = set_up(layout, servers, hop_mtu)
    try:
        yield made
    finally:
        take_down(made.folder)
        made.reap()


def set_up(layout: Layout = Layout.ROUTED, servers: int = 3, hop_mtu: int = 0) -> Lab:
    """Makes a lab, after taking down those whose process died.

    Args:
        layout: how its hosts are connected.
        servers: how many.
        hop_mtu: in `ROUTED`, of the link between the client and a router before the gateway; 0: there is none.

    Raises:
        L4lbError: it cannot be made; nothing is left of it.
    """
    if os.geteuid() != 0:
        raise L4lbError("a lab of network namespaces needs root", "use sudo")
    for folder in labs():
        if state_of(folder) is State.LEFT:
            take_down(folder)
    name = f"l4lb-{secrets.token_hex(3)}"
    network = 2 if layout is Layout.ROUTED else 1
    made = Lab(
        LABS / name,
        layout,
        Namespace(f"{name}-client"),
        Namespace(f"{name}-gateway"),
        Namespace(f"{name}-switch"),
        tuple(
            Server(
                f"b{number}",
                Namespace(f"{name}-b{number}"),
                IPv4Address(f"10.{network}.0.{10 + number}"),
                IPv6Address(f"fd0{network}::{10 + number}"),
            )
            for number in range(1, servers + 1)
        ),
        Namespace(f"{name}-hop") if hop_mtu else None,
    )
    made.folder.mkdir(parents=True)
    try:
        _record(made, _Owner(os.getpid(), _started(os.getpid())))
        made.bpf.mkdir()
        subprocess.run(["mount", "-t", "bpf", "bpf", made.bpf], check=True)
        _build(made, hop_mtu)
    except BaseException:
        take_down(made.folder)
        raise
    return made


def keep(made: Lab) -> None:
    """Lets a lab outlive this process, until it is taken down."""
    _record(made, None)


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


class State(enum.Enum):
    """What a lab is there for."""

    IN_USE = "in use"  # by the process that made it
    KEPT = "kept"
    LEFT = "left over"  # its process died


def state_of(folder: Path) -> State:
    """What a lab is there for."""
    owner = json.loads((folder / "lab.json").read_text())["owner"]
    if owner is None:
        return State.KEPT
    return State.IN_USE if _started(owner["process"]) == owner["started"] else State.LEFT


@dataclass(frozen=True, slots=True)
class _Owner:
    process: int
    started: int | None


def _record(made: Lab, owner: _Owner | None) -> None:
    """Writes down what belongs to a lab."""
    about = {"owner": owner and asdict(owner), "namespaces": [namespace.name for namespace in made.namespaces]}
    (made.folder / "lab.json").write_text(json.dumps(about))


def _started(process: int) -> int | None:
    """When a process began, in clock ticks since boot, as its number may come again; None if there is none."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])  # field 22; the name, in brackets, may hold anything


def _build(made: Lab, hop_mtu: int) -> None:
    for namespace in made.namespaces:
        namespace.create()
    made.switch.ip("link add bridge type bridge", "link set bridge up")
    gateway = (GATEWAY_ADDRESS, GATEWAY_ADDRESS6)
    if made.layout is Layout.ROUTED:
        _connect_client(made, hop_mtu)
        _plug_in(made, made.gateway, "lan", "gateway")
        _address(made.gateway, "lan", *_GATEWAY_LAN)
        router = _GATEWAY_LAN
    else:
        _plug_in(made, made.gateway, "wan", "gateway")
        _plug_in(made, made.client, "eth0", "client")
        _address(made.client, "eth0", CLIENT_ADDRESS, CLIENT_ADDRESS6)
        _route(made.client, gateway)
        router = gateway
    keep_awake(made.switch, "gateway", made.bpf / "switch")
    made.gateway.sysctl(
        net__ipv4__ip_forward=1, net__ipv4__conf__all__send_redirects=0, net__ipv6__conf__all__forwarding=1
    )
    _address(made.gateway, "wan", *gateway)
    if made.hop:
        made.gateway.ip("route add 10.3.0.0/24 via 10.1.0.254", "route add fd03::/64 via fd01::254")
    for server in made.servers:
        _plug_in(made, server.namespace, "eth0", server.name)
        _address(server.namespace, "eth0", server.address, server.address6)
        _route(server.namespace, router)


def _connect_client(made: Lab, hop_mtu: int) -> None:
    """To the gateway, or to a router before it."""
    near = made.hop or made.client
    connect(made.gateway, "wan", near, "eth0")
    keep_awake(near, "eth0", made.bpf / "client")
    if made.hop is None:
        _address(made.client, "eth0", CLIENT_ADDRESS, CLIENT_ADDRESS6)
        _route(made.client, (GATEWAY_ADDRESS, GATEWAY_ADDRESS6))
        return
    connect(made.hop, "eth1", made.client, "eth0")
    made.hop.sysctl(net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1)
    made.hop.ip(f"link set eth1 mtu {hop_mtu}")
    made.client.ip(f"link set eth0 mtu {hop_mtu}")
    _address(made.hop, "eth0", *_HOP)
    _address(made.hop, "eth1", *_BEHIND_HOP)
    _address(made.client, "eth0", *_CLIENT_BEHIND_HOP)
    _route(made.hop, (GATEWAY_ADDRESS, GATEWAY_ADDRESS6))
    _route(made.client, _BEHIND_HOP)


def _address(namespace: Namespace, interface: str, *addresses: IPAddress) -> None:
    namespace.ip(*(f"address add {address}/{_PREFIX[address.version]} dev {interface}" for address in addresses))


def _route(namespace: Namespace, routers: Iterable[IPAddress]) -> None:
    namespace.ip(*(f"route add default via {router}" for router in routers))


def _plug_in(made: Lab, namespace: Namespace, interface: str, port: str) -> None:
    connect(namespace, interface, made.switch, port)
    made.switch.ip(f"link set {port} master bridge")
