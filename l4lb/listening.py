"""Listening to what clients' connections tell of backends, and comparing backends of one VIP with each other."""

from collections.abc import Callable, Mapping

from l4lb.changes import find_backend
from l4lb.datapath.dataplane import Account
from l4lb.health.book import HealthBook
from l4lb.health.handshakes import Handshakes, Witness
from l4lb.model import Backend, Config, Vip
from l4lb.plan.records import VipRecord

Suspected = Callable[[Vip, Backend, str], None]
"""Called with a backend that its connections speak against, and with what they say."""

Weighed = Callable[[Vip, Backend, str, str], None]
"""Called with a backend whose weight has moved, with what it is now, and why."""


class Listening:
    """Looks at counters, many times a second; so it looks at nothing that nobody wants looked at.

    Args:
        book: what is known of backends.
        handshakes: the counters.
        suspected, weighed: see :data:`Suspected` and :data:`Weighed`.
    """

    def __init__(
        self,
        book: HealthBook,
        handshakes: Callable[[], Mapping[Account, Handshakes]],
        suspected: Suspected,
        weighed: Weighed,
    ) -> None:
        self._book = book
        self._handshakes = handshakes
        self._suspected = suspected
        self._weighed = weighed
        self._passive: dict[VipRecord, Vip] = {}
        self._degrading: list[Vip] = []
        self._witnesses: dict[Account, Witness] = {}

    def follow(self, config: Config) -> None:
        """Listens for this configuration from now on."""
        self._passive = {VipRecord(vip.service): vip for vip in config.vips if vip.passive}
        self._degrading = [
            vip for vip in config.vips if any(vip.rules_for(backend).degrade for backend in vip.backends)
        ]

    def look(self, now: float) -> None:
        """Takes in what there is by now; seconds of the monotonic clock."""
        self._hear(now)
        self._compare(now)

    def _hear(self, now: float) -> None:
        heard = self._handshakes() if self._passive else {}
        self._witnesses = {account: self._witnesses.get(account, Witness()) for account in heard}
        for account, counts in heard.items():
            reason, vip = self._witnesses[account].look(counts, now), self._passive.get(account[0])
            if reason is not None and vip is not None:
                self._suspected(vip, find_backend(vip, account[1]), reason)

    def _compare(self, now: float) -> None:
        """Lowers and raises the weights of backends that do worse or better than the others of their VIP."""
        for vip in self._degrading:
            record = VipRecord(vip.service)
            usual = {backend: witness.usual for (of, backend), witness in self._witnesses.items() if of == record}
            for backend, what, why in self._book.compare(vip, usual, now):
                self._weighed(vip, backend, what, why)
