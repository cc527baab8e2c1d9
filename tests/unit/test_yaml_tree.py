"""YAML as it is read and written: what stands for what, on which line, and what is refused."""

import contextlib
import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from l4lb import yaml_tree


@pytest.fixture(params=["C", "Python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both parsers: not every machine has the one in C."""
    if request.param == "Python":
        monkeypatch.setattr(yaml_tree, "_Loader", yaml.SafeLoader)
    return str(request.param)


def plain(text: str) -> object:
    root, wrong = yaml_tree.read(text)
    assert wrong == []
    assert root is not None
    return root.plain()


def refusals(text: str) -> list[str]:
    return [f"{each.line}: {each.error}" for each in yaml_tree.read(text)[1]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("-5", -5), ("+5", 5), ("0", 0), ("010", "010"), ("0x1f", "0x1f"), ("0o17", "0o17"),
        ("1_000", "1_000"), ("1:30", "1:30"), ("18446744073709551615", 2**64 - 1), (30 * "1", 30 * "1"),
        ("0.5", 0.5), (".5", 0.5), ("2.", 2.0), ("-1.5e3", -1500.0), ("1e3", 1000.0), ("1e", "1e"), (".nan", ".nan"),
        (".inf", ".inf"), ("1.2.3.4", "1.2.3.4"), ("192.0.2.10:80/tcp", "192.0.2.10:80/tcp"),
        ("true", True), ("False", False), ("TRUE", True), ("yes", "yes"), ("no", "no"), ("on", "on"), ("tRUE", "tRUE"),
        ("~", None), ("null", None), ("", None), ("'5'", "5"), ('"true"', "true"), ("'~'", "~"), ("''", ""),
        ("2026-01-01", "2026-01-01"), ("500ms", "500ms"), ("http:path=/a,status=200", "http:path=/a,status=200"),
    ],
)  # fmt: skip
def test_scalars(parser: str, text: str, value: object) -> None:
    found = plain(f"a: {text}\n")
    assert found == {"a": value}
    assert isinstance(found, dict)
    assert type(found["a"]) is type(value)


def test_anchors_and_merges(parser: str) -> None:
    text = """
x-usual: &usual {interval: 1s, rise: 2}
x-more: &more {rise: 3, fall: 4}
first: {<<: *usual, rise: 9}
second:
  fall: 1
  <<: [*usual, *more]
third: [*usual]
"""
    found: Any = plain(text)
    assert found["first"] == {"interval": "1s", "rise": 9}, "what is said itself wins"
    assert found["second"] == {"interval": "1s", "rise": 2, "fall": 1}, "then what comes first"
    assert found["third"] == [{"interval": "1s", "rise": 2}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ["1: there is nothing in it: write vips: [] for no VIPs"]),
        ("# only words\n", ["1: there is nothing in it: write vips: [] for no VIPs"]),
        ("a: 1\n---\nb: 2\n", ["2: a second document begins: write all VIPs into one"]),
        ("a: 1\nb:\n  a: 2\na: 3\n", ["4: 'a' stands there twice: leave one out; the first is on line 1"]),
        ("a: !!python/name:os.system x\n", ["1: tag 'tag:yaml.org,2002:python/name:os.system' means nothing here"]),
        ("a:\n- !b {}\n", ["2: tag '!b' means nothing here: leave it out"]),
        ("a: 1\nb: *c\n", ["2: alias *c stands for nothing: write &c before it"]),
        ("a: &b\n- *b\n", ["2: alias *b stands for nothing: write &b before it"]),
        ("5: a\n", ["1: a name is no text: write name: value"]),
        ("[1, 2]: a\n", ["1: a name is no text: write name: value"]),
        ("a:\n  <<: [5]\n", ["2: << stands for no mapping: write <<: *name"]),
        ("a: 1\na: 2\n5: b\n", ["2: 'a' stands there twice", "3: a name is no text"]),
        ("a: 'open\n", ["no YAML at column"]),
        ("a: b: c\n", ["1: no YAML at column 5 (mapping values are not allowed"]),
        ("a:\n\t- b\n", ["2: no YAML at column 1 (found character"]),
        ("\x00", ["characters are not allowed: write text only"]),
    ],
)
def test_refused(parser: str, text: str, says: list[str]) -> None:
    found = refusals(text)
    assert len(found) == len(says)
    assert all(each in told for told, each in zip(found, says, strict=True)), found
    assert not any("\n" in told for told in found)


