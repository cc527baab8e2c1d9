"""What is known of the health of every backend, and what follows for the configuration that is forwarded by.

A backend is one of a VIP: the same server behind two VIPs is looked at twice, as it may serve one of them and not the
other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from l4lb.health.advice import EIGHTHS
from l4lb.health.check import Check
from l4lb.health.degrade import Observation, Score, step
from l4lb.health.machine import Health, Transition, next_interval, observe, rechecked, suspect
from l4lb.health.result import Result
from l4lb.health.rules import State
from l4lb.health.weights import Member, Picture, next_change, picture
from l4lb.model import Admin, Backend, Config, Endpoint, Vip

_WHOLE = Score(0.0)

Key = tuple[str, Endpoint]
"""A VIP's name, and one of its backends."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The health of one backend, and the checks that it is of."""

    checks: tuple[Check, ...]
    health: Health


@dataclass(frozen=True, slots=True)
class _Seen:
    """What follows of a VIP's health, until a moment; None: until something happens."""

    vip: Vip
    picture: Picture
    served: Vip
    until: float | None


class HealthBook:
    """Holds what changes by itself; everything else is asked for with the configuration that it is about.

    Times are of the monotonic clock, in seconds.
    """

    def __init__(self, entries: Mapping[Key, Entry] | None = None) -> None:
        self._entries = dict(entries or {})
        self._scores: dict[str, dict[Endpoint, Score]] = {}  # by VIP, of those that degrade
        self._scored: dict[str, float] = {}  # when
        self._seen: dict[str, _Seen] = {}  # by VIP, what does not change until its health does

    @property
    def entries(self) -> Mapping[Key, Entry]:
        """All that is known."""
        return self._entries

    def follow(self, config: Config, now: float) -> None:
        """Begins with backends that are new, lets go of those that are gone, and takes over checks that changed."""
        self._entries = {
            (vip.name, backend.endpoint): Entry(vip.checks, self.health(vip, backend, now))
            for vip in config.vips
            for backend in vip.backends
        }
        self._seen = {vip.name: self._seen[vip.name] for vip in config.vips if vip.name in self._seen}
        self._scores = {vip.name: self._scores_of(vip) for vip in config.vips if vip.name in self._scores}
        self._scored = {name: when for name, when in self._scored.items() if name in self._scores}

    def health(self, vip: Vip, backend: Backend, now: float) -> Health:
        """Of one backend, by the checks that it has in this configuration."""
        entry = self._entries.get((vip.name, backend.endpoint))
        rules = vip.rules_for(backend)
        if entry is None:
            return Health.begin(len(vip.checks), rules, now)
        if entry.checks == vip.checks:
            return entry.health
        kept = [entry.checks.index(check) if check in entry.checks else None for check in vip.checks]
        return rechecked(entry.health, kept, rules, now)

    def observe(self, vip: Vip, backend: Backend, index: int, result: Result, now: float) -> Transition | None:
        """Takes in the result of one check, which ended now."""
        key = (vip.name, backend.endpoint)
        entry = self._entries[key]
        health, transition = observe(entry.health, index, result, vip.rules_for(backend), now)
        self._entries[key] = replace(entry, health=health)
        if transition is not None or (health.why, health.suspicion) != (entry.health.why, entry.health.suspicion):
            self._seen.pop(vip.name, None)
        return transition

    def suspect(self, vip: Vip, backend: Backend, reason: str, now: float) -> bool:
        """Takes in that a backend's own traffic speaks against it. Answers whether that is news."""
        key = (vip.name, backend.endpoint)
        entry = self._entries[key]
        health = suspect(entry.health, reason, now)
        self._entries[key] = replace(entry, health=health)
        self._seen.pop(vip.name, None)
        return health.suspicion is not None and entry.health.suspicion is None

    def compare(
        self, vip: Vip, handshakes: Mapping[Endpoint, float | None], now: float
    ) -> list[tuple[Backend, str, str]]:
        """Compares the backends of a VIP with each other, if an interval has passed since that was done last.

        Args:
            vip: with its backends.
            handshakes: seconds that handshakes take, by backend, where that is known.
            now: the time.

        Returns:
            Of each backend whose weight is another now: what it is, and why.
        """
        since = self._scored.get(vip.name, now)
        if self._scored.setdefault(vip.name, now) + vip.health.interval > now:
            return []
        before = self._scores.get(vip.name, {})
        observations = {
            backend.endpoint: Observation.of(health, since, handshakes.get(backend.endpoint))
            for backend in vip.backends
            for health in (self.health(vip, backend, now),)
            if vip.rules_for(backend).degrade and backend.admin is Admin.NONE and health.state is not State.DOWN
        }
        after = step(before, observations, replace(vip.health, degrade=True), now)
        self._scored[vip.name], self._scores[vip.name] = now, after
        self._seen.pop(vip.name, None)
        return [
            (backend, f"weight {new.eighths}/8", new.why)
            for backend in vip.backends
            if (new := after.get(backend.endpoint)) is not None
            and new.eighths != (before[backend.endpoint].eighths if backend.endpoint in before else EIGHTHS)
        ]

    def interval(self, vip: Vip, backend: Backend, index: int) -> float:
        """Seconds between the probes of one check, as things stand."""
        return next_interval(self._entries[vip.name, backend.endpoint].health, index, vip.rules_for(backend))

    def picture(self, vip: Vip, now: float) -> Picture:
        """What a VIP's backends get, in their order."""
        return self._look(vip, now).picture

    def next_change(self, config: Config, now: float) -> float | None:
        """When a weight moves next that grows with time."""
        moments = (self._look(vip, now).until for vip in config.vips)
        return min((moment for moment in moments if moment is not None), default=None)

    def _scores_of(self, vip: Vip) -> dict[Endpoint, Score]:
        """The scores of those backends that may degrade."""
        scores = self._scores.get(vip.name, {})
        return {
            backend.endpoint: scores[backend.endpoint]
            for backend in vip.backends
            if backend.endpoint in scores and vip.rules_for(backend).degrade
        }

    def _members(self, vip: Vip, now: float) -> list[Member]:
        scores = self._scores_of(vip)
        return [
            Member(
                weight=backend.weight,
                health=self.health(vip, backend, now),
                admin=backend.admin,
                priority=backend.priority,
                slow_start=vip.rules_for(backend).slow_start,
                degraded=score.eighths,
                degraded_why=score.why,
            )
            for backend in vip.backends
            for score in (scores.get(backend.endpoint, _WHOLE),)
        ]

    def served(self, config: Config, now: float) -> Config:
        """The configuration that is forwarded by: effective weights, and no backend whose flows are to be released.

        One that is released is left out as if it were removed, so flows that it had find others at once, and records
        that lead to it count no more, even after it has come back.
        """
        return replace(config, vips=tuple(self._look(vip, now).served for vip in config.vips))

    def leaves_out(self, config: Config, now: float) -> bool:
        """Whether backends are released, so that less is served than is configured."""
        return any(len(self._look(vip, now).served.backends) < len(vip.backends) for vip in config.vips)

    def _look(self, vip: Vip, now: float) -> "_Seen":
        """What follows of a VIP's health; as it was seen before, if nothing has changed since."""
        seen = self._seen.get(vip.name)
        if seen is not None and seen.vip is vip and (seen.until is None or now < seen.until):
            return seen
        members = self._members(vip, now)
        found = picture(members, vip.spread, now)
        backends = (
            replace(backend, weight=effective.weight)
            for backend, effective in zip(vip.backends, found.backends, strict=True)
            if effective.usable
        )
        seen = _Seen(vip, found, replace(vip, backends=tuple(backends)), next_change(members, now))
        self._seen[vip.name] = seen
        return seen
