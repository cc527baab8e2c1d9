"""Events that no kernel here sends."""

import asyncio
from ipaddress import IPv4Address

from l4lb.datapath.links import Link
from l4lb.datapath.nexthops import NextHops

WLAN = Link("wlan0", 2, bytes.fromhex("020000000001"), 1500, True, 2)


def test_a_message_that_says_hardly_more_than_a_name_changes_nothing() -> None:
    """As wireless drivers send them (IFLA_WIRELESS)."""
    told: list[Link] = []
    message = {
        "event": "RTM_NEWLINK",
        "family": 0,
        "ifi_type": 1,
        "index": 2,
        "flags": 1,
        "attrs": [("IFLA_IFNAME", "wlan0"), ("IFLA_WIRELESS", "00:00")],
    }
    whole = {**message, "attrs": [("IFLA_IFNAME", "wlan0"), ("IFLA_MTU", 1400), ("IFLA_ADDRESS", "02:00:00:00:00:01")]}

    async def check() -> None:
        hops = NextHops([WLAN], lambda *_: None, told.append, lambda _: told.clear(), lambda: None)
        try:
            for event in (whole, message):
                hops._handle(event)
            assert str(hops.current(IPv4Address("192.0.2.1"))) == "unresolved: not looked up yet"
        finally:
            await hops.close()

    asyncio.run(check())
    assert [link.mtu for link in told] == [1400]
