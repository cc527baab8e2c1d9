"""What happened to backends and VIPs, and why: the last of it, numbered."""

from collections import deque
from dataclasses import asdict, dataclass

KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a person may ask about later.

    Attributes:
        time: seconds since 1970.
        vip: its name.
        backend: its address and port; None if the VIP as a whole is meant.
        what: what it is now, as "down".
        why: the cause, as "HTTP 503".
        effect: what became of it, as "1,024 slots moved".
    """

    time: float
    vip: str
    backend: str | None
    what: str
    why: str
    effect: str

    def __str__(self) -> str:
        whose = f"backend {self.backend} of VIP {self.vip}" if self.backend is not None else f"VIP {self.vip}"
        return f"{whose} {self.what}: {self.why}; {self.effect}"


class Log:
    """The last events; each has a number, the first one 1."""

    def __init__(self, kept: int = KEPT) -> None:
        self._events: deque[Event] = deque(maxlen=kept)
        self.next = 1

    def add(self, event: Event) -> None:
        """Takes in one more; the oldest may give way."""
        self._events.append(event)
        self.next += 1

    def plain(self, since: int = 0) -> dict[str, object]:
        """The events from a number on, the number of the next one, and how many are no longer here."""
        first = self.next - len(self._events)
        kept = list(self._events)[max(0, since - first) :]
        return {
            "events": [asdict(event) for event in kept],
            "next": self.next,
            "lost": max(0, first - max(1, since)),
        }
