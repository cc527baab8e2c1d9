"""The rules that every configuration obeys: each, broken alone, is told in one line with its way out."""

from dataclasses import fields, replace
from ipaddress import ip_network
from typing import Any

import pytest

from l4lb.health.check import Check
from l4lb.health.rules import HealthRules, VipRules
from l4lb.model import Backend, Config, Endpoint, Mode, Protocol, Scheduler, Service, Via, Vip
from l4lb.rules import problems

_RULES = {field.name for field in fields(HealthRules)}


def vip(
    name: str = "web",
    at: str = "192.0.2.10:80/tcp",
    *backends: str,
    sources: str = "",
    checks: str = "",
    **more: Any,
) -> Vip:
    """A VIP; what is none of its own settings is of its HealthRules."""
    place, _, protocol = at.rpartition("/")
    service = Service.parse(place, Protocol.parse(protocol))
    default = service.first_port if service.is_single else 0
    rules = {setting: more.pop(setting) for setting in _RULES & more.keys()}
    return Vip(
        name,
        service,
        backends=tuple(Backend(Endpoint.parse(text, default)) for text in backends),
        sources=tuple(ip_network(text) for text in sources.split()),
        checks=tuple(map(Check.parse, checks.split())),
        health=HealthRules(**rules),
        **more,
    )


def own(found: Vip, priority: int = 0, **overrides: object) -> Vip:
    """With these overrides of its one backend."""
    (backend,) = found.backends
    return replace(found, backends=(replace(backend, priority=priority, overrides=tuple(sorted(overrides.items()))),))


def told(*vips: Vip, seed: int = 0) -> list[str]:
    found = list(problems(Config(vips, seed)))
    assert all(problem.hint and "\n" not in str(problem) for problem in found)
    return [str(problem) for problem in found]


V6 = "[2001:db8::10]:80/tcp"
NAT, FULLNAT, DSR, IPIP, GUE = Mode
HASH = Scheduler.SOURCE_HASH
DATAPLANE = Via.DATAPLANE
B = "10.0.0.1:8080"

