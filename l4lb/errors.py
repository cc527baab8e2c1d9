"""What can go wrong, for a user to read: one line that names the thing and the reason, and the way out.

Only the command line prints or exits; an error's class says with which status.
"""

import os
from collections.abc import Sequence

MOST_TOLD = 20  # things that are wrong at once


class L4lbError(Exception):
    """Something that could not be done.

    Attributes:
        message: names the thing and the reason, on one line.
        hint: the way out, on one line; may be empty.
        exit_code: what the command ends with.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class UsageError(L4lbError):
    """Input that can never be right, whatever the configuration."""

    exit_code = 2


class ManifoldError(UsageError):
    """Input that has several things wrong.

    Attributes:
        errors: each for a line of its own, :data:`MOST_TOLD` of them and that there are more.
    """

    def __init__(self, errors: Sequence[UsageError]) -> None:
        told = tuple(errors[:MOST_TOLD])
        if len(errors) > MOST_TOLD:
            told = (*told, UsageError("more is wrong", "mend these first"))
        super().__init__("; ".join(map(str, told)))
        self.errors = told


class UnreachableError(L4lbError):
    """The daemon does not answer."""

    exit_code = 3


class KernelError(L4lbError):
    """The kernel refused an action.

    Attributes:
        errno: why.
    """

    def __init__(self, action: str, errno: int) -> None:
        super().__init__(f"the kernel refused to {action} ({os.strerror(errno)})")
        self.errno = errno


class ProgramError(L4lbError):
    """A BPF program that does not compile or that the kernel does not load.

    Attributes:
        detail: the compiler's or the verifier's words, several lines.
    """

    def __init__(self, message: str, hint: str = "", detail: str = "") -> None:
        super().__init__(message, hint)
        self.detail = detail
