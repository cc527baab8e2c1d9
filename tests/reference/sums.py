"""One's-complement sums over whole stretches of bytes (RFC 1071)."""


def total(data: bytes) -> int:
    """The sum of the 16-bit words modulo 65,535; an odd last byte is the upper half of a word.

    65,536 leaves 1 on division by 65,535, so a number in base 65,536 leaves what the sum of its digits leaves.
    """
    if len(data) % 2:
        data += b"\0"
    return int.from_bytes(data, "big") % 0xFFFF


def checksum(data: bytes) -> int:
    """The Internet checksum of bytes that are not all 0, in which the checksum itself is 0."""
    return -total(data) % 0xFFFF


def carried_over(check: int, before: bytes, after: bytes) -> int:
    """The checksum of what `before` became. One that was wrong stays wrong by the same amount (RFC 1624).

    Args:
        check: the checksum before.
        before: all that it covers, or all of that which is there; the checksum may be among it.
        after: the same as it is now, but for the checksum.
    """
    return (check + total(before) - total(after)) % 0xFFFF
