"""What decides when a backend is up or down, and what a VIP does when few are up. Times are seconds."""

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from l4lb.errors import UsageError
from l4lb.ports import MAX_PORT

MAX_COUNT = 255  # of results in a row
INTERVALS = (0.01, 86_400.0)
TIMEOUTS = (0.001, 600.0)
MAX_JITTER = 0.5
MAX_TIER_SHARE = 1_000
SILENT_ROUNDS = 3  # without a result, before health is called stale


class State(enum.StrEnum):
    """How a backend is, as its checks have it. An unknown one takes flows: nothing speaks against it yet."""

    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"


class Panic(enum.StrEnum):
    """What a VIP does with new flows when too few of its backends are healthy."""

    SPREAD = "spread"
    REFUSE = "refuse"


class NoneLeft(enum.StrEnum):
    """What becomes of packets of a VIP that no backend can take."""

    DROP = "drop"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class HealthRules:
    """How one backend is judged. Counts and interval are HAProxy's where nothing else is said.

    Attributes:
        rise: successes in a row that bring a backend up.
        fall: failures in a row that bring it down.
        interval: from the start of one probe to that of the next.
        timeout: after which a probe has failed.
        fast_interval: the interval while a backend is changing: its last result disagrees with its state, or it is
            unknown or suspected; 0: as `interval`.
        jitter: how far an interval may be off by chance, as a share of it, so that probes of many stay spread.
        initial: what a backend is before its first result. "unknown" takes flows, and the first result decides;
            "up" goes down after `fall` failures; "down" takes none before `rise` successes.
        slow_start: how long the weight of a backend ramps that comes up; 0: not at all.
        degrade: whether a backend that is slower or fails more often than its VIP's others gets less weight.
        floor: percent of the weight that is left to a degraded backend.
        stale_after: without any result, after which health is told to be stale; 0: after three intervals and a timeout.
        check_port: the port that is probed; 0: the backend's.
    """

    rise: int = 2
    fall: int = 3
    interval: float = 2.0
    timeout: float = 1.0
    fast_interval: float = 0.0
    jitter: float = 0.1
    initial: State = State.UNKNOWN
    slow_start: float = 0.0
    degrade: bool = False
    floor: int = 25
    stale_after: float = 0.0
    check_port: int = 0

    @property
    def silence(self) -> float:
        """How long a check may be without a result before its health is stale."""
        return self.stale_after or SILENT_ROUNDS * self.interval + self.timeout


@dataclass(frozen=True, slots=True)
class VipRules:
    """How a VIP spreads its flows by its backends' health.

    Attributes:
        panic_share: percent of the weight that has to be healthy, or the VIP is in panic; 0: never, which is where we
            differ from Envoy (50). A request can be tried again at another server; a connection that goes to a dead one
            is lost, and a down backend is promised to get none. Whoever trusts his servers more than his checks asks
            for it.
        panic: whether it then spreads new flows over all, as Envoy does, or refuses them.
        tier_share: percent: a tier carries so many times its healthy weight before the next one has to help
            (Envoy's overprovisioning factor, and its default).
        none_left: what becomes of new flows that no backend can take.
    """

    panic_share: int = 0
    panic: Panic = Panic.SPREAD
    tier_share: int = 140
    none_left: NoneLeft = NoneLeft.DROP


def problems(rules: HealthRules) -> Iterator[UsageError]:
    """Every bound that the rules of a backend break."""
    for name, count in (("rise", rules.rise), ("fall", rules.fall)):
        if not 1 <= count <= MAX_COUNT:
            yield UsageError(f"{name} {count} is not between 1 and {MAX_COUNT} results in a row", "use 2 or 3")
    if not INTERVALS[0] <= rules.interval <= INTERVALS[1]:
        yield UsageError(f"interval {rules.interval:g} s is not between 10 ms and a day", "use 500ms or 2s")
    if not TIMEOUTS[0] <= rules.timeout <= TIMEOUTS[1]:
        yield UsageError(f"timeout {rules.timeout:g} s is not between 1 ms and ten minutes", "use 300ms or 1s")
    if rules.fast_interval and not INTERVALS[0] <= rules.fast_interval <= rules.interval:
        yield UsageError(
            f"fast interval {rules.fast_interval:g} s is not between 10 ms and the interval of {rules.interval:g} s",
            "leave it out or set it to 0 for the same interval",
        )
    if not 0 <= rules.jitter <= MAX_JITTER:
        yield UsageError(f"jitter {rules.jitter:g} is not between 0 and {MAX_JITTER} of the interval", "use 0.1")
    if not 0 <= rules.slow_start <= INTERVALS[1]:
        yield UsageError(f"slow start {rules.slow_start:g} s is not between 0 and a day", "use 0 for none, or 30s")
    if not 0 <= rules.check_port <= MAX_PORT:
        yield UsageError(f"check port {rules.check_port} is not between 1 and {MAX_PORT}", "use 0 for the backend's")
    if not 1 <= rules.floor <= 100:
        yield UsageError(f"floor {rules.floor} % is not between 1 and 100 % of the weight", "use 25")
    if rules.stale_after and not rules.interval <= rules.stale_after <= INTERVALS[1]:
        yield UsageError(
            f"stale after {rules.stale_after:g} s is not between the interval of {rules.interval:g} s and a day",
            "leave it out or set it to 0 for three intervals",
        )


def vip_problems(rules: VipRules) -> Iterator[UsageError]:
    """Every bound that the rules of a VIP break."""
    if not 0 <= rules.panic_share <= 100:
        yield UsageError(f"panic share {rules.panic_share} % is not between 0 and 100 %", "use 0 for never, or 50")
    if not 100 <= rules.tier_share <= MAX_TIER_SHARE:
        yield UsageError(
            f"tier share {rules.tier_share} % is not between 100 and {MAX_TIER_SHARE} %",
            "use 100 for help with every backend that is missing, or 140",
        )
