"""Random changes of a VIP's backends, and what they explain of the fates of connections."""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from l4lb.client import Client
from l4lb.lab.connections import Connections, Fate, connections
from l4lb.model import Endpoint, IPAddress
from tests.lab.gateway import VIPS, Gateway

REMOVABLE = ("b4", "b5", "b6")


@dataclass(frozen=True, slots=True)
class Change:
    """A change as it was asked for (`began`) and acknowledged (`done`): the weight after it, None: removed."""

    backend: str
    weight: int | None
    began: float
    done: float


class Shuffle:
    """A VIP whose backends come, go, and change their weights. One at least always takes flows.

    Args:
        client: of the daemon.
        vip: its name.
        backends: endpoints by the servers' names; all are in the VIP, with weight 1.
        removable: the names of those that are removed at times.
    """

    def __init__(self, client: Client, vip: str, backends: dict[str, Endpoint], removable: Sequence[str]) -> None:
        self._client = client
        self._vip = vip
        self._backends = backends
        self._removable = removable
        self._numbers = random.Random(7)
        self._weights: dict[str, int] = dict.fromkeys(backends, 1)
        self.changes: list[Change] = [Change(name, 1, 0, 0) for name in backends]

    def some(self, count: int) -> None:
        """So many changes, one after another."""
        for _ in range(count):
            self._change()

    def _change(self) -> None:
        numbers = self._numbers
        absent = [name for name in self._backends if name not in self._weights]
        name = numbers.choice(sorted(self._weights))
        match numbers.choice(["add", "remove", "weight", "drain"]):
            case "add" if absent:
                self.add(numbers.choice(absent), numbers.randrange(1, 4))
            case "remove" if name in self._removable and self._is_not_alone(name):
                self.remove(name)
            case "drain" if self._is_not_alone(name):
                self.weigh(name, 0)
            case _:
                self.weigh(name, self._weights[name] % 3 + 1)

    def _is_not_alone(self, name: str) -> bool:
        return any(weight for other, weight in self._weights.items() if other != name)

    def add(self, name: str, weight: int) -> None:
        """Puts a server in, with weight above 0."""
        self._do("add", name, weight)

    def weigh(self, name: str, weight: int) -> None:
        """Changes a weight."""
        self._do("set", name, weight)

    def remove(self, name: str) -> None:
        """Takes a server out."""
        self._do("remove", name, None)

    def _do(self, verb: str, name: str, weight: int | None) -> None:
        began = time.monotonic()
        arguments = {} if weight is None else {"weight": weight}
        self._client.call(f"backend.{verb}", vip=self._vip, address=str(self._backends[name]), **arguments)
        self.changes.append(Change(name, weight, began, time.monotonic()))
        if weight is None:
            del self._weights[name]
        else:
            self._weights[name] = weight

    def explains(self, fate: Fate) -> bool:
        """Whether a connection that broke had to: its backend was taken away while it was there.

        Who broke before the first answer does not know its backend; then any that was taken away may have been it.
        """
        return any(
            change.weight is None
            and fate.backend in (change.backend, "")
            and change.done >= fate.began
            and change.began <= fate.ended
            for change in self.changes
        )

    def allows(self, fate: Fate) -> bool:
        """Whether a connection is where one may have been begun: its backend had a weight when it was opened."""
        own = [change for change in self.changes if change.backend == fate.backend]
        for change, following in zip(own, [*own[1:], None], strict=True):
            taken_back = following.done if following is not None else fate.opened
            if change.weight and change.began <= fate.opened and taken_back >= fate.began:
                return True
        return False


def shuffle(
    gateway: Gateway, mode: str = "nat", version: int = 4, scheduler: str = "maglev", idle: int = 300
) -> Shuffle:
    """Makes a VIP that has all the lab's servers, in a daemon that is started if it is not; what changes it."""
    if not gateway.daemon.running:
        gateway.daemon.start()
    client = Client(gateway.daemon.socket)
    client.call(
        "vip.add", name="web", address=str(Endpoint(VIPS[version], 80)), protocol="tcp", mode=mode, scheduler=scheduler,
        idle_timeout=idle,
    )  # fmt: skip
    port = 80 if mode == "dsr" else 8080
    backends = {server.name: Endpoint(server.address_of(version), port) for server in gateway.lab.servers}
    for backend in backends.values():
        client.call("backend.add", vip="web", address=str(backend))
    return Shuffle(client, "web", backends, REMOVABLE)


@contextmanager
def using(
    gateway: Gateway,
    count: int,
    version: int = 4,
    sources: Sequence[IPAddress] = (),
    pause: float = 0,
    patience: float = 10,
) -> Iterator[Connections]:
    """Connections to the VIP; for each that breaks another one is opened."""
    with connections(gateway.lab.client, VIPS[version], 80, count, pause, patience, True, sources) as made:
        yield made


def judge(fates: list[Fate], changes: Shuffle) -> list[Fate]:
    """None broke but those whose backend was taken away, and none began where none may; those that live on."""
    broken = [fate for fate in fates if fate.error]
    living = [fate for fate in fates if not fate.error]
    unexplained = [fate for fate in broken if not changes.explains(fate)]
    assert not unexplained, unexplained
    astray = [fate for fate in living if not changes.allows(fate)]
    assert not astray, astray
    assert {fate.backend for fate in living} >= {"b1", "b2", "b3"}, "connections to those that stayed"
    return living
