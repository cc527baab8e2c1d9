"""What `l4lb decap` makes of its options and of the host, without a kernel."""

import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from l4lb.datapath.decap import Host, Setup, chosen_vips, host_of, max_vips, reason_names
from l4lb.errors import L4lbError, UsageError

L4LB = Path(sys.executable).with_name("l4lb")
LO, ETH0 = 1, 2
GLOBAL, LINK, HOST = 0, 253, 254  # rtnetlink's scopes


def addresses(*texts: str) -> frozenset[Any]:
    return frozenset(map(ip_address, texts))


def message(index: int, scope: int, **attributes: str) -> dict[str, Any]:
    return {"index": index, "scope": scope, "attrs": list(attributes.items())}


def test_vips_are_the_global_addresses_on_the_loopback_interface() -> None:
    host = host_of(
        {},
        [
            message(LO, HOST, IFA_ADDRESS="127.0.0.1", IFA_LOCAL="127.0.0.1"),
            message(LO, HOST, IFA_ADDRESS="::1"),
            message(LO, LINK, IFA_ADDRESS="169.254.1.1", IFA_LOCAL="169.254.1.1"),
            message(LO, GLOBAL, IFA_ADDRESS="192.0.2.10", IFA_LOCAL="192.0.2.10"),
            message(LO, GLOBAL, IFA_ADDRESS="2001:db8::10"),
            message(ETH0, GLOBAL, IFA_ADDRESS="10.0.0.2", IFA_LOCAL="10.0.0.1"),  # the other end's, and its own
        ],
    )
    assert host.vips == addresses("192.0.2.10", "2001:db8::10")
    assert host.addresses == host.vips | addresses("127.0.0.1", "::1", "169.254.1.1", "10.0.0.1")


def test_named_vips_come_in_place_of_those_found() -> None:
    host = Host({}, addresses("192.0.2.10"), addresses("192.0.2.10"))
    assert chosen_vips([], host) == addresses("192.0.2.10")
    assert chosen_vips([*addresses("192.0.2.11")], host) == addresses("192.0.2.11")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("0.0.0.0", "unicast"),
        ("::", "unicast"),
        ("127.0.0.1", "unicast"),
        ("ff02::1", "unicast"),
        ("fe80::1", "one link only"),
        ("::ffff:192.0.2.10", "write it as 192.0.2.10"),
    ],
)
def test_no_vips(address: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        chosen_vips([ip_address(address)], Host({}, frozenset(), frozenset()))


def test_no_vip_at_all() -> None:
    with pytest.raises(L4lbError, match=r"loopback.*--vip"):
        chosen_vips([], Host({}, addresses("10.0.0.1"), frozenset()))


def test_as_many_vips_as_there_is_room_for() -> None:
    host = Host({}, frozenset(), frozenset())
    vips = [ip_address(0x0A000000 + number) for number in range(max_vips() + 1)]
    assert len(chosen_vips(vips[1:], host)) == 1024
    with pytest.raises(UsageError, match=r"1,025 VIPs .* 1,024 fit"):
        chosen_vips(vips, host)


def test_a_setups_name_stands_for_what_it_is() -> None:
    vips = addresses("192.0.2.10", "2001:db8::10")
    names = {Setup(vips, 6080).name, Setup(vips, 6081).name, Setup(addresses("192.0.2.10"), 6080).name}
    assert len(names) == 3
    assert Setup(vips, 6081).name.startswith("6081_")
    assert Setup(addresses("2001:db8::10", "192.0.2.10"), 6080).name in names
    assert not any("." in name for name in names), "BPF file systems allow no dots"


def test_reasons_say_what_happens() -> None:
    kinds = [name.partition("_")[0] for name in reason_names()]
    assert kinds == ["decap"] * 8 + ["pass"] * 5 + ["drop"]


BAD = [
    ("", "Missing option '--interface'"),
    ("--vip 192.0.2.10", "Missing option '--interface'"),
    ("--json", "--json is for --status"),
    ("--interface eth0 --json", "--json is for --status"),
    ("--status --remove", "give one of them"),
    ("--status --interface eth0", "give one of them"),
    ("--remove --vip 192.0.2.10", "give one of them"),
    ("--remove --gue-port 6080", "give one of them"),
    ("--status --xdp-mode generic", "give one of them"),
    ("--interface eth0 --vip 192.0.2.300", "'192.0.2.300' is no IP address"),
    ("--interface eth0 --vip 192.0.2.10:80", "without a port"),
    ("--interface eth0 --vip [2001:db8::1]:80", "without a port"),
    ("--interface eth0 --gue-port 0", "--gue-port"),
    ("--interface eth0 --gue-port 65536", "--gue-port"),
    ("--interface eth0 --xdp-mode warp", "'warp' is not one of"),
]


@pytest.mark.parametrize(("line", "says"), BAD, ids=[row[0] for row in BAD])
def test_bad_options(line: str, says: str) -> None:
    """One line that says what is wrong, and the status for it."""
    done = subprocess.run([L4LB, "decap", *line.split()], capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
