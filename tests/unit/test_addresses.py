"""What marks an address as ours, and what is sent to tell neighbours of it."""

import os
from ipaddress import IPv4Address, IPv6Address
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from l4lb.datapath.addresses import gratuitous_arp, is_ours, unsolicited_advertisement

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
    if label:
        attributes.append(("IFA_LABEL", label))
    return {"family": IPV4, "prefixlen": 32, "index": 2, "attrs": attributes}


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


def test_gratuitous_arp() -> None:
    """Against Scapy's."""
    mac = "02:00:00:00:00:01"
    expected = Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op="who-has", hwsrc=mac, psrc="192.0.2.10", hwdst="00:00:00:00:00:00", pdst="192.0.2.10"
    )
    assert gratuitous_arp(IPv4Address("192.0.2.10"), bytes.fromhex(mac.replace(":", ""))) == bytes(expected).ljust(
        60, b"\0"
    )


def test_unsolicited_advertisement() -> None:
    """Against Scapy's."""
    mac, address = "02:00:00:00:00:01", "2001:db8::10"
    expected = (
        Ether(src=mac, dst="33:33:00:00:00:01")
        / IPv6(src=address, dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(R=0, S=0, O=1, tgt=address)
        / ICMPv6NDOptDstLLAddr(lladdr=mac)
    )
    assert unsolicited_advertisement(IPv6Address(address), bytes.fromhex(mac.replace(":", ""))) == bytes(expected)


@given(st.ip_addresses(v=6), st.binary(min_size=6, max_size=6))
def test_an_advertisements_checksum_is_right(address: IPv6Address, mac: bytes) -> None:
    """Whatever the address: as Scapy makes it."""
    sent = Ether(unsolicited_advertisement(address, mac))
    anew = sent.copy()
    del anew[IPv6].payload.cksum
    assert bytes(anew) == bytes(sent)
