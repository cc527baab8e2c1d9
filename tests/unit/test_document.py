"""Documents: every configuration there and back, and everything that can be wrong with one, with its place."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4lb import document, document_file, settings, yaml_tree
from l4lb.document import DocumentError
from l4lb.errors import MOST_TOLD, ManifoldError, UsageError
from l4lb.model import Admin, Config, Mode, Vip
from tests.unit.strategies import configs

WEB = {"name": "web", "address": "192.0.2.10:80/tcp"}


def vip(**given: object) -> Vip:
    """The only VIP of a document."""
    names = {name.replace("_", "-"): value for name, value in given.items()}
    return document.parse({"vips": [{**WEB, **names}]}).vips[0]


def refusals(given: object) -> list[str]:
    with pytest.raises(DocumentError) as refused:
        document.parse(given)
    assert refused.value.exit_code == 2
    told = [str(error) for error in refused.value.errors]
    assert not any("\n" in line or len(line) > 900 for line in told)
    return told


def refusal(**given: object) -> str:
    """The only thing that is wrong with a VIP."""
    (told,) = refusals({"vips": [{**WEB, **given}]})
    return told


@given(configs)
def test_there_and_back(config: Config) -> None:
    assert document.parse(document.plain(config)) == config


@given(configs)
def test_there_and_back_through_a_file(config: Config) -> None:
    plain = document.plain(config)
    root, wrong = yaml_tree.read(document_file.write(plain))
    assert root is not None
    assert (root.plain(), wrong) == (plain, [])


@given(configs)
def test_what_is_as_it_always_is_is_left_out(config: Config) -> None:
    for given_, made in zip(document.plain(config)["vips"], config.vips, strict=True):  # type: ignore[call-overload]
        usual = settings.plain(Vip.bare("x", made.service))
        for name in given_.keys() - {"name", "address", "backends"}:
            assert settings.plain(made)[name.replace("-", "_")] != usual[name.replace("-", "_")]


def test_the_normal_form() -> None:
    """As an export looks."""
    made = document.parse(
        {
            "seed": 7,
            "vips": [
                {
                    "name": "web",
                    "address": "[2001:db8::10]:80/tcp",
                    "idle_timeout": 90,
                    "mode": "ipip",
                    "sources": "fd00::/120",
                    "checks": r"http:path=/health\,now,regex=^ok$",
                    "fast_interval": 0.25,
                    "jitter": 1e-7,
                    "backends": [
                        {"address": "10.0.0.12", "weight": 1},
                        {"address": "10.0.0.11", "weight": 2, "admin": "drain", "interval": 2},
                    ],
                },
                {"name": "1e3", "address": "192.0.2.10:*/udp"},
            ],
        }
    )
    assert (
        document_file.write(document.plain(made))
        == r"""seed: 7
vips:
- name: '1e3'
  address: 192.0.2.10:*/udp

- name: web
  address: '[2001:db8::10]:80/tcp'
  mode: ipip
  idle-timeout: 1m30s
  sources:
  - fd00::/120
  checks:
  - http:path=/health\,now,regex=^ok$
  fast-interval: 250ms
  jitter: 1.0e-07
  backends:
  - address: 10.0.0.11:80
    weight: 2
    admin: drain
    interval: 2s
  - 10.0.0.12:80
