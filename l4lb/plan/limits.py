"""How large the maps are."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of the maps, in entries. All `*_lines` but those of slots and ranges are powers of two.

    With the defaults the maps take 77 MB and 1.3 MB more per CPU.
    """

    max_vips: int = 16_384
    max_backends: int = 32_768  # (VIP, backend) pairs and 1; more makes a slot 4 bytes instead of 2
    max_interfaces: int = 65_536  # the highest interface index + 1
    index_lines: int = 32_768  # of 8 entries; all VIPs, addresses and backends together fill a quarter of them
    slot_lines: int = 524_288  # of 64 bytes; with 2-byte slots, 255 tables of 65,537 slots or 15,887 of 1,021
    range_lines: int = 8_192  # of 16 ranges of ports
    flow_lines: int = 262_144  # of 4 records of flows in slots that changed lately
    fragment_lines: int = 4_096  # of 4 records of datagrams in fragments
    max_connections: int = 524_288  # by fullnat, and to servers of several VIPs; of 32 bytes
    max_watched: int = 4_096  # backends whose handshakes are counted, and 1; 128 bytes for each CPU
    route_lines: int = 4_096  # clients whose way back each CPU remembers

    @property
    def slot_bytes(self) -> int:
        """Size of one slot, as ``bpf/maps.h`` chooses it."""
        return 2 if self.max_backends <= 32_768 else 4

    @property
    def slot_type(self) -> str:
        """The :mod:`array` type of a slot."""
        return "H" if self.slot_bytes == 2 else "I"

    @property
    def slot_flag(self) -> int:
        """The top bit of a slot."""
        return 1 << 8 * self.slot_bytes - 1

    @property
    def slots_per_line(self) -> int:
        """Slots in one 64-byte line."""
        return 64 // self.slot_bytes
