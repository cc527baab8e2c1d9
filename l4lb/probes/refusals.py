"""Which ports their hosts have said lately that they do not have.

Hosts say so about once a second to each other host, whatever the ports, and then nothing (Linux: icmp_ratelimit). So
silence soon after a refusal is no sign that the port is there again.
"""

from l4lb.probes.target import Target

LATELY_SECONDS = 5.0


class Refusals:
    """The refusals of the last seconds; times are of one clock."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, int], float] = {}  # by address and port, the oldest first

    def add(self, target: Target, now: float) -> None:
        """A target has refused."""
        self.forget(target)
        self._times[target.address, target.port] = now
        while now - self._times[oldest := next(iter(self._times))] > LATELY_SECONDS:
            del self._times[oldest]

    def forget(self, target: Target) -> None:
        """A target has answered."""
        self._times.pop((target.address, target.port), None)

    def lately(self, target: Target, now: float) -> bool:
        """Whether a target has refused, and not answered since."""
        at = self._times.get((target.address, target.port))
        return at is not None and now - at <= LATELY_SECONDS


refusals = Refusals()  # those that this process has met with