"""
    )
    assert document_file.write(document.plain(Config())) == "seed: 0\nvips: []\n"


def test_names_and_durations_in_any_form() -> None:
    assert vip(slow_start="1m30s") == document.parse({"vips": [{**WEB, "slow_start": 90}]}).vips[0]
    assert vip(idle_timeout="5m").idle_timeout == 300
    assert vip(interval=0.5) == vip(interval="500ms") == vip(interval="0.5")
    assert vip(checks="tcp") == vip(checks=["tcp"])
    assert vip(idle_timeout="2m", checks=[]) == vip(idle_timeout=120)


@pytest.mark.parametrize(("interval", "written"), [(0.0123456, 0.0123456), (61.5, "1m1s500ms"), (2.5, "2s500ms")])
def test_durations_are_written_as_texts_if_these_are_exact(interval: float, written: object) -> None:
    config = document.parse({"vips": [{**WEB, "interval": interval}]})
    (made,) = document.plain(config)["vips"]  # type: ignore[misc]
    assert made["interval"] == written
    assert document.parse(document.plain(config)) == config


def test_what_is_left_out_is_as_it_always_is() -> None:
    udp = document.parse({"vips": [{"name": "dns", "address": "192.0.2.10:53/udp"}]}).vips[0]
    assert (udp.idle_timeout, udp.mode, udp.backends) == (60, Mode.NAT, ())
    (backend,) = vip(backends=["10.0.0.11"]).backends
    assert (str(backend.endpoint), backend.weight, backend.admin) == ("10.0.0.11:80", 1, Admin.NONE)
    wide = document.parse({"vips": [{"name": "w", "address": "192.0.2.1:1-9/tcp", "backends": ["10.0.0.1"]}]})
    assert str(wide.vips[0].backends[0].endpoint) == "10.0.0.1"


def test_the_seed_is_the_gateways_own_where_none_is_given() -> None:
    assert document.parse({"vips": []}, seed=9).seed == 9
    assert document.parse({"vips": [], "seed": 0}, seed=9).seed == 0


def test_order_does_not_matter() -> None:
    vips: list[Any] = [
        {**WEB, "backends": ["10.0.0.11", "10.0.0.12"]},
        {"name": "db", "address": "192.0.2.11:5432/tcp"},
    ]
    turned = [{**each, "backends": each.get("backends", [])[::-1]} for each in vips[::-1]]
    assert document.parse({"vips": vips}) == document.parse({"vips": turned})


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        (None, "there is nothing in it: write vips: [] for no VIPs"),
        ([], "[] is no mapping: write it as name: value, a line each"),
        ("vips", "'vips' is no mapping"),
        ({}, "it has no vips: list them below vips:, or write vips: [] for none"),
        ({"vips": None}, "vips has no value: write [] for none"),
        ({"vips": {}}, "vips {} is no list: begin each item with -"),
        ({"vips": [], "vip": []}, "vip is not known: did you mean vips?"),
        ({"vips": [], "seed": "x"}, "seed 'x' is no whole number"),
        ({"vips": [], "seed": True}, "seed True is no whole number"),
        ({"vips": [], "seed": -1}, "seed -1 does not fit into 64 bits: use 0 to"),
        ({"vips": [], "seed": None}, "seed has no value"),
        ({"vips": [], 5: 1}, "5 is not known: use seed, vips"),
        ({"vips": [], "a\nb": 1}, r"'a\nb' is not known: use seed, vips"),
        ({"vips": ["web"]}, "vips[0] 'web' is no mapping"),
        ({"vips": [WEB, {"address": "192.0.2.11:80/tcp"}]}, "vips[1] has no name: give each VIP one"),
        ({"vips": [{"name": "web"}]}, "vips[0] has no address: write it as in address: 192.0.2.10:80/tcp"),
        ({"vips": [{**WEB, "name": 10}]}, "vips[0].name 10 is no text: put it in quotes"),
        ({"vips": [{**WEB, "name": "Web"}]}, "vips[0]: VIP name 'Web' is not allowed"),
        ({"vips": [{**WEB, "name": ""}]}, "vips[0]: VIP name '' is not allowed"),
        ({"vips": [{**WEB, "address": ""}]}, "vips[0].address: VIP address '' has no protocol"),
        ({"vips": [{**WEB, "address": "192.0.2.10:80"}]}, "has no protocol: write it as in 192.0.2.10:80/tcp or"),
        ({"vips": [{**WEB, "address": "192.0.2.10/tcp"}]}, "vips[0].address '192.0.2.10' has no port"),
        ({"vips": [WEB, WEB]}, "vips[1].name 'web' is the name of vips[0] too"),
        ({"vips": [WEB, {**WEB, "name": "b"}]}, "VIPs b and web would have the same address 192.0.2.10:80/tcp"),
    ],
)
def test_refused(given_: object, says: str) -> None:
    (told,) = refusals(given_)
    assert told.startswith(says) or (says.startswith("has ") and says in told), told


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"mode": "fly"}, "vips[0].mode 'fly' is not known: use nat or fullnat or dsr"),
        ({"mode": ["nat"]}, "vips[0].mode ['nat'] is no text"),
        ({"mdoe": "nat"}, "vips[0].mdoe is not known: did you mean mode?"),
        ({"weight": 1}, "vips[0].weight is not known: use name, address, backends, mode, "),
        ({"interval": "5x"}, "vips[0].interval: '5x' is no duration: write it as in 500ms"),
        ({"interval": True}, "vips[0].interval True is no finite number"),
        ({"interval": float("nan")}, "vips[0].interval nan is no finite number"),
        ({"interval": "1" * 400}, "vips[0].interval inf is no finite number"),
        ({"interval": ""}, "vips[0].interval: '' is no duration"),
        ({"interval": "1ms"}, "vips[0]: VIP web: interval 0.001 s is not between 10 ms and a day"),
        ({"idle-timeout": "1500ms"}, "vips[0].idle-timeout '1500ms' is no whole number of seconds"),
        ({"idle-timeout": 1.5}, "vips[0].idle-timeout 1.5 is no whole number"),
        ({"idle-timeout": 0}, "vips[0]: idle timeout 0 of VIP web is not between"),
        ({"idle-timeout": 5, "idle_timeout": 5}, "vips[0].idle_timeout stands there twice, with - and with _"),
        ({"passive": "yes"}, "vips[0].passive 'yes' is neither true nor false"),
        ({"pool": 1000}, "vips[0]: pool 1000 of VIP web is no power of two"),
        ({"mss": None}, "vips[0].mss has no value: give it one, or leave the line out"),
        ({"checks": None}, "vips[0].checks has no value: write [] for none"),
        ({"checks": ["tcp", "ftp"]}, "vips[0].checks[1]: check kind 'ftp' is not known"),
        ({"checks": ["tcp", {"http": "path=/"}]}, "vips[0].checks[1] {'http': 'path=/'} is no text: put"),
        ({"checks": ["http:path=/a", "status=200"]}, "vips[0].checks[1] 'status=200' is a piece of a check"),
        ({"checks": ["tcp"] * 65}, "vips[0].checks are 65, and more than 64 are never possible"),
        ({"checks": ["tcp", "tcp"]}, "vips[0]: VIP web has a check twice"),
        ({"sources": "10.0.0.1/8", "mode": "ipip"}, "vips[0].sources[0]: '10.0.0.1/8' is no network"),
        ({"sources": "10.0.0.0/8"}, "vips[0]: mode nat of VIP web keeps the client's address as source"),
        ({"backends": None}, "vips[0].backends has no value: write [] for none"),
        ({"backends": "10.0.0.1"}, "vips[0].backends '10.0.0.1' is no list"),
        ({"backends": [5]}, "vips[0].backends[0] 5 is no mapping"),
        ({"backends": [None]}, "vips[0].backends[0] None is no mapping"),
        ({"backends": ["x"]}, "vips[0].backends[0]: 'x' is no IP address"),
        ({"backends": [{"weight": 5}]}, "vips[0].backends[0] has no address"),
        ({"backends": [{"address": ""}]}, "vips[0].backends[0].address: '' is no IP address"),
        ({"backends": [{"address": "10.0.0.1", "wieght": 2}]}, "vips[0].backends[0].wieght is not known: did you"),
        ({"backends": [{"address": "10.0.0.1", "weight": "2"}]}, "vips[0].backends[0].weight '2' is no whole number"),
        ({"backends": [{"address": "10.0.0.1", "interval": None}]}, "vips[0].backends[0].interval has no value"),
        ({"backends": [{"address": "10.0.0.1", "admin": "up"}]}, "vips[0].backends[0].admin 'up' is not known: use"),
        ({"backends": ["10.0.0.2", {"address": "10.0.0.1", "weight": -1}]}, "vips[0].backends[1]: weight -1 is not"),
        ({"backends": ["10.0.0.2", "10.0.0.2:80"]}, "vips[0].backends[1] 10.0.0.2:80 is backends[0] too"),
        ({"backends": ["10.0.0.2", "192.0.2.10:81"]}, "vips[0].backends[1]: backend 192.0.2.10:81 has the address"),
        ({"mode": "dsr", "backends": ["10.0.0.1:81"]}, "vips[0].backends[0]: backend 10.0.0.1:81 of VIP web has an"),
    ],
)  # fmt: skip
def test_refused_of_a_vip(setting: dict[str, object], says: str) -> None:
    assert refusal(**setting).startswith(says)


def test_all_that_is_wrong_is_told() -> None:
    wrong = {
        "sead": 1,
        "vips": [
            {
                **WEB, "mode": "fly", "rise": "2", "checks": ["a", "tcp", "b"],
                "backends": [{"address": "x", "weight": "y"}],
            },
            {"name": "b", "address": "192.0.2.11:80/tcp", "interval": "1ms", "pool": 5, "backends": [{"addres": "z"}]},
            {"name": "c", "address": "192.0.2.11:80/tcp", "backends": [{"address": "10.0.0.1", "weight": -1}]},
        ],
    }  # fmt: skip
    assert [told.split(":")[0] for told in refusals(wrong)] == [
        "sead is not known",
        "vips[0].mode 'fly' is not known",
        "vips[0].rise '2' is no whole number",
        "vips[0].checks[0]",
        "vips[0].checks[2]",
        "vips[0].backends[0].address",
        "vips[0].backends[0].weight 'y' is no whole number",
        "vips[1].backends[0].addres is not known",
        "vips[1].backends[0] has no address",
        "vips[1]",
        "vips[1]",
        "vips[2].backends[0]",
        "VIPs b and c would have the same address 192.0.2.11",
    ]


def test_rules_that_two_backends_break_are_told_of_each() -> None:
    backends = [{"address": f"10.0.0.{number}", "weight": 70_000} for number in (1, 2)]
    assert [told[:19] for told in refusals({"vips": [{**WEB, "backends": backends}]})] == [
        "vips[0].backends[0]",
        "vips[0].backends[1]",
    ]


def test_very_many_things_that_are_wrong_are_not_all_told() -> None:
    told = refusals({"vips": [{f"x{number}": 1 for number in range(100_000)}]})
    assert (len(told), told[-1]) == (MOST_TOLD + 1, "more is wrong: mend these first")


_any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
_names = ("name", "address", "backends", *settings.SETTINGS, *settings.BACKEND_SETTINGS)
_some_vip = st.dictionaries(
    st.sampled_from(_names),
    _any | st.sampled_from(["web", "192.0.2.10:80/tcp", "10.0.0.1:80", "1s", "tcp", "ipip", ["10.0.0.1"]]),
)


@given(_any | st.fixed_dictionaries({"vips": st.lists(_some_vip, max_size=3)}))
def test_whatever_comes_over_the_wire_is_refused_or_right(given_: object) -> None:
    try:
        made = document.parse(given_)
    except DocumentError:
        return
    assert document.parse(document.plain(made)) == made


FILE = """\
x-usual: &usual {interval: 500ms}
vips:
- name: web
  address: 192.0.2.10:80/tcp
  <<: *usual
  backends: [10.0.0.11:8080]
