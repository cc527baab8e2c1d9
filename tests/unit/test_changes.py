"""What requests do to a configuration, and every way in which they are refused."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from l4lb.changes import apply_change, parse_question
from l4lb.errors import L4lbError, UsageError
from l4lb.health.rules import HealthRules
from l4lb.model import Admin, Backend, Config, Endpoint, Mode, Protocol, Scheduler

EMPTY = Config()


def after(*requests: tuple[str, Mapping[str, object]], config: Config = EMPTY) -> Config:
    for operation, arguments in requests:
        config = apply_change(config, operation, arguments)
    return config


WEB = ("vip.add", {"name": "web", "address": "192.0.2.10:80", "protocol": "tcp"})
DSR = ("vip.add", {"name": "dsr", "address": "192.0.2.11:80", "protocol": "tcp", "mode": "dsr"})
B1 = ("backend.add", {"vip": "web", "address": "10.0.0.1:8080"})
START = after(WEB, DSR, B1)


def test_vips_and_backends_are_in_order() -> None:
    config = after(WEB, DSR, B1, ("backend.add", {"vip": "web", "address": "10.0.0.0:9000", "weight": 0}))
    assert [vip.name for vip in config.vips] == ["dsr", "web"]
    assert [(str(backend.endpoint), backend.weight) for backend in config.vips[1].backends] == [
        ("10.0.0.0:9000", 0),
        ("10.0.0.1:8080", 1),
    ]


def test_a_backends_port_is_the_vips_if_not_given() -> None:
    config = after(WEB, ("backend.add", {"vip": "web", "address": "10.0.0.1"}))
    assert config.vips[0].backends[0].endpoint == Endpoint.parse("10.0.0.1:80")


def test_set_and_remove() -> None:
    config = apply_change(START, "backend.set", {"vip": "web", "address": "10.0.0.1:8080", "weight": 7})
    assert config.vips[1].backends[0].weight == 7
    assert apply_change(config, "backend.remove", {"vip": "web", "address": "10.0.0.1:8080"}).vips[1].backends == ()
    assert [vip.name for vip in apply_change(START, "vip.remove", {"name": "web"}).vips] == ["dsr"]
    assert apply_change(START, "vip.set", {"name": "dsr", "mode": "nat"}).vips[0].mode == "nat"


def test_drain_disable_and_resume() -> None:
    which = {"vip": "web", "address": "10.0.0.1:8080"}
    config = apply_change(START, "backend.set", {**which, "weight": 7, "rise": 5})
    (before,) = config.vips[1].backends
    for verb, admin in (("drain", Admin.DRAIN), ("disable", Admin.DISABLED), ("resume", Admin.NONE)):
        config = apply_change(config, f"backend.{verb}", which)
        assert config.vips[1].backends == (replace(before, admin=admin),), "all else stays"
        assert apply_change(config, f"backend.{verb}", which) == config


def test_a_backend_is_judged_as_its_vip_says_or_by_its_own() -> None:
    which = {"vip": "web", "address": "10.0.0.1:8080"}
    config = after(
        WEB, B1, ("vip.set", {"name": "web", "interval": 0.5, "rise": 4}), ("backend.set", {**which, "rise": 9})
    )
    (vip,) = config.vips
    assert vip.rules_for(vip.backends[0]) == replace(HealthRules(), interval=0.5, rise=9)
    (vip,) = after(("vip.set", {"name": "web", "rise": 3, "fall": 6}), config=config).vips
    assert vip.rules_for(vip.backends[0]) == replace(HealthRules(), interval=0.5, rise=9, fall=6)
    (vip,) = after(("backend.set", {**which, "rise": None}), config=config).vips
    assert vip.rules_for(vip.backends[0]) == replace(HealthRules(), interval=0.5, rise=4)


def test_the_idle_timeout_is_the_protocols_if_not_given() -> None:
    udp = ("vip.add", {"name": "dns", "address": "192.0.2.10:53", "protocol": "udp"})
    assert [vip.idle_timeout for vip in after(udp, WEB).vips] == [60, 300]
    assert after(WEB, ("vip.set", {"name": "web", "idle_timeout": 5})).vips[0].idle_timeout == 5


def test_one_backend_may_serve_several_vips_by_dsr() -> None:
    second = ("vip.add", {"name": "dsr2", "address": "192.0.2.12:80", "protocol": "tcp", "mode": "dsr"})
    config = after(DSR, second, *(("backend.add", {"vip": name, "address": "10.0.0.1"}) for name in ("dsr", "dsr2")))
    assert all(len(vip.backends) == 1 for vip in config.vips)


WEB2 = {"name": "web2", "address": "192.0.2.20:80", "protocol": "tcp"}

# operation, arguments, exit code, and what the one line says
REFUSED = [
    ("vip.add", {"name": "web", "address": "192.0.2.99:80", "protocol": "tcp"}, 2, "VIP web exists already"),
    (
        "vip.add",
        {"name": "new", "address": "192.0.2.10:80", "protocol": "tcp"},
        2,
        "VIPs new and web would have the same address 192.0.2.10:80/tcp",
    ),
    ("vip.add", {"name": "Not allowed", "address": "192.0.2.9:80", "protocol": "tcp"}, 2, "VIP name 'Not allowed'"),
    ("vip.add", {"name": "../etc", "address": "192.0.2.9:80", "protocol": "tcp"}, 2, "VIP name '../etc'"),
    ("vip.add", {"name": "n" * 64, "address": "192.0.2.9:80", "protocol": "tcp"}, 2, "is not allowed"),
    ("vip.add", {"name": "new", "address": "192.0.2.9:0", "protocol": "tcp"}, 2, "port '0' is not between 1 and"),
    ("vip.add", {"name": "new", "address": "192.0.2.9:70000", "protocol": "tcp"}, 2, "port '70000' is not between"),
    ("vip.add", {"name": "new", "address": "192.0.2.9:-1", "protocol": "tcp"}, 2, "port '-1' is not between"),
    ("vip.add", {"name": "new", "address": "192.0.2.9", "protocol": "tcp"}, 2, "has no port"),
    ("vip.add", {"name": "new", "address": "192.0.2.999:80", "protocol": "tcp"}, 2, "'192.0.2.999' is no IP address"),
    ("vip.add", {"name": "new", "address": "", "protocol": "tcp"}, 2, "'' is no IP address"),
    ("vip.add", {"name": "new", "address": "2001:db8::1:80", "protocol": "tcp"}, 2, "put an IPv6 address in brackets"),
    ("vip.add", {"name": "new", "address": "[2001:db8::1]", "protocol": "tcp"}, 2, "as in [2001:db8::1]:80, or :* for"),
    ("vip.add", {"name": "new", "address": "[2001:db8::g]:80", "protocol": "tcp"}, 2, "'2001:db8::g' is no IP address"),
    ("vip.add", {"name": "new", "address": "[fd00::1%eth0]:80", "protocol": "tcp"}, 2, "is valid on one link only"),
    (
        "vip.add",
        {"name": "new", "address": "192.0.2.9:90-80", "protocol": "tcp"},
        2,
        "ports 90-80 end before they begin",
    ),
    ("vip.add", {"name": "new", "address": "192.0.2.9:0-80", "protocol": "tcp"}, 2, "port '0' is not between"),
    ("vip.add", {"name": "new", "address": "192.0.2.9:80-", "protocol": "tcp"}, 2, "port '80-' is not between"),
    (
        "vip.add",
        {"name": "new", "address": "192.0.2.9:80-90-99", "protocol": "tcp"},
        2,
        "port '80-90-99' is not between",
    ),
    ("vip.add", {"name": "new", "address": "192.0.2.9:**", "protocol": "tcp"}, 2, "port '**' is not between"),
    ("vip.add", {"name": "new", "address": "224.0.0.1:80", "protocol": "tcp"}, 2, "no address of a single host"),
    ("vip.add", {"name": "new", "address": "127.0.0.1:80", "protocol": "tcp"}, 2, "no address of a single host"),
    ("vip.add", {"name": "new", "address": "0.0.0.0:80", "protocol": "tcp"}, 2, "no address of a single host"),
    ("vip.add", {"name": "new", "address": "255.255.255.255:80", "protocol": "tcp"}, 2, "no address of a single host"),
    ("vip.add", {"name": "new", "address": "192.0.2.9:80", "protocol": "sctp"}, 2, "protocol 'sctp' is not known"),
    (
        "vip.add",
        {"name": "new", "address": "192.0.2.9:80", "protocol": "tcp", "mode": "fly"},
        2,
        "use nat or fullnat or dsr",
    ),
    ("vip.add", {"name": "new", "address": "192.0.2.9:80", "protocol": "tcp", "colour": 1}, 2, "no argument 'colour'"),
    ("vip.add", {"name": 5, "address": "192.0.2.9:80", "protocol": "tcp"}, 2, "name 5 is no text"),
    ("vip.add", {}, 2, "protocol is missing"),
    ("vip.add", {"address": "192.0.2.9:80", "protocol": "tcp"}, 2, "name is missing"),
    (
        "vip.add",
        {"name": "new", "address": "192.0.2.9:80", "protocol": "tcp", "idle_timeout": 0},
        2,
        "idle timeout 0 of VIP new is not between 1 and 604800 seconds",
    ),
    ("vip.set", {"name": "web", "idle_timeout": "5"}, 2, "idle_timeout '5' is no whole number"),
    (
        "vip.set",
        {"name": "web", "scheduler": "best"},
        2,
        "use maglev or source-hash or round-robin or least-connections",
    ),
    ("vip.set", {"name": "web", "sources": "10.0.0.0/28"}, 2, "sources '10.0.0.0/28' is no list"),
    ("vip.set", {"name": "web", "sources": ["10.0.0.1/28"]}, 2, "'10.0.0.1/28' is no network"),
    ("vip.set", {"name": "web", "sources": [5]}, 2, "'5' is no network"),
    ("vip.set", {"name": "web", "pool": True}, 2, "pool True is no whole number"),
    ("vip.set", {"name": "web", "mss": None}, 2, "mss None is no whole number"),
    ("vip.set", {"name": "web", "pool": 1_000}, 2, "pool 1000 of VIP web is no power of two"),
    ("vip.set", {"name": "wev", "mode": "nat"}, 1, "there is no VIP 'wev': did you mean web?"),
    ("vip.set", {"name": "web", "mode": "dsr"}, 2, "has another port than the VIP"),
    ("vip.remove", {"name": "other"}, 1, "there is no VIP 'other'"),
    ("backend.add", {"vip": "nope", "address": "10.0.0.9"}, 1, "there is no VIP 'nope'"),
    ("backend.add", {"vip": "web", "address": "10.0.0.1:8080"}, 2, "backend 10.0.0.1:8080 of VIP web exists already"),
    ("backend.add", {"vip": "web", "address": "192.0.2.10:80"}, 2, "has the address of its VIP web"),
    ("backend.add", {"vip": "web", "address": "192.0.2.11:80"}, 2, "is a VIP itself"),
    ("backend.add", {"vip": "web", "address": "[2001:db8::1]:80"}, 2, "is of another family than the VIP"),
    ("backend.add", {"vip": "web", "address": "10.0.0.9:80-90"}, 2, "port '80-90' is not between"),
    ("backend.add", {"vip": "web", "address": "10.0.0.9:0"}, 2, "port '0' is not between"),
    ("backend.add", {"vip": "web", "address": "10.0.0.9", "weight": -1}, 2, "weight -1 is not between 0 and 65535"),
    ("backend.add", {"vip": "web", "address": "10.0.0.9", "weight": 65_536}, 2, "weight 65536 is not between"),
    ("backend.add", {"vip": "web", "address": "10.0.0.9", "weight": "1"}, 2, "weight '1' is no whole number"),
    ("backend.add", {"vip": "web", "address": "10.0.0.9", "weight": True}, 2, "weight True is no whole number"),
    ("backend.add", {"vip": "dsr", "address": "10.0.0.9:81"}, 2, "mode dsr keeps the port: leave it out"),
    ("backend.set", {"vip": "web", "address": "10.0.0.2:8080", "weight": 1}, 1, "did you mean 10.0.0.1:8080?"),
    ("vip.set", {"name": "web", "checks": ["tcp", "tcp"]}, 2, "VIP web has a check twice"),
    (
        "vip.set",
        {"name": "web", "checks": ["http:port=0"]},
        2,
        "option port of check http: '0' is not between 1 and",
    ),
    ("vip.set", {"name": "web", "interval": 0}, 2, "VIP web: interval 0 s is not between 10 ms and a day"),
    ("vip.set", {"name": "web", "interval": None}, 2, "interval None is no finite number: give one"),
    ("vip.set", {"name": "web", "passive": True}, 2, "VIP web has no check that could confirm"),
    ("vip.set", {"name": "web", "priority": 1}, 2, "vip.set takes no argument 'priority'"),
    ("vip.set", {"name": "web", "admin": "drain"}, 2, "vip.set takes no argument 'admin'"),
    ("vip.set", {"name": "dsr", "via": "dataplane", "checks": ["http"]}, 2, "cannot be made by way of the dataplane"),
    ("backend.add", {"vip": "web", "address": "10.0.0.9", "priority": 16}, 2, "priority 16 is not between 0 and 15"),
    ("backend.add", {"vip": "web", "address": "10.0.0.9", "panic_share": 5}, 2, "takes no argument 'panic_share'"),
    ("backend.set", {"vip": "web", "address": "10.0.0.1:8080", "checks": ["tcp"]}, 2, "takes no argument 'checks'"),
    ("backend.set", {"vip": "web", "address": "10.0.0.1:8080", "rise": 0}, 2, "8080 of VIP web: rise 0 is not between"),
    (
        "backend.set",
        {"vip": "web", "address": "10.0.0.1:8080", "priority": None},
        2,
        "priority None is no whole number: give one",
    ),
    ("backend.drain", {"vip": "web", "address": "10.0.0.1:8080", "weight": 1}, 2, "drain takes no argument 'weight'"),
    ("backend.drain", {"vip": "web", "address": "10.0.0.9:8080"}, 1, "VIP web has no backend 10.0.0.9:8080"),
    ("backend.disable", {"vip": "nope", "address": "10.0.0.1"}, 1, "there is no VIP 'nope'"),
    ("backend.resume", {"vip": "web"}, 2, "address is missing: give address"),
    ("backend.remove", {"vip": "dsr", "address": "10.0.0.2"}, 1, "VIP dsr has no backend 10.0.0.2:80"),
]


@pytest.mark.parametrize(("operation", "arguments", "exit_code", "says"), REFUSED, ids=[row[3] for row in REFUSED])
def test_refused(operation: str, arguments: dict[str, object], exit_code: int, says: str) -> None:
    with pytest.raises(L4lbError) as refusal:
        apply_change(START, operation, arguments)
    assert refusal.value.exit_code == exit_code
    assert says in str(refusal.value)
    assert refusal.value.hint, "the way out"
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("mode", ["nat", "fullnat"])
def test_vips_of_one_mode_may_share_a_backend(mode: str) -> None:
    first, second = ("vip.set", {"name": "web", "mode": mode}), ("vip.add", {**WEB2, "mode": mode})
    config = after(WEB, B1, first, second, ("backend.add", {"vip": "web2", "address": "10.0.0.1:8080"}))
    assert [str(vip.backends[0].endpoint) for vip in config.vips] == ["10.0.0.1:8080"] * 2


def test_settings_stay_until_they_are_set() -> None:
    chosen = {"mode": "fullnat", "scheduler": "source-hash", "sources": ["10.9.0.0/30"], "client_prefix": 24}
    config = after(("vip.add", {**WEB[1], **chosen, "pool": 65_536}), ("vip.set", {"name": "web", "mss": 1400}))
    (vip,) = config.vips
    assert (vip.mode, vip.scheduler) == (Mode.FULLNAT, Scheduler.SOURCE_HASH)
    assert vip.sources == (IPv4Network("10.9.0.0/30"),)
    assert (vip.client_prefix, vip.pool, vip.mss, vip.gue_port) == (24, 65_536, 1_400, 6_080)
    (vip,) = apply_change(config, "vip.set", {"name": "web", "sources": [], "pool": 4096}).vips
    assert (vip.sources, vip.pool, vip.mss) == ((), 4_096, 1_400)


@pytest.mark.parametrize(("ports", "port"), [("8000-8999", 0), ("*", 0), ("8000-8000", 8000), ("443", 443)])
def test_a_backend_of_several_ports_keeps_the_clients(ports: str, port: int) -> None:
    vip = ("vip.add", {"name": "new", "address": f"192.0.2.1:{ports}", "protocol": "udp"})
    config = after(vip, ("backend.add", {"vip": "new", "address": "10.0.0.1"}))
    assert config.vips[0].backends[0].endpoint == Endpoint(IPv4Address("10.0.0.1"), port)
    changed = apply_change(config, "backend.set", {"vip": "new", "address": "10.0.0.1", "weight": 9})
    assert changed.vips[0].backends[0].weight == 9, "it is found by the same words"


def test_a_tunnel_takes_backends_of_both_families_and_orders_them() -> None:
    vip = ("vip.add", {"name": "new", "address": "192.0.2.1:80", "protocol": "tcp", "mode": "ipip"})
    places = ("[2001:db8::1]", "10.0.0.200", "[2001:db8::a]", "10.0.0.3")
    config = after(vip, *(("backend.add", {"vip": "new", "address": place}) for place in places))
    assert [str(backend.endpoint) for backend in config.vips[0].backends] == [
        "10.0.0.3:80", "10.0.0.200:80", "[2001:db8::1]:80", "[2001:db8::a]:80",
    ]  # fmt: skip


def test_the_narrowest_vip_takes_a_packet() -> None:
    def vip(name: str, ports: str) -> tuple[str, dict[str, object]]:
        return "vip.add", {"name": name, "address": f"[2001:db8::1]:{ports}", "protocol": "tcp"}

    config = after(vip("all", "*"), vip("some", "8000-8999"), vip("one", "8080"))
    taking = {
        port: config.vip_for(Endpoint.parse(f"[2001:db8::1]:{port}"), Protocol.TCP) for port in (8080, 8081, 9000)
    }
    assert [found.name for found in taking.values() if found] == ["one", "some", "all"]
    assert config.vip_for(Endpoint.parse("[2001:db8::1]:80"), Protocol.UDP) is None
    assert config.vip_for(Endpoint.parse("[2001:db8::2]:80"), Protocol.TCP) is None


def test_a_vip_has_a_bounded_number_of_backends() -> None:
    (vip,) = after(WEB).vips
    many = tuple(Backend(Endpoint(IPv4Address("10.0.0.0") + number, 80)) for number in range(1_023))
    config = after(
        ("backend.add", {"vip": "web", "address": "10.1.0.0"}), config=Config((replace(vip, backends=many),))
    )
    assert len(config.vips[0].backends) == 1_024
    with pytest.raises(UsageError, match="more than 1,024 backends"):
        apply_change(config, "backend.add", {"vip": "web", "address": "10.1.0.1"})


def test_questions() -> None:
    asked = {"protocol": "tcp", "client": "[2001:db8::5]:4000", "service": "[2001:db8::1]:80", "begins": True}
    question = parse_question(asked)
    assert (str(question.client), str(question.service)) == ("[2001:db8::5]:4000", "[2001:db8::1]:80")
    for wrong in ({"client": "2001:db8::5:4000"}, {"service": "[2001:db8::1]"}, {"protocol": "udp"}, {"begins": 1}):
        with pytest.raises(UsageError):
            parse_question({**asked, **wrong})
