"""What a probe found out."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one probe.

    Attributes:
        ok: whether the backend is well.
        reason: what a person needs to know, in a few words, as "HTTP 503, expected 200".
        latency: seconds that the probe took.
        advice: what an agent on the backend said of it, as "drain" or "75%"; None of any other check.
    """

    ok: bool
    reason: str
    latency: float
    advice: str | None = None
