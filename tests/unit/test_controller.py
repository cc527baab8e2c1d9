"""The controller's order of things, with a datapath that remembers what it was told."""

import asyncio
from pathlib import Path

import pytest

from l4lb.controller import Controller
from l4lb.errors import L4lbError
from tests.unit.fake_edges import Edges, controller_of

WEB = {"name": "web", "address": "192.0.2.10:80", "protocol": "tcp", "mode": "dsr"}
B1 = {"vip": "web", "address": "10.0.0.1"}


@pytest.fixture
def edges() -> Edges:
    return Edges()


@pytest.fixture
def controller(edges: Edges, tmp_path: Path) -> Controller:
    return controller_of(edges, tmp_path)


def do(controller: Controller, *requests: tuple[str, dict[str, object]]) -> object:
    async def all_of_them() -> object:
        result = None
        for operation, arguments in requests:
            result = await controller.handle(operation, arguments)
        return result

    return asyncio.run(all_of_them())


def test_a_change_is_compiled_then_saved_then_applied(controller: Controller, edges: Edges) -> None:
    do(controller, ("vip.add", WEB))
    assert edges.steps == ["watch", "compile", "announce", "save", "apply"]


def test_a_refused_change_touches_nothing(controller: Controller, edges: Edges) -> None:
    with pytest.raises(L4lbError):
        do(controller, ("backend.add", B1))
    assert edges.steps == []


def test_a_change_that_changes_nothing_touches_nothing(controller: Controller, edges: Edges) -> None:
    do(controller, ("vip.add", WEB))
    edges.steps.clear()
    do(controller, ("vip.set", {"name": "web", "mode": "dsr"}))
    assert edges.steps == []


@pytest.mark.parametrize("broken", ["watch", "compile", "announce", "save", "apply"])
def test_a_change_that_fails_half_way_is_taken_back(
    controller: Controller, edges: Edges, tmp_path: Path, broken: str
) -> None:
    do(controller, ("vip.add", WEB), ("backend.add", B1))
    before = edges.image, edges.addresses, edges.watched, do(controller, ("vip.list", {}))
    saved = (tmp_path / "state.json").read_bytes()
    edges.broken = broken
    with pytest.raises(L4lbError, match=f"{broken} is broken"):
        do(controller, ("vip.add", {**WEB, "name": "other", "address": "192.0.2.11:80"}))
    assert (edges.image, edges.addresses, edges.watched, do(controller, ("vip.list", {}))) == before
    assert (tmp_path / "state.json").read_bytes() == saved
    do(controller, ("vip.add", {**WEB, "name": "other", "address": "192.0.2.11:80"}))


def test_a_vips_sum_keeps_what_removed_backends_carried(controller: Controller) -> None:
    do(controller, ("vip.add", WEB), ("backend.add", B1), ("backend.add", {**B1, "address": "10.0.0.2"}))
    do(controller, ("backend.remove", B1))
    (vip,) = do(controller, ("vip.list", {}))  # type: ignore[misc]
    assert (vip["packets"], vip["bytes"]) == (15, 1500)
    do(controller, ("vip.remove", {"name": "web"}), ("vip.add", WEB))
    (vip,) = do(controller, ("vip.list", {}))  # type: ignore[misc]
    assert vip["packets"] == 0, "another VIP of that name"


def test_changes_wait_for_each_other(controller: Controller) -> None:
    async def both() -> None:
        await asyncio.gather(
            *(controller.handle("vip.add", {**WEB, "name": f"v{n}", "address": f"192.0.2.{n}:80"}) for n in range(1, 9))
        )

    asyncio.run(both())
    assert len(do(controller, ("vip.list", {}))) == 8  # type: ignore[arg-type]


def test_an_unknown_request_is_refused(controller: Controller) -> None:
    with pytest.raises(L4lbError, match="does not know the request 'reboot'"):
        do(controller, ("reboot", {}))


@pytest.mark.parametrize(
    ("change", "arguments", "left"),
    [
        ("backend.remove", B1, []),
        ("backend.add", {**B1, "address": "10.0.0.2"}, ["10.0.0.1", "10.0.0.2"]),
        ("vip.remove", {"name": "web"}, None),
    ],
)
@pytest.mark.parametrize("question", ["status", "vip.list"])
def test_what_is_read_is_of_one_moment(
    controller: Controller, edges: Edges, question: str, change: str, arguments: dict[str, object], left: list[str]
) -> None:
    """A change that is made while the interfaces are asked for is seen whole."""
    do(controller, ("vip.add", WEB), ("backend.add", B1))
    edges.meanwhile = lambda: controller.handle(change, arguments)
    found = do(controller, (question, {}))
    vips = found["vips"] if isinstance(found, dict) else found
    assert [[backend["address"] for backend in vip["backends"]] for vip in vips] == ([] if left is None else [left])  # type: ignore[union-attr]


def test_a_backend_that_goes_while_it_is_shown_is_none(controller: Controller, edges: Edges) -> None:
    do(controller, ("vip.add", WEB), ("backend.add", B1))
    edges.meanwhile = lambda: controller.handle("backend.remove", B1)
    with pytest.raises(L4lbError, match=r"VIP web has no backend 10\.0\.0\.1:80: there is none yet"):
        do(controller, ("backend.show", B1))


def test_a_list_of_backends_is_of_a_vip_that_is_named(controller: Controller) -> None:
    do(controller, ("vip.add", WEB), ("backend.add", B1))
    (backend,) = do(controller, ("backend.list", {"vip": "web"}))  # type: ignore[misc]
    assert (backend["address"], backend["packets"]) == ("10.0.0.1", 5)
    for arguments, says in (
        ({}, "vip is missing"),
        ({"vip": 5}, "vip 5 is no text"),
        ({"vip": "w"}, "no VIP"),
    ):
        with pytest.raises(L4lbError, match=says):
            do(controller, ("backend.list", arguments))
