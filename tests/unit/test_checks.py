"""Checks as users write them: each is read as it is written, and what is wrong is told with the way out."""

import importlib.util
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4lb.errors import UsageError
from l4lb.health.check import MAX_LENGTH, Check, missing_extra
from l4lb.health.kinds import KINDS
from l4lb.health.values import payload_bytes, status_set

_labels = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
_names = st.lists(_labels, min_size=1, max_size=4).map(".".join)
_texts = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=60).filter(
    str.isprintable
)
_files = st.lists(st.from_regex(r"[A-Za-z0-9 ,\\._-]+", fullmatch=True), min_size=1, max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)
_payloads = st.one_of(
    st.binary(max_size=50).map(lambda data: "hex:" + data.hex()),
    st.binary(max_size=50).map(lambda data: "".join(f"\\x{byte:02x}" for byte in data)),
    _texts.filter(lambda text: "\\" not in text and not text.startswith("hex:")),
)
_yes_no = st.sampled_from(["yes", "no"])

VALUES: dict[str, st.SearchStrategy[str]] = {
    "port": st.integers(1, 65_535).map(str),
    "method": st.sampled_from(["GET", "HEAD", "OPTIONS", "POST", "PROPFIND"]),
    "path": st.from_regex(r"/[!\"$-~]{0,40}", fullmatch=True),
    "host": st.one_of(_names, _names.map("{}:80".format), st.sampled_from(["[2001:db8::1]", "[::1]:8", "10.0.0.1:80"])),
    "header": st.from_regex(r"X-[A-Za-z0-9]{1,9}: ([!-~]{1,20})?", fullmatch=True),
    "status": st.sampled_from(["200", "200-399", "200|204|301-302", "404"]),
    "body": _texts,
    "regex": st.sampled_from([r"^\d+$", r"a{1,2}", r"\\server\\share,", "(up|ready)", r"\,", "\\\\"]),
    "verify": _yes_no,
    "tls": _yes_no,
    "tcp": _yes_no,
    "sni": _names,
    "ca": _files,
    "password-file": _files,
    "days": st.integers(0, 3_650).map(str),
    "payload": _payloads,
    "send": _payloads,
    "name": _names,
    "type": st.sampled_from(["A", "AAAA", "TXT", "SOA"]),
    "rcode": st.sampled_from(["NOERROR", "NXDOMAIN", "REFUSED"]),
    "answer": _texts,
    "service": _texts,
    "user": st.sampled_from(["nobody", "_apt", "www-data"]),
    "database": _texts,
    "query": _texts,
    "command": _files,
    "expect": _texts,
}  # fmt: skip
SPECIAL = {  # written in another way than other kinds' options of the name
    ("udp", "expect"): _payloads,
    ("redis", "command"): st.sampled_from(["PING", "GET a,b", r"GET 'a b\'", 'EVAL "return \\"x\\"" 0']),
}