KEPT = {
    "nothing": [],
    "the longest name": [vip("0" + 62 * "_"), vip("a.b-c", V6)],
    "IPv6": [vip("web", V6, "[2001:db8:2::1]:8080")],
    "addresses beside those of no host": [
        vip(str(number), f"{address}:80/tcp")
        for number, address in enumerate(
            (
                "126.255.255.255", "128.0.0.0", "169.254.0.1", "223.255.255.255", "255.255.255.254",
                "[::2]", "[fe00::1]", "[fec0::1]",
            )
        )
    ],
    "an address beside IPv4 in disguise": [vip(at="[::fffe:192.0.2.1]:80/tcp")],
    "the edges of idle timeouts": [vip(idle_timeout=1), vip("b", V6, idle_timeout=604_800)],
    "the edges of GUE's ports": [vip(gue_port=1), vip("b", V6, gue_port=65_535)],
    "all modes at one address": [
        vip(str(mode), f"192.0.2.10:{8000 + number}/tcp", f"10.0.0.{number}", mode=mode)
        for number, mode in enumerate(Mode, 1)
    ],
    "one port, a range and all ports of an address": [
        vip("one", "192.0.2.10:80/tcp"), vip("some", "192.0.2.10:80-90/tcp"), vip("all", "192.0.2.10:*/tcp"),
    ],
    "the same for tcp and udp": [
        vip("tcp", "192.0.2.10:53/tcp", "10.0.0.1"), vip("udp", "192.0.2.10:53/udp", "10.0.0.1"),
    ],
    "the largest tunnel source": [vip(mode=GUE, sources="10.0.0.0/8 fd00::/96")],
    "the largest fullnat source": [vip(mode=FULLNAT, sources="10.9.0.0/26", pool=65_536)],
    "the largest pool of one address": [vip(mode=FULLNAT, pool=16_384)],
    "a large pool that no fullnat uses": [vip(mode=NAT, pool=65_536)],
    "the edges of MSS": [vip("a", mss=88), vip("b", "192.0.2.11:80/tcp", mss=65_495)],
    "a client network": [
        vip("a", V6, scheduler=HASH, client_prefix=128), vip("b", scheduler=HASH, client_prefix=32),
    ],
    "whole clients": [vip(scheduler=HASH, client_prefix=0)],
    "the edges of pools": [vip(mode=FULLNAT, pool=256), vip("b", V6, mode=FULLNAT, sources="fd00::/122", pool=65_536)],
    "a source in each mode that sends from one": [
        vip(str(mode), f"192.0.2.1:{port}/tcp", mode=mode, sources="10.9.0.0/30 fd00::/122")
        for port, mode in enumerate((FULLNAT, IPIP, GUE), 1)
    ],
    "the edges of weights": [
        replace(vip(), backends=(Backend(Endpoint.parse(B), 0), Backend(Endpoint.parse("10.0.0.2:80"), 65_535)))
    ],
    "two ports of one server": [vip("a", "192.0.2.1:80/tcp", B, "10.0.0.1:8081")],
    "backends of a range at the client's port": [
        vip(str(mode), f"192.0.2.{number}:*/udp", f"10.0.0.{number}", mode=mode) for number, mode in enumerate(Mode, 1)
    ],
    "tcp by nat and udp by fullnat at one port of a server": [
        vip("a", "192.0.2.1:80/tcp", B), vip("b", "192.0.2.2:80/udp", B, mode=FULLNAT),
    ],
    "fullnat of different pools for tcp and udp": [
        vip("a", "192.0.2.1:80/tcp", B, mode=FULLNAT, pool=256), vip("b", "192.0.2.2:80/udp", B, mode=FULLNAT),
    ],
    "a server of a nat VIP and of a dsr VIP": [
        vip("a", "192.0.2.1:80/tcp", "10.0.0.1"), vip("b", "192.0.2.2:80/tcp", "10.0.0.1", mode=DSR),
    ],
    "a range of tcp and one of udp at one server": [
        vip("a", "192.0.2.1:80-90/tcp", "10.0.0.1"), vip("b", "192.0.2.2:80-90/udp", "10.0.0.1"),
    ],
    "two ranges at one server by dsr": [
        vip("a", "192.0.2.1:80-90/tcp", "10.0.0.1", mode=DSR), vip("b", "192.0.2.2:80-90/tcp", "10.0.0.1", mode=DSR),
    ],
    "a udp server at the address and port of a tcp VIP": [
        vip("a", "192.0.2.1:80/tcp"), vip("b", "192.0.2.2:80/udp", "192.0.2.1:80"),
    ],
    "either family in a tunnel": [vip("a", V6, "10.0.0.1", "[2001:db8:2::1]", mode=IPIP)],
    "a server of two nat VIPs": [vip("a", "192.0.2.1:80/tcp", B), vip("b", "192.0.2.2:80/tcp", B, pool=256)],
    "a server of two fullnat VIPs": [
        vip("a", "192.0.2.1:80/tcp", B, mode=FULLNAT, sources="10.9.0.0/30"),
        # a source of another family makes no difference to it
        vip("b", "192.0.2.2:80/tcp", B, mode=FULLNAT, sources="fd00::/122 10.9.0.0/30"),
    ],
    "fullnat VIPs of different pools at two ports of a host": [
        vip("a", "192.0.2.1:80/tcp", B, mode=FULLNAT, pool=256),
        vip("b", "192.0.2.2:80/tcp", "10.0.0.1:81", mode=FULLNAT),
    ],
    "a server of two dsr VIPs": [
        vip("a", "192.0.2.1:80/tcp", "10.0.0.1", mode=DSR), vip("b", "192.0.2.2:80/tcp", "10.0.0.1", mode=DSR),
    ],
    "ports beside a range": [
        vip("a", "192.0.2.1:8000-8999/tcp", "10.0.0.1"), vip("b", "192.0.2.2:80/tcp", "10.0.0.1:7999", "10.0.0.1:9000"),
    ],
    "ports of a range all at one": [vip("a", "192.0.2.1:8000-8999/tcp", "10.0.0.1:80")],
    "a server at another port of a VIP's address": [
        vip("a", "192.0.2.1:80/tcp"), vip("b", "192.0.2.2:80/tcp", "192.0.2.1:79", "192.0.2.1:81"),
    ],
    "the edges of priorities": [own(vip("a", "192.0.2.1:80/tcp", B), priority=15)],
    "as many checks as there may be": [vip(checks=" ".join(f"tcp:port={port}" for port in range(1, 9)))],
    "checks that differ in one option": [vip(checks="http http:path=/a http:path=/b")],
    "the edges of intervals and timeouts": [
        vip("a", interval=0.01, timeout=0.001, fast_interval=0.01, stale_after=0.01, jitter=0.5),
        vip("b", V6, interval=86_400, timeout=600, fast_interval=86_400, stale_after=86_400, slow_start=86_400),
    ],
    "the edges of counts": [vip("a", rise=1, fall=1, floor=1), vip("b", V6, rise=255, fall=255, floor=100)],
    "the edges of shares": [
        vip("a", spread=VipRules(panic_share=100, tier_share=100)), vip("b", V6, spread=VipRules(tier_share=1_000)),
    ],
    "rules of a backend's own that fit to the VIP's": [
        own(vip("a", "192.0.2.1:80/tcp", B, fast_interval=2), fast_interval=0.5, interval=1, check_port=65_535),
    ],
    "a check by way of the dataplane in each mode that has one": [
        vip(f"{mode}-{kind}", f"192.0.2.1:{port}/{kind}", "10.0.0.1", mode=mode, via=DATAPLANE, checks="tcp udp")
        for mode, port in ((DSR, 80), (IPIP, 81), (GUE, 82)) for kind in ("tcp", "udp")
    ],
    "handshakes watched in each mode that sees them": [
        vip(str(mode), f"192.0.2.1:{port}/tcp", mode=mode, passive=True, checks="icmp")
        for mode, port in ((NAT, 80), (FULLNAT, 81))
    ],
    "checks of a backend with several ports that name theirs": [
        vip("a", "192.0.2.1:80-90/tcp", "10.0.0.1", checks="tcp:port=80 icmp exec:command=/a"),
        vip("b", "192.0.2.2:80-90/tcp", "10.0.0.2", checks="tcp http", check_port=80),
        own(vip("c", "192.0.2.3:80-90/tcp", "10.0.0.3", checks="tcp http"), check_port=80),
        vip("d", "192.0.2.4:80-90/tcp", "10.0.0.4:80", checks="tcp http"),
        vip("e", "192.0.2.5:80-90/tcp", "10.0.0.5", checks="tcp", check_port=80, mode=DSR, via=DATAPLANE),
    ],
    "checks of several ports before there is a backend": [vip(at="192.0.2.1:*/tcp", checks="tcp")],
    "a server of a range at ports beside a VIP's": [
        vip("a", "192.0.2.1:79/tcp"), vip("b", "192.0.2.1:91/tcp"), vip("c", "192.0.2.2:80-90/tcp", "192.0.2.1"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("vips", KEPT.values(), ids=KEPT.keys())
def test_kept(vips: list[Vip]) -> None:
    assert told(*vips) == []


BROKEN: list[tuple[list[Vip], str]] = [
    ([vip("Web")], "VIP name 'Web' is not allowed: use up to 63 of a-z"),
    ([vip("_web")], "VIP name '_web' is not allowed"),
    ([vip("a" * 64)], "aaa' is not allowed"),
    ([vip("")], "VIP name '' is not allowed"),
    ([vip("web\n")], "VIP name 'web\\n' is not allowed"),
    ([vip("web"), vip("web", "192.0.2.11:80/tcp")], "VIP web exists already: choose another name, or change it"),
    ([vip("a"), vip("b")], "VIPs a and b would have the same address 192.0.2.10:80/tcp: choose another"),
    ([vip("a", "[2001:db8::1]:*/udp"), vip("b", "[2001:db8::1]:1-65535/udp")], "the same address [2001:db8::1]:*/udp"),
    ([vip(at="[febf:ffff::1]:80/tcp")], "VIP address febf:ffff::1 is valid on one link only"),
    ([vip(at="[fe80::1]:80/tcp")], "VIP address fe80::1 is valid on one link only: give a global or unique local"),
    ([vip(at="[::ffff:192.0.2.1]:80/tcp")], "is an IPv4 address in disguise: write it as 192.0.2.1"),
    *(
        ([vip(at=f"{address}:80/tcp")], "is no address of a single host on the network: give a unicast address")
        for address in (
            "0.0.0.0", "127.0.0.0", "127.255.255.255", "224.0.0.0", "239.255.255.255", "255.255.255.255",
            "[::]", "[::1]", "[ff00::]", "[ff0e::1]",
        )
    ),
    ([vip(idle_timeout=0)], "idle timeout 0 of VIP web is not between 1 and 604800 seconds: leave it out"),
    ([vip(idle_timeout=604_801)], "idle timeout 604801 of VIP web is not between"),
    ([vip(gue_port=0)], "GUE port 0 of VIP web is not between 1 and 65535: leave it out for 6080"),
    ([vip(gue_port=65_536)], "GUE port 65536 of VIP web"),
    ([vip(mss=87)], "MSS 87 of VIP web is not between 88 and 65495 bytes: use 0 to leave SYNs as they are"),
    ([vip(mss=65_496)], "MSS 65496 of VIP web"),
    ([vip(mss=-1)], "MSS -1 of VIP web"),
    ([vip(at="192.0.2.1:53/udp", mss=1400)], "VIP web is no TCP service, and has no MSS: leave --mss out"),
    ([vip(scheduler=HASH, client_prefix=33)], "client prefix 33 of VIP web is not between 1 and 32 bits: use 24"),
    ([vip(at=V6, scheduler=HASH, client_prefix=129)], "prefix 129 of VIP web is not between 1 and 128 bits: use 64"),
    ([vip(scheduler=HASH, client_prefix=-1)], "client prefix -1 of VIP web"),
    ([vip(client_prefix=24)], "goes by no client prefix, as its scheduler is maglev: leave --client-prefix out"),
    ([vip(pool=3_000)], "pool 3000 of VIP web is no power of two between 256 and 65,536: use 4096, or more"),
    ([vip(pool=128)], "pool 128 of VIP web is no power of two"),
    ([vip(pool=131_072)], "pool 131072 of VIP web is no power of two"),
    (
        [vip(mode=FULLNAT, pool=32_768)],
        "pool 32768 of VIP web is larger than the 16384 ports of the one address that the gateway sends from:"
        " use --pool 16384, or a --source of 2 addresses",
    ),
    (
        [vip(mode=FULLNAT, pool=65_536, sources="10.9.0.0/31 fd00::/122")],
        "pool 65536 of VIP web is larger than the 32768 ports of 10.9.0.0/31: use --pool 32768, or a --source of 4",
    ),
    ([vip(at=V6, mode=FULLNAT, pool=32_768, sources="10.9.0.0/26")], "the 16384 ports of the one address"),
    *(
        ([vip(mode=mode, sources="10.9.0.0/30")], f"mode {mode} of VIP web keeps the client's address as source: leave")
        for mode in (NAT, DSR)
    ),
    ([vip(mode=GUE, sources="10.9.0.0/30 10.9.0.8/30")], "VIP web has two sources of one family: give one for IPv4"),
    ([vip(mode=IPIP, sources="fd00::/95")], "source fd00::/95 of VIP web is too wide"),
    ([vip(mode=IPIP, sources="224.0.0.0/30")], "source address 224.0.0.0 is no address of a single host"),
    ([vip(mode=FULLNAT, sources="10.9.0.0/25")], "source 10.9.0.0/25 of VIP web has more than 64 addresses"),
    ([vip(mode=FULLNAT, sources="fd00::/121")], "source fd00::/121 of VIP web has more than 64 addresses"),
    ([vip("web", "192.0.2.1:80/tcp", B, B)], "backend 10.0.0.1:8080 of VIP web exists already: change it with"),
    ([vip("web", "192.0.2.1:80/tcp", "127.0.0.1")], "backend address 127.0.0.1 is no address of a single host"),
    ([vip("web", "192.0.2.1:80/tcp", "192.0.2.1:81")], "backend 192.0.2.1:81 has the address of its VIP web"),
    *(
        ([vip("web", V6, "10.0.0.1", mode=mode)], "is of another family than the VIP: use mode ipip or gue")
        for mode in (NAT, FULLNAT, DSR)
    ),
    *(
        ([vip("web", "192.0.2.1:80/tcp", "10.0.0.1:81", mode=mode)], f"another port than the VIP: mode {mode} keeps")
        for mode in (DSR, IPIP, GUE)
    ),
    ([vip("web", "192.0.2.1:*/tcp", "10.0.0.1:81", mode=DSR)], "another port than the VIP: mode dsr keeps the port"),
    (
        [replace(vip(), backends=(Backend(Endpoint.parse("10.0.0.1", 0)),))],
        "backend 10.0.0.1 of VIP web has no port: use port 80",
    ),
    ([replace(vip(), backends=(Backend(Endpoint.parse(B), -1),))], "weight -1 is not between 0 and 65535: use 0 for"),
    ([replace(vip(), backends=(Backend(Endpoint.parse(B), 65_536),))], "weight 65536 is not between 0 and 65535"),
    (
        [vip("a", "192.0.2.1:80/tcp"), vip("b", "192.0.2.2:80/tcp", "192.0.2.1:80")],
        "backend 192.0.2.1:80 of VIP b is a VIP itself: give the server's own address",
    ),
    (
        [vip("a", "192.0.2.1:80-90/tcp"), vip("b", "192.0.2.2:80/tcp", "192.0.2.1:80")],
        "backend 192.0.2.1:80 of VIP b is a VIP itself",
    ),
    (
        [vip("a", "192.0.2.1:80-90/tcp"), vip("b", "192.0.2.2:80/tcp", "192.0.2.1:90")],
        "backend 192.0.2.1:90 of VIP b is a VIP itself",
    ),
    (
        [vip("a", "192.0.2.1:90/tcp"), vip("b", "192.0.2.2:80-90/tcp", "192.0.2.1")],
        "backend 192.0.2.1 of VIP b is a VIP itself",
    ),
    (
        [vip("a", "192.0.2.1:80/tcp", B), vip("b", "192.0.2.2:80/tcp", B, mode=FULLNAT)],
        "backend 10.0.0.1:8080/tcp would serve VIP a by nat and VIP b by fullnat, so its answers could not be told"
        " apart: use the same mode for both, or another port on the backend",
    ),
    (
        [vip("a", "192.0.2.1:80/tcp", B, mode=FULLNAT), vip("b", "192.0.2.2:80/tcp", B, mode=FULLNAT, pool=256)],
        "backend 10.0.0.1:8080/tcp would serve VIPs a and b by fullnat from different sources or pools, though a server"
        " has one pool of connections: give both VIPs the same --source and --pool, or use another port on the backend",
    ),
    (
        [
            vip("a", "192.0.2.1:80/tcp", B, mode=FULLNAT, sources="10.9.0.0/30"),
            vip("b", "192.0.2.2:80/tcp", B, mode=FULLNAT, sources="10.9.0.4/30"),
        ],
        "would serve VIPs a and b by fullnat from different sources or pools",
    ),
    (
        [
            vip("a", "192.0.2.1:80/tcp", B, mode=FULLNAT, sources="10.9.0.0/30"),
            vip("b", "192.0.2.2:80/tcp", B, mode=FULLNAT),
        ],
        "would serve VIPs a and b by fullnat from different sources or pools",
    ),
    (
        [vip("a", "192.0.2.1:80-90/tcp", "10.0.0.1"), vip("b", "192.0.2.2:180-190/tcp", "10.0.0.1")],
        "each takes a range of its ports: give one of them a single port",
    ),
    (
        [vip("a", "192.0.2.1:80-90/tcp", "10.0.0.1"), vip("b", "192.0.2.2:80/tcp", "10.0.0.1:90")],
        "use a port outside of the other's range",
    ),
    (
        [vip("a", "192.0.2.1:80-90/tcp", "10.0.0.1"), vip("b", "192.0.2.2:80/tcp", "10.0.0.1:80", mode=FULLNAT)],
        "backend 10.0.0.1:80/tcp would serve VIP a by nat and VIP b by fullnat",
    ),
    ([vip("a", "192.0.2.1:80-90/tcp", "10.0.0.1", "10.0.0.1:85")], "10.0.0.1:85/tcp would serve VIP a by nat and"),
    ([vip(rise=0)], "VIP web: rise 0 is not between 1 and 255 results in a row: use 2 or 3"),
    ([vip(fall=256)], "VIP web: fall 256 is not between"),
    ([vip(interval=0.009)], "VIP web: interval 0.009 s is not between 10 ms and a day: use 500ms or 2s"),
    ([vip(interval=86_401)], "VIP web: interval 86401 s is not between"),
    ([vip(timeout=0.0)], "VIP web: timeout 0 s is not between 1 ms and ten minutes: use 300ms or 1s"),
    (
        [vip(fast_interval=2.5)],
        "VIP web: fast interval 2.5 s is not between 10 ms and the interval of 2 s: leave it out or set it to 0",
    ),
    ([vip(jitter=0.51)], "VIP web: jitter 0.51 is not between 0 and 0.5 of the interval: use 0.1"),
    ([vip(slow_start=86_401)], "VIP web: slow start 86401 s is not between 0 and a day"),
    ([vip(floor=101)], "VIP web: floor 101 % is not between 1 and 100 % of the weight"),
    ([vip(check_port=65_536)], "VIP web: check port 65536 is not between 1 and 65535: use 0 for the backend's"),
    ([vip(stale_after=1.9)], "VIP web: stale after 1.9 s is not between the interval of 2 s and a day: leave it"),
    ([vip(spread=VipRules(panic_share=101))], "VIP web: panic share 101 % is not between 0 and 100 %: use 0 for never"),
    ([vip(spread=VipRules(tier_share=1_001))], "VIP web: tier share 1001 % is not between 100 and 1000 %: use 100"),
    (
        [vip(checks=" ".join(f"tcp:port={port}" for port in range(1, 10)))],
        "VIP web has more than 8 checks: use an exec check for what belongs together",
    ),
    ([vip(checks="tcp icmp tcp")], "VIP web has a check twice: leave one of them out"),
    ([vip(checks="http http:path=/,status=200-399")], "VIP web has a check twice"),  # by its defaults
    *(
        (
            [vip(mode=mode, via=DATAPLANE)],
            f"mode {mode} of VIP web has no way of its own to a backend that a probe could take:"
            " use --via direct, or mode dsr, ipip or gue",
        )
        for mode in (NAT, FULLNAT)
    ),
    *(
        (
            [vip(mode=DSR, via=DATAPLANE, checks=f"tcp {check}")],
            f"check {check} of VIP web cannot be made by way of the dataplane:"
            " use tcp or udp without a port of its own, or --via direct",
        )
        for check in ("http:path=/a", "icmp", "tcp:port=81", "exec:command=/a", "agent:port=9")
    ),
    *(
        (
            [vip(at=at, mode=mode, passive=True, checks="tcp")],
            "the gateway does not see the handshakes of VIP web: use --no-passive, or TCP with mode nat or fullnat",
        )
        for at, mode in (("192.0.2.1:53/udp", NAT), ("192.0.2.1:53/udp", FULLNAT), (V6, DSR), (V6, IPIP), (V6, GUE))
    ),
    (
        [vip(passive=True)],
        "VIP web has no check that could confirm what handshakes make suspected:"
        " give it one, as --check tcp, or use --no-passive",
    ),
    ([own(vip("a", "192.0.2.1:80/tcp", B), priority=16)], "priority 16 is not between 0 and 15: use 0 for the"),
    ([own(vip("a", "192.0.2.1:80/tcp", B), priority=-1)], "priority -1 is not between"),
    (
        [own(vip("a", "192.0.2.1:80/tcp", B), timeout=601)],
        "backend 10.0.0.1:8080 of VIP a: timeout 601 s is not between 1 ms and ten minutes: use 300ms or 1s;"
        " `l4lb backend set` takes back what is not the VIP's by --inherit",
    ),
    (
        [own(vip("a", "192.0.2.1:80/tcp", B, interval=0.5), fast_interval=1)],
        "backend 10.0.0.1:8080 of VIP a: fast interval 1 s is not between 10 ms and the interval of 0.5 s",
    ),
    (
        [own(vip("a", "192.0.2.1:80/tcp", B, fast_interval=1), interval=0.5)],
        "backend 10.0.0.1:8080 of VIP a: fast interval 1 s is not between 10 ms and the interval of 0.5 s",
    ),
    (
        [vip("a", "192.0.2.1:80-90/tcp", "10.0.0.1", checks="icmp tcp")],
        "backend 10.0.0.1 of VIP a takes several ports, and check tcp says none:"
        " give --check-port, or the check an option port",
    ),
    (
        [own(vip("a", "192.0.2.1:80-90/tcp", "10.0.0.1", checks="http:path=/a", check_port=80), check_port=0)],
        "backend 10.0.0.1 of VIP a takes several ports, and check http:path=/a says none: give --check-port",
    ),
    (
        [vip("a", "192.0.2.1:*/udp", "10.0.0.1", checks="udp", mode=GUE, via=DATAPLANE)],
        "and check udp says none: give --check-port",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("vips", "says"), BROKEN, ids=[says for _, says in BROKEN])
def test_broken(vips: list[Vip], says: str) -> None:
    (problem,) = told(*vips)
    assert says in problem


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_has_64_bits(seed: int) -> None:
    assert told(seed=seed) == [f"seed {seed} does not fit into 64 bits: use 0 to {2**64 - 1}"]
    assert told(seed=2**64 - 1) == []


def test_a_vip_has_a_bounded_number_of_backends() -> None:
    many = [f"10.0.{number >> 8}.{number & 255}" for number in range(1_025)]
    assert told(vip("web", "192.0.2.1:80/tcp", *many[:-1])) == []
    (problem,) = told(vip("web", "192.0.2.1:80/tcp", *many))
    assert "VIP web has more than 1,024 backends: spread them over several VIPs" in problem
