"""The packet's way through the program, written a second time: in plain Python, from the RFCs and ``bpf/abi.h``.

Tests run packets through both and compare. So nothing here may share a trick with ``bpf/``: checksums are sums over all
the bytes that they cover, look-ups are dictionaries.
"""

from tests.reference.decide import Reference
from tests.reference.world import Hop, Outcome, Port, World

__all__ = ["Hop", "Outcome", "Port", "Reference", "World"]
