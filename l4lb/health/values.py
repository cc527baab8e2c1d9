"""What the values of a check's options look like. Each parser takes what the user wrote and gives its normal form.

A parser's :class:`UsageError` goes on where the caller's words "option name 'value'" end.
"""

import functools
import re
import shlex
from collections.abc import Callable
from ipaddress import ip_address

from l4lb.errors import UsageError
from l4lb.ports import MAX_PORT

MAX_PAYLOAD = 1_024  # bytes: what fits into one packet, whatever the way
MAX_REGEX = 256
MAX_BODY_TEXT = 512
MAX_PATH = 1_024
MAX_QUERY = 1_024
MAX_DAYS = 3_650

Parser = Callable[[str], str]

DNS_TYPES = (
    "A", "AAAA", "CAA", "CNAME", "DNSKEY", "DS", "HTTPS", "MX", "NAPTR", "NS", "PTR", "SOA", "SRV", "SVCB", "TXT",
)  # fmt: skip
RCODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "NOTAUTH")

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's word for the characters of names
_OWN_HEADERS = {
    "host": "use the option host",
    "connection": "each check has a connection of its own, and closes it",
    "content-length": "checks send no body",
    "transfer-encoding": "checks send no body",
    "upgrade": "checks speak HTTP/1.1",
    "expect": "checks send no body",
}
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")


def text(most: int) -> Parser:
    """Any text of 1 to `most` characters."""

    def parse(value: str) -> str:
        if not 1 <= len(value) <= most:
            raise UsageError(
                f"is not of 1 to {most} characters", "shorten it" if value else "leave it out, or give one"
            )
        return value

    return parse


def number(least: int, most: int) -> Parser:
    """A whole number."""

    def parse(value: str) -> str:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not least <= int(value) <= most:
            raise UsageError(f"is not between {least} and {most}", "give a whole number")
        return str(int(value))

    return parse


port = number(1, MAX_PORT)


def choice(*possible: str) -> Parser:
    """One of some words, in whatever case."""

    def parse(value: str) -> str:
        for word in possible:
            if word.lower() == value.lower():
                return word
        raise UsageError("is not known", f"use {' or '.join(possible)}")

    return parse


yes_no = choice("yes", "no")


def method(value: str) -> str:
    """An HTTP method."""
    if not re.fullmatch("[A-Z]{1,20}", value) or value == "CONNECT":
        raise UsageError("is no method to check by", "use GET, HEAD, OPTIONS or another in capital letters")
    return value


def path(value: str) -> str:
    """An HTTP request's target: path and query."""
    if not value.startswith("/") or not re.fullmatch(rf"[!-~]{{1,{MAX_PATH}}}", value) or "#" in value:
        raise UsageError(
            f"is no path: up to {MAX_PATH:,} visible ASCII characters without '#', '/' first",
            "write other characters as %NN, as in /health?name=caf%C3%A9",
        )
    return value


def host(value: str) -> str:
    """An HTTP Host: a name or an address, with or without a port."""
    with_port = re.fullmatch(r"(.*):([0-9]{1,5})", value)
    bare, port_ = with_port.groups() if with_port else (value, "1")
    bracketed = bare.startswith("[") and bare.endswith("]") and _is_address(bare[1:-1], 6)
    if not (bracketed or _is_address(bare, 4) or _is_name(bare)) or int(port_) not in range(1, MAX_PORT + 1):
        raise UsageError("is no host", "write it as in www.example.org, www.example.org:8080 or [2001:db8::1]:8080")
    return value.lower()


def header(value: str) -> str:
    """One HTTP header."""
    name, colon, content = value.partition(":")
    content = content.strip()
    if not colon or not re.fullmatch(_TOKEN, name) or not re.fullmatch(r"[ -~]{0,1024}", content):
        raise UsageError("is no header of ASCII characters", "write it as in 'X-Check: yes'")
    if name.lower() in _OWN_HEADERS:
        raise UsageError("cannot be chosen", _OWN_HEADERS[name.lower()])
    return f"{name}: {content}"


