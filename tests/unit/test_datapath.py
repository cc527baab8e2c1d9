"""The parts of the datapath that need no kernel."""

import re
import struct
from math import log2
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4lb.datapath import abi
from l4lb.datapath.checksum import difference, sum_words
from l4lb.datapath.requirements import check_capabilities, check_kernel
from l4lb.datapath.source import BPF_DIR, Source, inline
from l4lb.errors import L4lbError
from l4lb.health import handshakes
from l4lb.plan import index, ranges, tables
from l4lb.rules import POOL_PORTS


def test_a_header_is_read() -> None:
    read = abi.Abi("""
        /* struct not { this; }; */
        #define SIZE 8
        enum colour { RED, GREEN = 5, BLUE, /* a comment */ };
        struct inner { __u8 bytes[3]; __u8 pad; };
        struct outer { __u64 word; struct inner inner; __be16 port; __u16 rest; };
    """)
    assert read.constants == {"SIZE": 8}
    assert read.enums == {"colour": {"RED": 0, "GREEN": 5, "BLUE": 6}}
    assert read.structs["outer"].port.offset == 12


@pytest.mark.parametrize(
    "text", ["struct s { char *p; };", "union u { __u8 a; };", "struct s { __u8 a : 3; };", "int f(void);"]
)
def test_a_header_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not understood"):
        abi.Abi(text)


def test_constants_of_both_sides_agree() -> None:
    """What Python and C each have to know as a literal."""
    assert abi.load().constants == {
        "ENTRIES_PER_LINE": index.ENTRIES,
        "FILTER_WORDS": index.FILTER_WORDS,
        "FLOWS_PER_LINE": 4,
        "HANDSHAKE_PLACES": 65_536,
        "INDEX_PROBES": index.PROBES,
        "INDEX_REF_BITS": index.NUMBER_BITS,
        "NO_VIP": ranges.NO_VIP,
        "POOL_PORT": 16_384,
        "POOL_PORTS": POOL_PORTS,
        "POOL_PROBES": 8,
        "RANGES_PER_LINE": ranges.PER_LINE,
        "REPLY_SHIFT": log2(round(1e6 * handshakes.FIRST_REPLY_TIME)),
        "TIME_BUCKETS": handshakes.BUCKETS,
        "TIME_SHIFT": log2(round(1e6 * handshakes.FIRST_TIME)),
    }
    assert {way.value for way in index.Way} == set(abi.load().enums["way"].values())
    schedulers = {f"SCHEDULER_{found.name}": number for number, found in tables.TURN_SCHEDULERS.items() if found}
    assert schedulers.items() <= abi.load().enums["scheduler"].items()


def test_reasons_are_passes_answers_and_drops() -> None:
    """Their names say what happens, and the program decides by their order."""
    forwarded, *names = abi.reason_names()
    assert forwarded == "forwarded"
    first_answer, first_drop = names.index("answer_echo"), names.index("drop_malformed")
    assert all(name.startswith("pass_") for name in names[:first_answer])
    assert all(name.startswith("answer_") for name in names[first_answer:first_drop])
    assert all(name.startswith("drop_") for name in names[first_drop:])


def test_headers_are_put_in_place(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text('#include <linux/ip.h>\n#include "one.h"\nint main;\n')
    (tmp_path / "one.h").write_text("int one;\n")
    assert inline(tmp_path / "main.c") == (
        '#line 1 "main.c"\n#include <linux/ip.h>\n#line 1 "one.h"\nint one;\n#line 3 "main.c"\nint main;\n'
    )


def test_no_header_is_left_out() -> None:
    text = "".join(inline(main) for main in BPF_DIR.glob("*.c"))
    assert '#include "' not in text
    used = {name for name in (path.name for path in BPF_DIR.glob("*.h")) if f'"{name}"' in text}
    assert used == {path.name for path in BPF_DIR.glob("*.h")}


def test_a_fingerprint_is_of_everything() -> None:
    source = Source("text", "f", {"A": "1"})
    others = [Source("text2", "f", {"A": "1"}), Source("text", "g", {"A": "1"}), Source("text", "f", {"A": "2"})]
    assert len({source.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert (
        Source("text", "f", {"B": "2", "A": "1"}).fingerprint == Source("text", "f", {"A": "1", "B": "2"}).fingerprint
    )


@pytest.mark.parametrize("release", ["5.11.22", "5.10.0-28-amd64", "4.19.0-21-amd64", "5.4"])
def test_an_old_kernel_is_refused(release: str) -> None:
    with pytest.raises(L4lbError, match=re.escape(f"kernel {release} is too old: l4lb needs Linux 5.12 or newer")):
        check_kernel(release)


@pytest.mark.parametrize("release", ["5.12.0", "5.15.0-91-generic", "6.1.0", "6.18.44-custom", "10.0"])
def test_a_new_kernel_is_not(release: str) -> None:
    check_kernel(release)


def test_missing_privileges_are_named() -> None:
    with pytest.raises(L4lbError, match=r"CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON missing.*run it as root"):
        check_capabilities("Name:\tl4lb\nCapEff:\t0000000000000000\n")
    with pytest.raises(L4lbError, match=r"\(CAP_BPF missing\)"):
        check_capabilities(f"CapEff:\t{2**64 - 1 - (1 << 39):x}\n")
    check_capabilities("CapEff:\t000001ffffffffff\n")


def internet_checksum(data: bytes) -> int:
    """RFC 1071, over big-endian words."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@given(st.binary(min_size=20, max_size=20), st.binary(min_size=6, max_size=6))
def test_a_difference_updates_a_checksum(header: bytes, new: bytes) -> None:
    """As the program applies it, and as if the sum were made anew."""
    changed = header[:12] + new + header[18:]
    checksum = int.from_bytes(internet_checksum(header).to_bytes(2, "big"), "little")
    total = (~checksum & 0xFFFF) + difference(header[12:18], new)
    updated = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    fresh = int.from_bytes(internet_checksum(changed).to_bytes(2, "big"), "little")
    assert updated == fresh or {updated, fresh} == {0, 0xFFFF}, "0 has two forms"


def test_a_sum_folds() -> None:
    assert sum_words(b"\xff\xff\x01\x00") == 1
