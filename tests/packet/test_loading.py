"""A program that cannot be loaded is explained by the compiler's or the verifier's own words, with header and line."""

import asyncio
import re
from dataclasses import replace

import pytest

from l4lb.bench.load import Loaded, load_all, named
from l4lb.datapath import programs
from l4lb.datapath.layout import FEATURES, balancer_source, every_program
from l4lb.datapath.source import BPF_DIR
from l4lb.errors import ProgramError
from l4lb.lab.testbed import Testbed
from tests.packet.harness import LIMITS, SEED


def line_of(header: str, text: str) -> int:
    """Where a text is in a header."""
    lines = (BPF_DIR / header).read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if text in line)


def failure(bed: Testbed, old: str, new: str) -> ProgramError:
    """What comes of the program with a defect in it."""
    source = balancer_source(FEATURES, SEED, bed.pins / "maps", LIMITS)
    assert old in source.text
    pin = bed.pins / "defective"
    with pytest.raises(ProgramError) as error:
        asyncio.run(programs.ensure(replace(source, text=source.text.replace(old, new)), pin))
    assert not pin.exists()
    return error.value


def test_the_compilers_words(bed: Testbed) -> None:
    error = failure(bed, "return PASS_FRAGMENT;", "return PASS_FRAGMENTS;")
    assert "does not compile" in error.message
    assert f"l4lb.c:{line_of('l4lb.c', 'return PASS_FRAGMENT;')}:" in error.detail


def test_the_verifiers_words(bed: Testbed) -> None:
    """A bounds check left out."""
    error = failure(bed, "if ((void *)(ports + 2) > packet->end)", "if ((void *)ports > packet->end)")
    assert error.message == "the kernel refuses the program l4lb_rare4 (Permission denied)"
    assert "invalid access to packet" in error.detail
    (*_, last) = re.findall(r"@ (.*)", error.detail[: error.detail.index("invalid access")])
    assert re.fullmatch(r"parse\.h:\d+", last), "on the account of a line that uses them"


def test_an_undeclared_function_is_an_error(bed: Testbed) -> None:
    """Else the verifier would complain of a jump out of range."""
    assert "htons" in failure(bed, "bpf_htons(ETH_P_IPV6)", "htons(ETH_P_IPV6)").detail


def test_every_program_loads() -> None:
    """All that a configuration can ask for."""

    async def load() -> list[Loaded]:
        return [loaded async for loaded in load_all(every_program())]

    found = asyncio.run(load())
    for loaded in found:
        print(f"{loaded.instructions:>6,} instructions: {named(loaded.features)}")
    assert [loaded for loaded in found if loaded.detail] == []


def test_a_pinned_program_is_not_compiled_again(bed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(asyncio, "create_subprocess_exec", never)
    asyncio.run(programs.ensure(balancer_source(FEATURES, SEED, bed.pins / "maps", LIMITS), bed.pins / "program"))