def test_hints_for_what_people_do(parser: str) -> None:
    assert refusals("a:\n\t- b\n")[0].endswith("indent by spaces: YAML takes no tabs")
    assert refusals("a:\n  - b\n \t- c\n")[0].endswith("indent by spaces: YAML takes no tabs")
    assert refusals("address: [2001:db8::10]:80/tcp\n")[0].endswith("in quotes, as in '[2001:db8::10]:80/tcp'")


def test_lines(parser: str) -> None:
    root, _ = yaml_tree.read("a: 1\nb:\n\n- c: 2\n  d: 3\n- e\n")
    assert root is not None
    lines = {(): 1, ("a",): 1, ("b",): 2, ("b", 0): 4, ("b", 0, "d"): 5, ("b", 1): 6, ("b", 7): 2, ("b", 0, "x"): 4}
    assert {path: root.line_of(path) for path in lines} == lines


def bomb(levels: int) -> str:
    """Ten times as much with each line."""
    lines = [f"x{n}: &x{n} [{', '.join(10 * [f'*x{n - 1}'])}]" for n in range(1, levels)]
    return "\n".join(["x0: &x0 [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]", *lines])


def merge_bomb(levels: int) -> str:
    lines = [f"x{n}: &x{n} {{<<: [{', '.join(10 * [f'*x{n - 1}'])}], k{n}: 1}}" for n in range(1, levels)]
    return "\n".join(["x0: &x0 {a: 1}", *lines])


MANY = "".join(f"k{n}: {n}, " for n in range(2_000))
BOMBS = {
    "aliases": bomb(12),
    "one mapping merged often": f"a: &a {{{MANY}}}\nb: {{<<: [{'*a, ' * 2_000}]}}",
    "a list of merges used often": f"a: &a {{b: 1}}\nl: &l [{'*a, ' * 5_000}]\nm: [{'{<<: *l}, ' * 5_000}]",
    "a long text": f"a: &a {100_000 * 'x'}\nb: [{'*a, ' * 100}]",
    "depth": 100_000 * "[",
    "depth of mappings": 100_000 * "{a: ",
    "depth of blocks": "".join(" " * n + "- \n" for n in range(500)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(parser: str, name: str) -> None:
    began = time.process_time()
    (told,) = refusals(BOMBS[name])
    assert "more than 4 MiB, or becomes so by its aliases" in told or "more than 16 levels deep" in told
    assert time.process_time() - began < 2


def test_names_that_are_merged_over_and_over_are_no_more_for_it(parser: str) -> None:
    found: Any = plain(merge_bomb(100))
    assert found["x99"] == {"a": 1, **{f"k{n}": 1 for n in range(1, 100)}}


@given(st.text() | st.text(alphabet="a:-[]{}*&!<>|'\"# \n\t?,~%@1.", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for loader in (yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(UnicodeEncodeError):
            patch.setattr(yaml_tree, "_Loader", loader)
            root, wrong = yaml_tree.read(text)
            assert root is not None or wrong


_scalars = (
    st.none() | st.booleans() | st.integers(-(10**18), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
_texts = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    [
        "010",
        "1e3",
        "0o7",
        "1_000",
        "yes",
        "~",
        "1:30",
        "2026-01-01",
        "0x1f",
        "=",
        "<<",
        "- a",
        "a: b",
        "#",
        ".5",
        "'",
        "null",
    ]
)


@given(
    st.recursive(
        _scalars | _texts,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(_texts.filter(lambda name: name != "<<"), inner, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_what_is_written_is_read(value: object) -> None:
    text = yaml_tree.write(value)
    assert plain(text) == value
    assert yaml.safe_load(text) == value, "and by other readers"
