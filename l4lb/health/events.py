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
    """The last events. They have numbers one after another, by which readers go on.

    Args:
        first: the number of the first event. That of a log that follows another one has to be larger than any in that
            one, or its readers would take new events for old: milliseconds since 1970 are.
        kept: how many events.

    Attributes:
        next: the number of the next event.
    """

    def __init__(self, first: int = 1, kept: int = KEPT) -> None:
        self._first = first
        self._events: deque[Event] = deque(maxlen=kept)
        self.next = first

    def add(self, event: Event) -> None:
        """Takes in one more; the oldest may give way."""
        self._events.append(event)
        self.next += 1

    def has(self, since: int) -> bool:
        """Whether there are events from a number on."""
        return self.next > self._known(since)

    def plain(self, since: int = 0) -> dict[str, object]:
        """The events from a number on, the number of the next one, and how many are no longer here."""
        since = self._known(since)
        first = self.next - len(self._events)
        kept = list(self._events)[max(0, since - first) :]
        return {"events": [asdict(event) for event in kept], "next": self.next, "lost": max(0, first - since)}

    def _known(self, since: int) -> int:
        """The number to go on from: to who read another log, everything in this one is new."""
        return since if self._first <= since <= self.next else self._first
