"""Durations as users write them: ``500ms``, ``2s``, ``1m``, ``1h30m``; a bare number is of seconds."""

import re

from l4lb.errors import UsageError

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s)"


def parse_duration(text: str) -> float:
    """Seconds.

    Raises:
        UsageError: it is no duration.
    """
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    if not re.fullmatch(f"(?:{_PART})+", text):
        raise UsageError(f"{text!r} is no duration", "write it as in 500ms, 2s, 1m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text))


def format_duration(seconds: float) -> str:
    """The shortest way to write it, exact to a millisecond: ``500ms``, ``2s``, ``1m30s``."""
    left, parts = round(seconds * 1000), []
    for unit, length in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count}{unit}")
    if left or not parts:
        parts.append(f"{left}ms")
    return "".join(parts)
