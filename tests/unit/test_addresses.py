"""What marks an address as ours, and what is sent to tell neighbours of it."""

import os
from ipaddress import IPv6Address
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from l4lb.datapath.addresses import is_ours, unsolicited_advertisement

FOREVER = 0xFFFFFFFF
NODAD, DEPRECATED, PERMANENT, NOPREFIXROUTE = 0x02, 0x20, 0x80, 0x200  # uapi/linux/if_addr.h
IPV4, IPV6 = 2, 10


def ipv6(
    protocol: int | None = None,
    prefix: int = 128,
    flags: int = NODAD | NOPREFIXROUTE,
    preferred: int = 0,
    valid: int = FOREVER,
) -> Any:
    attributes = [
        ("IFA_ADDRESS", "2001:db8::10"),
        ("IFA_CACHEINFO", {"ifa_preferred": preferred, "ifa_valid": valid, "cstamp": 1, "tstamp": 1}),
        ("IFA_FLAGS", flags | DEPRECATED | PERMANENT),
    ]
    if protocol is not None:
        attributes.append(("IFA_PROTO", protocol))
    return {"family": IPV6, "prefixlen": prefix, "index": 2, "attrs": attributes}


def ipv4(label: str | None) -> Any:
    attributes = [("IFA_ADDRESS", "192.0.2.10"), ("IFA_LOCAL", "192.0.2.10")]
    return {
        "family": IPV4,
        "prefixlen": 32,
        "index": 2,
        "attrs": attributes + ([("IFA_LABEL", label)] if label else []),
    }


@pytest.mark.parametrize(
    ("message", "ours"),
    [
        (ipv6(0x4C), True),
        pytest.param(ipv6(), False, id="of the same shape, as keepalived's may be"),
        pytest.param(ipv6(2), False, id="the kernel's own protocol"),
        (ipv4("eth0:l4lb"), True),
        pytest.param(ipv4("l4lb"), True, id="where the interface's name is too long"),
        (ipv4("eth0"), False),
        (ipv4("eth0:l4lbs"), False),
        (ipv4(None), False),
    ],
)
def test_ours_are_known_by_their_mark(message: Any, ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="5.18.0-1-amd64"))
    assert is_ours(message) == ours


@pytest.mark.parametrize(
    ("message", "ours"),
    [
        (ipv6(), True),
        (ipv6(prefix=64), False),
        (ipv6(flags=NODAD), False),
        (ipv6(flags=NOPREFIXROUTE), False),
        (ipv6(preferred=FOREVER), False),
        (ipv6(valid=3600), False),
        (ipv4("eth0:l4lb"), True),
        (ipv4("eth0"), False),
    ],
)
def test_older_kernels_know_ours_by_their_shape(message: Any, ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """IFA_PROTO is kept since 5.18."""
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="5.15.0-100-generic"))
    assert is_ours(message) == ours


@given(st.ip_addresses(v=6), st.binary(min_size=6, max_size=6))
def test_an_advertisements_checksum_is_right(address: IPv6Address, mac: bytes) -> None:
    """Whatever the address: as Scapy makes it."""
    sent = Ether(unsolicited_advertisement(address, mac))
    anew = sent.copy()
    del anew[IPv6].payload.cksum
    assert bytes(anew) == bytes(sent)
