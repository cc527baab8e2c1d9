"""The kinds of checks, and what can be said of each: one table, for parsing, help and completion."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from l4lb.errors import UsageError
from l4lb.health import values

Given = Mapping[str, tuple[str, ...]]  # the values of options, in normal form


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a kind.

    Attributes:
        help: for a user, in a few words.
        parse: gives a value's normal form, or says why it is none.
        default: what holds where it is not given; None: nothing does.
        repeats: whether it may be given several times.
        required: whether it has to be given.
    """

    name: str
    help: str
    parse: values.Parser
    default: str | None = None
    repeats: bool = False
    required: bool = False


@dataclass(frozen=True, slots=True)
class Extra:
    """A library that is not always there.

    Attributes:
        name: of the optional dependency in pyproject.toml.
        module: that has to be found.
        needed: by a check with these options.
    """

    name: str
    module: str
    needed: Callable[[Given], bool] = lambda _: True


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of check.

    Attributes:
        help: for a user, in a few words.
        needs_port: whether it can only be made to a port; that is the backend's, or the option's ``port``.
        extra: the library that it takes.
        rule: raises UsageError for options that contradict each other.
    """

    name: str
    help: str
    options: Mapping[str, Option]
    needs_port: bool = True
    extra: Extra | None = None
    rule: Callable[[Given], None] = lambda _: None


def _options(*options: Option) -> Mapping[str, Option]:
    return MappingProxyType({option.name: option for option in options})


def _http_rule(given: Given) -> None:
    if given.get("method") == ("HEAD",) and ("body" in given or "regex" in given):
        raise UsageError("answers to method HEAD have no body", "leave body and regex out, or use method GET")
    _tls_rule(given)


def _tls_rule(given: Given) -> None:
    if given.get("verify") == ("no",) and "ca" in given:
        raise UsageError("option ca is for nothing with verify=no", "leave one of them out")


def _login_rule(given: Given) -> None:
    if "expect" in given and "query" not in given:
        raise UsageError("option expect has no query to be the result of", "give query, as in query=SELECT 1")
    _optional_tls_rule(given)


def _optional_tls_rule(given: Given) -> None:
    if given.get("tls") != ("yes",):
        for name in ("verify", "sni", "ca"):
            if name in given:
                raise UsageError(f"option {name} is for nothing without TLS", "add tls=yes, or leave it out")
    _tls_rule(given)


def _dns_rule(given: Given) -> None:
    if "answer" in given and given.get("rcode", ("NOERROR",)) != ("NOERROR",):
        raise UsageError("option answer is for nothing with an rcode of failure", "leave one of them out")


def _unverified_days(given: Given) -> bool:
    """What an unverified certificate says has to be read by a library."""
    return "days" in given and given.get("verify") == ("no",)


_PORT = Option("port", "port to check instead of the backend's", values.port)
_CA = Option("ca", "file with the certificates to trust, in PEM (else: the system's)", values.file)
_SNI = Option("sni", "name to ask for, and to find in the certificate", values.server_name)
_VERIFY = Option(
    "verify",
    "whether the certificate has to be trusted, and to be for the name where one is given",
    values.yes_no,
    "yes",
)
_TLS = Option("tls", "whether to use TLS", values.yes_no, "no")
_PASSWORD = Option("password-file", "file that holds the password, on its first line", values.file)

_HTTP = (
    _PORT,
    Option("method", "method of the request", values.method, "GET"),
    Option("path", "path, and query if any", values.path, "/"),
    Option("host", "Host of the request (else: the backend's address)", values.host),
    Option("header", "header of the request, as in X-Check: yes; may repeat", values.header, repeats=True),
    Option("status", "good statuses, as in 200|204|301-302", values.statuses, "200-399"),
    Option("body", "text that the body has to contain", values.text(values.MAX_BODY_TEXT)),
    Option("regex", "regular expression to be found in the body", values.regex),
)


def _login(database: str) -> tuple[Option, ...]:
    return (
        _PORT,
        Option("user", "user to log in as", values.text(64), required=True),
        _PASSWORD,
        Option("database", "database to log in to", values.text(64), database or None),
        Option("query", "query to run", values.text(values.MAX_QUERY)),
        Option("expect", "what the first field of the first row has to be", values.text(values.MAX_BODY_TEXT)),
        _TLS,
        _VERIFY,
        _SNI,
        _CA,
    )


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            Kind("tcp", "a connection can be made", _options(_PORT)),
            Kind("http", "an HTTP request is answered as expected", _options(*_HTTP), rule=_http_rule),
            Kind(
                "https",
                "an HTTP request over TLS is answered as expected",
                _options(*_HTTP, _VERIFY, _SNI, _CA),
                rule=_http_rule,
            ),
            Kind(
                "tls",
                "a TLS handshake ends well, with a good certificate",
                _options(
                    _PORT,
                    _VERIFY,
                    _SNI,
                    _CA,
                    Option(
                        "days", "days for which the certificate has to be valid yet", values.number(0, values.MAX_DAYS)
                    ),
                ),
                extra=Extra("tls", "cryptography", _unverified_days),
                rule=_tls_rule,
            ),
            Kind(
                "udp",
                "a datagram is answered as expected; without expect, silence is well and 'port unreachable' is not",
                _options(
                    _PORT,
                    Option("payload", r"what to send: text with \xNN, or hex:...", values.payload, ""),
                    Option("expect", "what the answer has to begin with, written as payload is", values.payload),
                ),
            ),
            Kind(
                "dns",
                "a DNS query is answered as expected",
                _options(
                    _PORT,
                    Option("name", "name to ask for", values.domain, required=True),
                    Option("type", "type of its records", values.choice(*values.DNS_TYPES), "A"),
                    Option("rcode", "response code to expect", values.choice(*values.RCODES), "NOERROR"),
                    Option("answer", "what one of the records has to be, as dig shows it", values.text(255)),
                    Option("tcp", "whether to ask by TCP", values.yes_no, "no"),
                ),
                extra=Extra("dns", "dns"),
                rule=_dns_rule,
            ),
            Kind("icmp", "an echo request is answered", _options(), needs_port=False),
            Kind(
                "grpc",
                "gRPC's health service says SERVING",
                _options(
                    _PORT,
                    Option("service", "service to ask for (else: the whole server)", values.text(255)),
                    _TLS,
                    _VERIFY,
                    _SNI,
                    _CA,
                ),
                extra=Extra("grpc", "h2"),
                rule=_optional_tls_rule,
            ),
            Kind(
                "postgres",
                "PostgreSQL takes a login and runs a query",
                _options(*_login("postgres")),
                extra=Extra("postgres", "pg8000"),
                rule=_login_rule,
            ),
            Kind(
                "mysql",
                "MySQL or MariaDB takes a login and runs a query",
                _options(*_login("")),
                extra=Extra("mysql", "pymysql"),
                rule=_login_rule,
            ),
            Kind(
                "redis",
                "Redis runs a command",
                _options(
                    _PORT,
                    Option("user", "user to log in as", values.text(64)),
                    _PASSWORD,
                    Option("command", "command to run, as in redis-cli", values.command, "PING"),
                    Option("expect", "what its answer has to be (of PING: PONG)", values.text(values.MAX_BODY_TEXT)),
                    _TLS,
                    _VERIFY,
                    _SNI,
                    _CA,
                ),
                extra=Extra("redis", "hiredis"),
                rule=_optional_tls_rule,
            ),
            Kind(
                "exec",
                "a program ends with status 0",
                _options(
                    _PORT,
                    Option("command", "absolute path of the program; it gets no arguments", values.file, required=True),
                    Option("user", "unprivileged user to run it as", values.user, "nobody"),
                ),
                needs_port=False,
            ),
            Kind(
                "agent",
                "an agent on the backend says how it is, by HAProxy's agent-check lines",
                _options(_PORT, Option("send", "what to send first, written as udp's payload is", values.payload)),
            ),
        )
    }
)
