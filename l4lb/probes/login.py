"""What the checks of databases have in common: a password to log in by, and an answer to compare."""

from pathlib import Path

from l4lb.health.check import Check
from l4lb.probes.target import Unwell

QUERY = "SELECT 1"  # where a check has none
APPLICATION = "l4lb"  # how checks call themselves in a database's lists of connections
MAX_QUERY_TIME = 60  # seconds after which a server ends a query: longer than any check waits

_MAX_PASSWORD = 4_096  # bytes of a file that are read


def password(check: Check) -> str:
    """The first line of the check's password file; empty where it names none.

    Raises:
        Unwell: the file cannot be read.
    """
    path = check.get("password-file")
    if not path:
        return ""
    try:
        with Path(path).open("rb") as file:
            line = file.read(_MAX_PASSWORD).split(b"\n", 1)[0]
        return line.removesuffix(b"\r").decode()
    except OSError as error:
        raise Unwell(f"cannot read the password in {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Unwell(f"the password in {path} is not in UTF-8") from None


def compare(what: str, found: str, expected: str) -> None:
    """Judges an answer.

    Raises:
        Unwell: it is not the expected one, which is empty where any will do.
    """
    if expected and found != expected:
        raise Unwell(f"{what} gave {found or 'an empty text'}, expected {expected}")
