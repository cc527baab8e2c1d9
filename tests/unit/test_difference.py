"""What is told of two configurations: every difference, once, with stable keys and in people's words."""

import json

import msgpack
from hypothesis import given

from l4lb import document
from l4lb.changes import apply_change
from l4lb.difference import differences, line, listed
from l4lb.model import Config
from tests.unit.strategies import configs


def of(*vips: dict[str, object], seed: int = 0) -> Config:
    return document.parse({"seed": seed, "vips": list(vips)})


WEB: dict[str, object] = {"name": "web", "address": "192.0.2.10:80/tcp", "backends": ["10.0.0.1:8080", "10.0.0.2:8080"]}
OLD: dict[str, object] = {"name": "old", "address": "192.0.2.11:80/tcp", "backends": ["10.0.0.3"]}


def lines(before: Config, after: Config) -> list[str]:
    return [line(difference) for difference in differences(before, after)]


def test_in_words() -> None:
    new = {
        "name": "new",
        "address": "[2001:db8::1]:*/udp",
        "mode": "gue",
        "checks": ["icmp", "tcp:port=1"],
        "passive": False,
    }
    web = {
        **WEB,
        "address": "192.0.2.12:80/tcp",
        "interval": "500ms",
        "idle-timeout": "2m",
        "checks": "tcp",
        "passive": True,
        "backends": ["10.0.0.1:8080", {"address": "10.0.0.13:8080", "weight": 2, "interval": "1s"}],
    }  # fmt: skip
    assert lines(of(WEB, OLD), of(new, web, seed=7)) == [
        "~ seed: 0 -> 7 (flows may move to other backends)",
        "+ vip new [2001:db8::1]:*/udp (mode gue, checks icmp and tcp:port=1)",
        "- vip old 192.0.2.11:80/tcp (its only backend)",
        "~ vip web: address 192.0.2.10:80/tcp -> 192.0.2.12:80/tcp",
        "~ vip web: idle-timeout 5m -> 2m",
        "~ vip web: checks none -> tcp",
        "~ vip web: passive false -> true",
        "~ vip web: interval 2s -> 500ms",
        "- backend 10.0.0.2:8080 of VIP web",
        "+ backend 10.0.0.13:8080 of VIP web (weight 2, interval 1s)",
    ]


def test_backends_in_words() -> None:
    drained = {"address": "10.0.0.1:8080", "weight": 3, "admin": "drain", "timeout": "250ms"}
    changed = {"address": "10.0.0.1:8080", "timeout": "0.5s", "slow-start": "1m"}
    assert lines(of({**WEB, "backends": [drained]}), of({**WEB, "backends": [changed]})) == [
        "~ backend 10.0.0.1:8080 of VIP web: weight 3 -> 1",
        "~ backend 10.0.0.1:8080 of VIP web: admin drain -> none",
        "~ backend 10.0.0.1:8080 of VIP web: timeout 250ms -> 500ms",
        "~ backend 10.0.0.1:8080 of VIP web: slow-start the VIP's -> 1m",
    ]
    assert lines(of(WEB), of()) == ["- vip web 192.0.2.10:80/tcp (its 2 backends)"]
    assert lines(of(), of(WEB)) == [
        "+ vip web 192.0.2.10:80/tcp",
        "+ backend 10.0.0.1:8080 of VIP web",
        "+ backend 10.0.0.2:8080 of VIP web",
    ]


def test_keys() -> None:
    """A stable interface."""
    changed = {**WEB, "slow-start": "1m", "backends": ["10.0.0.1:8080", {"address": "10.0.0.9:80", "weight": 2}]}
    assert differences(of(WEB, OLD), of(changed, seed=7)) == [
        {"change": "change", "vip": None, "backend": None, "setting": "seed", "before": 0, "after": 7},
        {
            "change": "remove", "vip": "old", "backend": None, "setting": None,
            "before": {"address": "192.0.2.11:80/tcp", "backends": ["10.0.0.3:80"]}, "after": None,
        },
        {"change": "change", "vip": "web", "backend": None, "setting": "slow_start", "before": 0.0, "after": 60.0},
        {
            "change": "remove", "vip": "web", "backend": "10.0.0.2:8080", "setting": None,
            "before": {"address": "10.0.0.2:8080"}, "after": None,
        },
        {
            "change": "add", "vip": "web", "backend": "10.0.0.9:80", "setting": None,
            "before": None, "after": {"address": "10.0.0.9:80", "weight": 2},
        },
    ]  # fmt: skip


def made(config: Config, change: dict[str, object]) -> Config:
    """A configuration after one difference, by the requests that change one thing."""
    kind, name, backend, setting = change["change"], change["vip"], change["backend"], change["setting"]
    if setting == "seed":
        return Config(config.vips, change["after"])  # type: ignore[arg-type]
    which = {"name": name} if backend is None else {"vip": name, "address": backend}
    noun = "vip" if backend is None else "backend"
    if kind == "remove":
        return apply_change(config, f"{noun}.remove", which)
    given = change["after"] if kind == "add" else {setting: change["after"]}
    assert isinstance(given, dict)
    if noun == "vip" and kind == "add":
        place, _, protocol = given["address"].rpartition("/")
        given = {**given, "address": place, "protocol": protocol}
    return apply_change(config, f"{noun}.{'add' if kind == 'add' else 'set'}", {**which, **given})


@given(configs)
def test_a_configuration_can_be_made_of_its_differences_from_none(config: Config) -> None:
    found = differences(Config(), config)
    assert msgpack.unpackb(msgpack.packb(found)) == json.loads(json.dumps(found)) == found
    before = Config()
    for change in found:
        before = made(before, change)
    assert before == config


@given(configs, configs)
def test_what_differs_is_told_once_and_nothing_else(before: Config, after: Config) -> None:
    found = differences(before, after)
    assert (found == []) == (before == after)
    assert differences(after, after) == []
    places = [(each["vip"], each["backend"], each["setting"]) for each in found]
    assert len(places) == len(set(places))
    assert all("\n" not in line(each) for each in found)
    back = {(each["vip"], each["backend"], each["setting"]): each for each in differences(after, before)}
    opposite = {"add": "remove", "remove": "add", "change": "change"}
    for each in found:
        if each["backend"] is None:
            other = back[each["vip"], None, each["setting"]]
            assert other["change"] == opposite[str(each["change"])]


def test_a_log_is_of_no_more_than_can_be_read() -> None:
    many = of(*({"name": f"v{number}", "address": f"192.0.2.1:{number}/tcp"} for number in range(1, 301)))
    told = list(listed(differences(Config(), many)))
    assert (len(told), told[-1]) == (201, "and 100 more differences")