"""


def test_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(FILE)
    content = document_file.read(str(path))
    assert content == {"vips": [{**WEB, "interval": "500ms", "backends": ["10.0.0.11:8080"]}]}
    path.write_text("\ufeff" + FILE, encoding="utf-8")
    assert document_file.read(str(path)) == content
    with path.open() as standard_input:
        monkeypatch.setattr(document_file.sys, "stdin", standard_input)
        assert document_file.read("-") == content


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (FILE + "  mood: nat\n", [":7: vips[0].mood is not known: did you mean mode?"]),
        (FILE.replace("500ms", "1x"), [":1: vips[0].interval: '1x' is no duration: write it as in 500ms, 2s"]),
        (
            FILE + "  mode: fly\n  mode: nat\n- name: [\n",
            [":10: no YAML at column"],
        ),
        (
            FILE + "  mode: fly\n  mode: nat\n- name: b\n",
            [":7: vips[0].mode 'fly' is not", ":8: 'mode' stands there twice", ":9: vips[1] has no address"],
        ),
        ("- a\n", [":1: ['a'] is no mapping"]),
        ("", [":1: there is nothing in it"]),
        ("~", [":1: there is nothing in it"]),
        ("x-a: 1\n", [":1: it has no vips"]),
    ],
)  # fmt: skip
def test_files_that_are_wrong(tmp_path: Path, text: str, says: list[str]) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(ManifoldError) as refused:
        document_file.read(str(path))
    told = [str(error) for error in refused.value.errors]
    assert len(told) == len(says)
    assert all(line.startswith(f"{path}{start}") for line, start in zip(told, says, strict=True)), told


def test_files_that_are_none(tmp_path: Path) -> None:
    for path, says in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "Is a directory"),
        (Path("/dev/zero"), "is of more than 4 MiB"),
    ):
        with pytest.raises(UsageError, match=f"{path}.*{says}"):
            document_file.read(str(path))
    (tmp_path / "latin").write_bytes(b"vips:\n# \xe9\n")
    with pytest.raises(UsageError, match="latin:2: no text in UTF-8"):
        document_file.read(str(tmp_path / "latin"))


def test_the_readmes_example_is_right(tmp_path: Path) -> None:
    readme = Path(__file__).parents[2] / "README.md"
    (tmp_path / "site.yaml").write_text(readme.read_text().partition("```yaml\n")[2].partition("```")[0])
    made = document.parse(document_file.read(str(tmp_path / "site.yaml")))
    assert [vip_.name for vip_ in made.vips] == ["far", "web"]