def statuses(value: str) -> str:
    """A set of HTTP statuses, as ``200|204|301-302``; its normal form is in order, with ranges joined."""
    ranges: list[list[int]] = []
    for part in value.split("|"):
        found = re.fullmatch("([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 200 <= first <= last:
            raise UsageError("is no set of statuses from 200 to 599", "write it as in 200, 200-399 or 200|204|301-302")
        ranges.append([first, last])
    joined: list[list[int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1][1] = max(joined[-1][1], last)
        else:
            joined.append([first, last])
    return "|".join(str(first) if first == last else f"{first}-{last}" for first, last in joined)


@functools.lru_cache(maxsize=256)
def status_set(value: str) -> frozenset[int]:
    """The statuses that a normal form stands for; one set for all backends, as it is of 12 kB."""
    found: set[int] = set()
    for part in value.split("|"):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def regex(value: str) -> str:
    """A regular expression of Python's re."""
    if not 1 <= len(value) <= MAX_REGEX:
        raise UsageError(f"is not of 1 to {MAX_REGEX} characters", "look for less")
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"is no regular expression ({error})", "see Python's re for what can be written") from None
    return value


def server_name(value: str) -> str:
    """A name to ask for in a TLS handshake (SNI)."""
    if not _is_name(value):
        raise UsageError("is no host name", "write it as in www.example.org")
    return value.lower()


def domain(value: str) -> str:
    """A domain name to ask a DNS server for; its normal form has no dot at the end."""
    bare = value.removesuffix(".")
    if value != "." and not _is_name(bare):
        raise UsageError("is no domain name", "write it as in www.example.org, or . for the root")
    return bare.lower() or "."


def file(value: str) -> str:
    """The absolute path of a file, which may come to be there later."""
    if not re.fullmatch(r"/[^/].{0,1023}", value) or value.endswith("/"):
        raise UsageError("is no absolute path of a file", "begin with '/'")
    return value


def command(value: str) -> str:
    """A command's words, as a shell takes them apart."""
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise UsageError(f"cannot be taken apart ({error})", "close what is quoted") from None
    if not words or len(value) > MAX_QUERY:
        raise UsageError(f"is not of 1 to {MAX_QUERY:,} characters", "name a command, as PING")
    return value


def user(value: str) -> str:
    """The name of a system's user who is not root."""
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", value):
        raise UsageError("is no user's name", "use a name from /etc/passwd, as nobody")
    if value == "root":
        raise UsageError("may do everything", "use an unprivileged user, as nobody")
    return value


def payload(value: str) -> str:
    r"""Bytes, as text with ``\xNN`` or as ``hex:...``."""
    if len(payload_bytes(value)) > MAX_PAYLOAD:
        raise UsageError(f"is of more than {MAX_PAYLOAD:,} bytes", "send less")
    return value


def payload_bytes(value: str) -> bytes:
    r"""The bytes that a payload stands for: of ``hex:...``, or of text in UTF-8 with ``\xNN``, ``\r``, ``\n``, ``\t``.

    Raises:
        UsageError: it is neither.
    """
    if value.startswith("hex:"):
        try:
            return bytes.fromhex(value.removeprefix("hex:"))
        except ValueError:
            raise UsageError("is not in hexadecimal", r"write it as in hex:0d0a, or as text, as in PING\r\n") from None
    pieces = re.split(r"\\(x[0-9A-Fa-f]{2}|[rnt])", value)
    if any("\\" in plain for plain in pieces[::2]):
        raise UsageError("has a '\\' that stands for nothing", r"use \xNN, \r, \n or \t; a '\' itself is \x5c")
    escapes = {"r": b"\r", "n": b"\n", "t": b"\t"}
    return b"".join(
        escapes.get(piece) or bytes.fromhex(piece[1:]) if place % 2 else piece.encode()
        for place, piece in enumerate(pieces)
    )


def _is_name(value: str) -> bool:
    """Names do not end in numbers: what does is meant to be an address."""
    return len(value) <= 253 and _NAME.fullmatch(value) is not None and not value.rpartition(".")[2].isdigit()


def _is_address(value: str, version: int) -> bool:
    try:
        return "%" not in value and ip_address(value).version == version
    except ValueError:
        return False
