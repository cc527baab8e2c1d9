"""Checks http, https and tls of an nginx with good pages and bad ones, good certificates and bad ones."""

from pathlib import Path

import pytest

from l4lb.lab.topology import Lab, Server
from tests.lab.oddities import Port as Odd
from tests.lab.prober import Prober, until_well
from tests.lab.services import start_oddities
from tests.lab.websites import Port, start
from tests.unit.certificates import NAME

SOON = 0.25  # seconds, where nothing is going to be answered
NOTHING = "no answer within 250 ms"


@pytest.fixture(scope="module")
def server(bare_lab: Lab, prober: Prober) -> Server:
    (server,) = bare_lab.servers
    start(bare_lab, server)
    start_oddities(bare_lab, server)
    until_well(prober, f"http:port={Port.HTTP}", f"agent:port={Odd.AGENT}")
    return server


@pytest.fixture(scope="module")
def root(bare_lab: Lab, server: Server) -> Path:
    return bare_lab.folder / server.name / "root.pem"


WELL = [
    "http",
    "http:path=/,status=200,body=all is well",
    r"http:regex=^all is \w+\n$",
    "http:method=HEAD",
    "http:path=/broken,status=503",
    "http:path=/moved",
    "http:path=/moved,status=302",
    "http:path=/members,header=X-Member: yes,status=204",
    "http:path=/post,method=POST,status=204",
    "http:host=inside.example.test,body=inside",
    "http:host=other.example.test,body=all is well",
    "http:path=/late",  # the status is there at once
    f"http:port={Odd.HALF},body=half",
    f"http:port={Odd.LONG_BODY},body=beginning",
]

ILL = [
    ("http:path=/broken", "HTTP 503, expected 200-399"),
    ("http:path=/nothing", "HTTP 404, expected 200-399"),
    ("http:path=/moved,status=200", "HTTP 302, expected 200"),
    ("http:path=/members", "HTTP 403, expected 200-399"),
    ("http:path=/post", "HTTP 405, expected 200-399"),
    ("http:path=/lost", "HTTP 502, expected 200-399"),
    ("http:body=all is ill", "body without 'all is ill'"),
    ("http:regex=^is", "body without '^is'"),
    ("http:host=inside.example.test,body=all is well", "body without 'all is well'"),
    ("http:path=/broken,body=sorry", "HTTP 503, expected 200-399"),
    ("http:path=/cut", "connection closed without an answer"),
    (f"http:port={Port.GOOD}", "HTTP 400, expected 200-399"),
    (f"http:port={Odd.GARBAGE}", "bad HTTP: illegal status line"),
    (f"http:port={Odd.LONG_HEAD}", "HTTP headers of more than 16,384 bytes"),
    (f"http:port={Odd.LONG_BODY},body=end", "the first 1,048,576 bytes of the body without 'end'"),
    (f"http:port={Odd.CLOSING}", "connection closed without an answer"),
    (f"http:port={Odd.MUTE}", "connection refused"),
]

NEVER = [
    "http:path=/waiting",
    "http:path=/late,body=the end",
    f"http:port={Odd.SILENT}",
    f"http:port={Odd.BANNER}",
    f"http:port={Odd.HALF},body=whole",
    f"http:port={Odd.DRIPPING}",
    f"http:port={Odd.FULL}",
    f"https:port={Odd.SILENT}",
    f"https:port={Odd.FULL}",
    f"tls:port={Odd.SILENT}",
    f"tls:port={Odd.FULL}",
]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("text", WELL)
def test_http_well(server: Server, prober: Prober, text: str, version: int) -> None:
    assert prober.check(text, address=str(server.address_of(version))).reason == "ok"


@pytest.mark.parametrize(("text", "reason"), ILL)
def test_http_ill(server: Server, prober: Prober, text: str, reason: str) -> None:
    result = prober.check(text)
    assert (result.ok, result.reason) == (False, reason)


@pytest.mark.parametrize("version", [4, 6])
def test_nothing_comes_in_time(server: Server, prober: Prober, version: int) -> None:
    results = prober.checks(NEVER, SOON, str(server.address_of(version)))
    assert {text: (result.ok, result.reason) for text, result in zip(NEVER, results, strict=True)} == dict.fromkeys(
        NEVER, (False, NOTHING)
    )


def test_an_answer_may_take_as_long_as_is_allowed(server: Server, prober: Prober) -> None:
    result = prober.check("http:path=/late,body=the end", 10.0)
    assert result.ok
    assert result.latency > SOON


@pytest.mark.parametrize("kind", ["http", "https:verify=no", "tls:verify=no"])
def test_who_hangs_up_at_once(server: Server, prober: Prober, kind: str) -> None:
    """The connection ends in order or by a reset, as it happens that the request has come by then."""
    first, *more = kind.split(":")
    reason = prober.check(f"{first}:{','.join([f'port={Odd.HANGING_UP}', *more])}").reason
    assert reason in (
        "connection reset",
        "connection closed",
        "connection closed without an answer",
        "connection closed in the TLS handshake",
    )


