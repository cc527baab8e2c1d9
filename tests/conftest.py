"""Options and rules for all tests."""

import os
from collections.abc import Generator

import pytest

from tests.programs import folder, program  # noqa: F401 - fixtures, for all tests


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--lab-shell",
        action="store_true",
        help="open a shell in the gateway of a lab test that failed, before it is taken down",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Lets fixtures see whether their test failed, and makes a skipped test a failed one in CI."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where everything has to run: {report.longrepr}"
    return report


FAILED = pytest.StashKey[bool]()