@st.composite
def _written(draw: st.DrawFn) -> tuple[str, str, list[tuple[str, str]]]:
    """A check as a user writes it, its kind, and the options in it."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    names = draw(st.permutations(sorted(KINDS[kind].options)))
    options = []
    for name in names:
        spec = KINDS[kind].options[name]
        count = draw(st.integers(1 if spec.required else 0, 3 if spec.repeats else 1))
        values = SPECIAL[kind, name] if (kind, name) in SPECIAL else VALUES[name]
        options += [(name, draw(values)) for _ in range(count)]
    text = ",".join(
        f"{name}={value.replace(chr(92), chr(92) * 2).replace(',', chr(92) + ',')}" for name, value in options
    )
    return f"{kind}:{text}" if text else kind, kind, options


def refused(text: str) -> UsageError:
    with pytest.raises(UsageError) as refusal:
        Check.parse(text)
    assert refusal.value.hint
    assert "\n" not in str(refusal.value)
    return refusal.value


@given(_written())
def test_a_check_has_what_was_written_and_is_read_as_it_is_shown(
    written: tuple[str, str, list[tuple[str, str]]],
) -> None:
    text, kind, options = written
    try:
        check = Check.parse(text)
    except UsageError as error:
        # All values are good ones: only options that are for nothing together are left to refuse.
        assert "is for nothing" in error.message or "no query" in error.message or "HEAD" in error.message  # noqa: PT017
        return
    assert check.kind == kind
    for name, value in options:
        assert value in check.all(name) or value == check.get(name) == KINDS[kind].options[name].default
    assert Check.parse(str(check)) == check
    assert str(Check.parse(str(check))) == str(check)


@given(st.text(max_size=80), st.sampled_from(["", *KINDS]))
def test_any_text_is_a_check_or_refused_in_one_line(text: str, kind: str) -> None:
    text = f"{kind}:{text}" if kind else text
    try:
        check = Check.parse(text)
    except UsageError as error:
        assert error.hint  # noqa: PT017
        assert str(error).isprintable()  # noqa: PT017
    else:
        assert Check.parse(str(check)) == check


def test_every_kind_and_option_explains_itself() -> None:
    assert list(KINDS) == [
        "tcp", "http", "https", "tls", "udp", "dns", "icmp", "grpc", "postgres", "mysql", "redis", "exec", "agent",
    ]  # fmt: skip
    for name, kind in KINDS.items():
        assert kind.name == name
        assert kind.help
        assert all(option.help and option.name == key for key, option in kind.options.items())


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("tcp", {}),
        ("tcp:port=080", {"port": "80"}),
        ("http", {"method": "GET", "path": "/", "status": "200-399", "host": "", "body": ""}),
        ("http:status=204|200|201|400-500|450-599", {"status": "200-201|204|400-599"}),
        (r"http:regex=^\d{1\,3}\\\,$", {"regex": r"^\d{1,3}\,$"}),
        (r"http:body=a\b\\", {"body": "a\\b\\"}),
        ("http:body=a=b", {"body": "a=b"}),
        ("http:host=WWW.Example.org:8080", {"host": "www.example.org:8080"}),
        ("https", {"verify": "yes", "sni": "", "ca": ""}),
        ("https:verify=NO", {"verify": "no"}),
        ("dns:name=Example.ORG.,type=aaaa", {"name": "example.org", "type": "AAAA", "rcode": "NOERROR"}),
        ("dns:name=.,type=soa", {"name": ".", "type": "SOA"}),
        ("exec:command=/bin/true", {"user": "nobody"}),
        ("redis", {"command": "PING"}),
        ("postgres:user=l4lb", {"database": "postgres", "tls": "no"}),
    ],
)
def test_normal_forms_and_defaults(text: str, options: dict[str, str]) -> None:
    check = Check.parse(text)
    assert {name: check.get(name) for name in options} == options


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("http:path=/", "http"),
        ("http:status=200-399,method=GET", "http"),
        ("http:status=200,path=/x", "http:path=/x,status=200"),
        ("http:header=B:1,header=A:  2", "http:header=B: 1,header=A: 2"),
        (r"http:regex=\\d+", r"http:regex=\d+"),
        (r"http:body=\\\,", r"http:body=\\\,"),
        (r"http:regex=b,body=a\\", r"http:body=a\\,regex=b"),
    ],
)
def test_equal_checks_are_the_same_one(text: str, normal: str) -> None:
    assert str(Check.parse(text)) == normal


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "check kind '' is not known: use tcp, http"),
        ("htp", "check kind 'htp' is not known: did you mean http or https?"),
        ("http/", "check kind 'http/' is not known: did you mean http"),
        ("tcp:", "check 'tcp:' has no options behind its colon: write tcp"),
        ("http:pth=/", "check http has no option 'pth': did you mean path?"),
        ("http:zzz=/", "check http has no option 'zzz': use port, method, path"),
        ("http:verify=no", "check http has no option 'verify'"),
        ("icmp:port=1", "check icmp has no option 'port': it takes none"),
        ("http:path", "check option 'path' has no value: write it as name=value"),
        ("http:path=/,", "check option '' has no value"),
        ("http:path=/a,b", r"check option 'b' has no value: write it as name=value; a comma inside of a value is "),
        ("http:path=/a,path=/b", "check http has option path twice"),
        ("dns", "check dns lacks option name: give it: name to ask for"),
        ("exec:user=nobody", "check exec lacks option command"),
        ("mysql:query=SELECT 1", "check mysql lacks option user"),
        ("http:path=health", "option path of check http: 'health' is no path"),
        ("http:path=/a b", "'/a b' is no path"),
        ("http:path=/a#b", "'/a#b' is no path"),
        ("http:path=/é", "'/é' is no path"),
        ("http:path=/" + "a" * 1_024, "is no path: up to 1,024 visible"),
        ("http:path=/\r\nX: y", "has characters that cannot be seen"),
        ("http:header=X: y\r\nZ: 1", "has characters that cannot be seen"),
        ("http:body=\x1b[31m", "has characters that cannot be seen"),
        ("http:body=\x00", "has characters that cannot be seen"),
        ("http:body=\x7f", "has characters that cannot be seen"),
        ("http:body=\u202etxt", "has characters that cannot be seen"),
        ("http:body=\ud800", "has characters that cannot be seen"),
        ("http:body=" + "a" * MAX_LENGTH, "check is of more than 4,096 characters"),
        ("http:body=" + "a" * 513, "is not of 1 to 512 characters"),
        ("http:body=", "'' is not of 1 to 512 characters"),
        ("http:host=a b", "'a b' is no host"),
        ("http:host=2001:db8::1", "is no host: write it as in www.example.org"),
        ("http:host=a:70000", "is no host"),
        ("http:host=a:0", "is no host"),
        ("http:host=300.1.1.1", "is no host"),
        ("http:host=-a", "is no host"),
        ("http:header=X", "is no header of ASCII characters: write it as in 'X-Check: yes'"),
        ("http:header=X Y: z", "is no header"),
        ("http:header=X: é", "is no header"),
        ("http:header=: y", "is no header"),
        ("http:header=hOST: a", "'hOST: a' cannot be chosen: use the option host"),
        ("http:header=Content-Length: 5", "cannot be chosen: checks send no body"),
        ("http:header=Transfer-Encoding: chunked", "cannot be chosen"),
        ("http:header=Connection: keep-alive", "cannot be chosen"),
        ("http:method=get", "option method of check http: 'get' is no method"),
        ("http:method=CONNECT", "is no method to check by"),
        ("http:method=HEAD,body=x", "check http: answers to method HEAD have no body"),
        ("https:method=HEAD,regex=x", "answers to method HEAD have no body"),
        ("http:status=ok", "'ok' is no set of statuses from 200 to 599: write it as in 200, 200-399 or 200|204|"),
        ("http:status=200-", "is no set of statuses"),
        ("http:status=399-200", "is no set of statuses"),
        ("http:status=100", "is no set of statuses"),
        ("http:status=600", "is no set of statuses"),
        ("http:status=", "is no set of statuses"),
        ("http:regex=(", "'(' is no regular expression (missing ), unterminated subpattern at position 0)"),
        ("http:regex=" + "a" * 257, "is not of 1 to 256 characters"),
        ("http:regex=(?P<a>x)(?P<a>y)", "is no regular expression"),
        ("http:regex=a{99999999999}", "is no regular expression"),
        ("http:port=0", "option port of check http: '0' is not between 1 and 65535"),
        ("http:port=65536", "is not between 1 and 65535"),
        ("http:port=http", "is not between 1 and 65535"),
        ("http:port=٨٠", "is not between 1 and 65535"),
        ("https:verify=maybe", "'maybe' is not known: use yes or no"),
        ("https:sni=192.0.2.1", "is no host name"),
        ("https:sni=a_b..c", "is no host name"),
        ("https:ca=ca.pem", "'ca.pem' is no absolute path of a file: begin with '/'"),
        ("https:ca=/", "is no absolute path"),
        ("https:ca=/etc/", "is no absolute path"),
        ("https:ca=//host/share", "is no absolute path"),
        ("https:ca=/a,verify=no", "check https: option ca is for nothing with verify=no"),
        ("tls:ca=/a,verify=no", "option ca is for nothing with verify=no"),
        ("tls:days=-1", "is not between 0 and 3650"),
        ("tls:days=3651", "is not between 0 and 3650"),
        ("udp:payload=hex:0", "'hex:0' is not in hexadecimal"),
        (r"udp:payload=\x0", r"has a '\' that stands for nothing: use \xNN, \r, \n or \t; a '\' itself is \x5c"),
        (r"udp:expect=\q", r"has a '\' that stands for nothing"),
        ("udp:payload=" + "é" * 513, "is of more than 1,024 bytes"),
        ("dns:name=a..b", "is no domain name"),
        ("dns:name=" + "a" * 64, "is no domain name"),
        ("dns:name=" + ".".join(["a" * 49] * 6), "is no domain name"),
        ("dns:name=a,type=ANY", "'ANY' is not known: use A or AAAA"),
        ("dns:name=a,rcode=OK", "'OK' is not known: use NOERROR or"),
        ("dns:name=a,rcode=NXDOMAIN,answer=1.2.3.4", "check dns: option answer is for nothing"),
        ("exec:command=true", "'true' is no absolute path of a file"),
        ("exec:command=/bin/true,user=root", "'root' may do everything: use an unprivileged user, as nobody"),
        ("exec:command=/bin/true,user=0", "is no user's name"),
        ("grpc:sni=a", "check grpc: option sni is for nothing without TLS: add tls=yes, or leave it out"),
        ("redis:tls=no,ca=/a", "option ca is for nothing without TLS"),
        ("mysql:user=a,tls=yes,verify=no,ca=/a", "option ca is for nothing with verify=no"),
        ("postgres:user=a,expect=1", "check postgres: option expect has no query to be the result of"),
        ("postgres:user=a,password=b", "check postgres has no option 'password': did you mean password-file?"),
        ("redis:command=GET 'a", "cannot be taken apart (No closing quotation): close what is quoted"),
        ("redis:command= ", "is not of 1 to 1,024 characters: name a command, as PING"),
        ("redis:password-file=secret", "'secret' is no absolute path"),
    ],
)  # fmt: skip
def test_refused(text: str, says: str) -> None:
    assert says in str(refused(text))


@pytest.mark.parametrize(
    ("written", "stands_for"),
    [
        ("", b""),
        ("PING", b"PING"),
        (r"a\x00\xFFb\r\n\t", b"a\x00\xffb\r\n\t"),
        (r"\x5cn", b"\\n"),
        ("é", b"\xc3\xa9"),
        ("hex:00ff 0A", b"\x00\xff\n"),
        ("hex:", b""),
    ],
)
def test_payloads(written: str, stands_for: bytes) -> None:
    assert payload_bytes(written) == stands_for


def test_statuses_are_those_of_the_set() -> None:
    assert status_set("200-201|204") == {200, 201, 204}


@pytest.mark.parametrize(
    ("text", "needed"),
    [("tcp", True), ("tcp:port=1", False), ("exec:command=/bin/true", False), ("icmp", False), ("agent", True)],
)
def test_which_checks_need_a_port_of_the_backend(text: str, needed: bool) -> None:
    assert Check.parse(text).needs_port is needed


@pytest.mark.parametrize(
    ("text", "extra"),
    [
        ("tcp", None),
        ("https", None),
        ("dns:name=a", "dns"),
        ("grpc", "grpc"),
        ("postgres:user=a", "postgres"),
        ("mysql:user=a", "mysql"),
        ("redis", "redis"),
        ("tls:days=30", None),
        ("tls:verify=no", None),
        ("tls:days=30,verify=no", "tls"),
    ],
)
def test_a_library_that_is_missing_is_told(text: str, extra: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*_: Any) -> object:
        return object()

    def not_found(*_: Any) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", not_found)
    assert missing_extra(Check.parse(text)) == extra
    monkeypatch.setattr(importlib.util, "find_spec", found)
    assert missing_extra(Check.parse(text)) is None
