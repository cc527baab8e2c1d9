"""One's-complement sums, as the program adds them: over little-endian words (RFC 1071 §2(B): any byte order does)."""

import struct


def sum_words(data: bytes) -> int:
    """The folded 16-bit sum of an even number of bytes."""
    total: int = sum(struct.unpack(f"<{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def difference(old: bytes, new: bytes) -> int:
    """What replacing `old` by `new` adds to a sum that covers it (RFC 1624, eqn. 3: ~m + m')."""
    return sum_words(bytes(byte ^ 0xFF for byte in old) + new)
