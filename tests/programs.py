"""Programs for exec checks: fixtures of their unit tests and their lab tests."""

import os
import pwd
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Program = Callable[[str], Path]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of nobody's, which tests' own are not."""
    with tempfile.TemporaryDirectory(prefix="l4lb-exec-") as name:
        os.chown(name, pwd.getpwnam("nobody").pw_uid, -1)
        yield Path(name)


@pytest.fixture
def program(folder: Path) -> Program:
    """Makes an executable script."""

    def make(body: str) -> Path:
        path = folder / "check"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return make
