"""What a long run has to come across, as a fuzzer that never gets somewhere proves nothing about it."""

from collections.abc import Mapping

from l4lb.balance.explain import Why
from l4lb.datapath import abi
from l4lb.model import Scheduler
from tests.fuzz.choice import chosen_because
from tests.fuzz.comparison import covered
from tests.fuzz.worlds import WORLDS
from tests.reference.parse import Kind
from tests.reference.world import Way

# The test run leaves room enough before each packet, and a control plane without defects no number that leads nowhere.
_UNREACHABLE = {"forwarded", "drop_no_headroom", "drop_inconsistent"}
_KINDS = (Kind.PLAIN, Kind.FIRST_FRAGMENT, Kind.LATER_FRAGMENT, Kind.ERROR)


def reachable() -> set[str]:
    """Everything, as :attr:`tests.fuzz.comparison.Comparison.coverage` calls it."""
    found = set(abi.reason_names()) - _UNREACHABLE
    found |= {"tx", "redirect"} | {f"scheduler {scheduler}" for scheduler in Scheduler}
    found |= {chosen_because(why) for why in Why}
    for vip in WORLDS[0].vips:
        ways: tuple[Way, ...] = ("to_vip", "from_backend") if vip.mode.translates else ("to_vip",)
        found |= {
            covered(vip, backend.endpoint.address, kind, way)
            for backend in vip.backends
            for kind in _KINDS
            for way in ways
        }
    return found


def never(coverage: Mapping[str, int]) -> list[str]:
    """What did not come up."""
    return sorted(name for name in reachable() if not coverage.get(name))