TRUSTED = [
    f"tls:port={Port.GOOD}",
    f"tls:port={Port.GOOD},sni={NAME},days=90",
    f"tls:port={Port.SOON},sni={NAME},days=5",
    f"tls:port={Port.OTHER_NAME}",
    f"tls:port={Port.OTHER_NAME},sni=other.example.test",
    f"tls:port={Port.BY_NAME},sni={NAME}",
    f"tls:port={Port.MUTUAL}",
    f"https:port={Port.GOOD},body=all is well",
    f"https:port={Port.GOOD},host={NAME}:{Port.GOOD}",
    f"https:port={Port.GOOD},host=ADDRESS",
    f"https:port={Port.GOOD},host=elsewhere.test,sni={NAME}",
    f"https:port={Port.BY_NAME},host={NAME}",
    f"https:port={Port.MUTUAL},status=400,body=No required SSL certificate was sent",
]

_ISSUER = "certificate not trusted: unable to get local issuer certificate"
_OTHER_NAME = f"certificate not trusted: Hostname mismatch, certificate is not valid for '{NAME}'"
DISTRUSTED = [
    (f"port={Port.UNCHAINED}", _ISSUER),
    (f"port={Port.SELF_SIGNED}", "certificate not trusted: self-signed certificate"),
    (f"port={Port.STRANGE}", "certificate not trusted: self-signed certificate in certificate chain"),
    (f"port={Port.EXPIRED}", "certificate not trusted: certificate has expired"),
    (f"port={Port.NOT_YET}", "certificate not trusted: certificate is not yet valid"),
    (f"port={Port.OTHER_NAME},sni={NAME}", _OTHER_NAME),
    (f"port={Port.BY_NAME}", "TLS failed: tlsv1 unrecognized name"),
    (f"port={Port.BY_NAME},sni=other.example.test", "TLS failed: tlsv1 unrecognized name"),
    (f"port={Port.OLD}", "TLS failed: "),
    (f"port={Port.HTTP}", "TLS failed: wrong version number"),
    (f"port={Odd.GARBAGE}", "TLS failed: wrong version number"),
    (f"port={Odd.CLOSING}", "connection closed in the TLS handshake"),
    (f"port={Odd.MUTE}", "connection refused"),
]

UNVERIFIED = [
    (f"tls:port={Port.EXPIRED},verify=no", "ok"),
    (f"tls:port={Port.SELF_SIGNED},verify=no,days=90", "ok"),
    (f"tls:port={Port.UNCHAINED},verify=no,sni=other.example.test", "ok"),
    (f"tls:port={Port.EXPIRED},verify=no,days=0", "certificate expired 2 days ago"),
    (f"tls:port={Port.NOT_YET},verify=no,days=0", "certificate is not valid yet: it will be in 3 days"),
    (f"tls:port={Port.SOON},verify=no,days=6", "certificate expires in 5 days, expected 6 days at least"),
    (f"https:port={Port.EXPIRED},verify=no,body=all is well", "ok"),
    (f"https:port={Port.STRANGE},verify=no,host={NAME},status=204", "HTTP 200, expected 204"),
    (f"https:port={Port.MUTUAL},verify=no", "HTTP 400, expected 200-399"),
]


@pytest.mark.parametrize("text", TRUSTED)
def test_trusted(server: Server, root: Path, prober: Prober, text: str) -> None:
    assert prober.check(f"{text},ca={root}".replace("ADDRESS", str(server.address))).reason == "ok"


@pytest.mark.parametrize("kind", ["tls", "https"])
@pytest.mark.parametrize(("options", "reason"), DISTRUSTED)
def test_distrusted(root: Path, prober: Prober, kind: str, options: str, reason: str) -> None:
    result = prober.check(f"{kind}:{options},ca={root}")
    assert not result.ok
    assert result.reason.startswith(reason)


def test_days_are_those_of_the_servers_certificate(root: Path, prober: Prober) -> None:
    result = prober.check(f"tls:port={Port.SOON},days=6,ca={root}")
    assert result.reason == "certificate expires in 5 days, expected 6 days at least"


@pytest.mark.parametrize(("text", "reason"), UNVERIFIED)
def test_unverified(server: Server, prober: Prober, text: str, reason: str) -> None:
    assert prober.check(text).reason == reason


def test_the_systems_authorities_do_not_know_ours(server: Server, prober: Prober) -> None:
    for kind in ("tls", "https"):
        result = prober.check(f"{kind}:port={Port.GOOD}")
        assert (result.ok, result.reason) == (False, _ISSUER)


def test_tls_over_ipv6(server: Server, root: Path, prober: Prober) -> None:
    texts = [f"tls:port={Port.GOOD},sni={NAME},ca={root}", f"https:port={Port.BY_NAME},host={NAME},ca={root}"]
    assert all(result.ok for result in prober.checks(texts, address=str(server.address6)))
