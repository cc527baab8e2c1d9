"""TLS and HTTPS checks of servers with good and bad certificates."""

import asyncio
import ssl
from pathlib import Path

import pytest

from l4lb.health.result import Result
from l4lb.probes.tls import lifetime_problem
from tests.unit.certificates import NAME, Issued, issue
from tests.unit.probing import SOON, Handler, closing, endless, probe, probe_port, refusing, saying, silent

OK = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhealth")
DAY = 24 * 3600.0


class Site:
    """Servers, by what is particular of their certificates, and files of certificates to trust."""

    def __init__(self, folder: Path) -> None:
        authority, old_authority = (issue(name=f"authority {ends}", authority=True, ends=ends) for ends in (50, -1))
        self.certificates: dict[str, Issued] = {
            "good": issue(authority),
            "of another name": issue(authority, "other.example.test"),
            "expired": issue(authority, begins=-30, ends=-2.5),
            "not yet valid": issue(authority, begins=3.5),
            "soon expiring": issue(authority, ends=5.5),
            "self-signed": issue(),
            "of an old authority": issue(old_authority),
        }
        self._folder = folder
        self.contexts = {name: each.server_context(folder) for name, each in self.certificates.items()}
        self.write("ca.pem", authority.pem)
        self.write("old.pem", old_authority.pem)
        self.write("self.pem", self.certificates["self-signed"].pem)
        self.write("empty.pem", b"none here\n")

    def write(self, name: str, content: bytes) -> None:
        (self._folder / name).write_bytes(content)

    def probe(self, text: str, server: str, handle: Handler = silent, timeout: float = 5.0) -> Result:
        """A check of one server; ``ca=NAME`` in it is one of the files."""
        return probe(text.replace("ca=", f"ca={self._folder}/"), handle, timeout, tls=self.contexts[server])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("certificates"))


WELL = [
    ("tls:ca=ca.pem", "good"),
    (f"tls:ca=ca.pem,sni={NAME},days=40", "good"),
    ("tls:ca=ca.pem", "of another name"),
    ("tls:ca=ca.pem,days=5", "soon expiring"),
    ("tls:ca=self.pem", "self-signed"),
    ("tls:verify=no", "self-signed"),
    ("tls:verify=no", "expired"),
    ("tls:verify=no,days=99", "self-signed"),
    (f"tls:verify=no,sni={NAME}", "of another name"),
    (f"https:ca=ca.pem,host={NAME}:8443,body=health", "good"),
    ("https:ca=ca.pem,host=127.0.0.1:8443", "good"),
    (f"https:ca=ca.pem,host=elsewhere.test,sni={NAME}", "good"),
    ("https:ca=ca.pem", "of another name"),
    ("https:verify=no,regex=^health$", "expired"),
]

ILL = [
    ("tls", "good", "certificate not trusted: unable to get local issuer certificate"),
    ("tls", "self-signed", "certificate not trusted: self-signed certificate"),
    ("tls:ca=ca.pem", "self-signed", "certificate not trusted: self-signed certificate"),
    ("tls:ca=old.pem", "good", "certificate not trusted: unable to get local issuer certificate"),
    ("tls:ca=old.pem", "of an old authority", "certificate not trusted: certificate has expired"),
    ("tls:ca=ca.pem", "expired", "certificate not trusted: certificate has expired"),
    ("tls:ca=ca.pem", "not yet valid", "certificate not trusted: certificate is not yet valid"),
    ("tls:verify=no,days=0", "expired", "certificate expired 2 days ago"),
    ("tls:verify=no,days=0", "not yet valid", "certificate is not valid yet: it will be in 3 days"),
    ("tls:verify=no,days=6", "soon expiring", "certificate expires in 5 days, expected 6 days at least"),
    ("tls:ca=ca.pem,days=6", "soon expiring", "certificate expires in 5 days, expected 6 days at least"),
    (
        f"tls:ca=ca.pem,sni={NAME}", "of another name",
        f"certificate not trusted: Hostname mismatch, certificate is not valid for '{NAME}'",
    ),
    (
        f"https:ca=ca.pem,host={NAME}", "of another name",
        f"certificate not trusted: Hostname mismatch, certificate is not valid for '{NAME}'",
    ),
    (
        "https:ca=ca.pem,host=10.0.0.1", "good",
        "certificate not trusted: IP address mismatch, certificate is not valid for '10.0.0.1'",
    ),
    (
        f"https:ca=ca.pem,host={NAME},sni=elsewhere.test", "good",
        "certificate not trusted: Hostname mismatch, certificate is not valid for 'elsewhere.test'",
    ),
    ("https", "self-signed", "certificate not trusted: self-signed certificate"),
    ("https:verify=no,status=204", "good", "HTTP 200, expected 204"),
    ("https:verify=no,body=x", "good", "body without 'x'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "server"), WELL)
def test_well(site: Site, text: str, server: str) -> None:
    result = site.probe(text, server, OK)
    assert (result.ok, result.reason) == (True, "ok")


@pytest.mark.parametrize(("text", "server", "reason"), ILL)
def test_ill(site: Site, text: str, server: str, reason: str) -> None:
    result = site.probe(text, server, OK)
    assert (result.ok, result.reason) == (False, reason)


def test_files_of_no_use_are_told(site: Site) -> None:
    reasons = [site.probe(f"tls:ca={file}", "good").reason for file in ("none.pem", "empty.pem")]
    assert reasons[0].startswith("cannot read the certificates in /")
    assert reasons[0].endswith("none.pem: No such file or directory")
    assert reasons[1].startswith("there is no certificate in file /")
    assert reasons[1].endswith("empty.pem")


def test_a_file_that_changes_is_read_again(site: Site) -> None:
    site.write("changing.pem", site.certificates["self-signed"].pem)
    assert not site.probe("tls:ca=changing.pem", "good").ok
    site.write("changing.pem", (site._folder / "ca.pem").read_bytes())
    assert site.probe("tls:ca=changing.pem", "good").ok


@pytest.mark.parametrize("text", ["tls:verify=no", "https:verify=no"])
def test_servers_without_tls(text: str) -> None:
    assert probe(text, saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")).reason == "TLS failed: wrong version number"
    assert probe(text, endless(b"", b"\x16\x03\x03\x00\x05hello")).reason.startswith("TLS failed: ")
    assert probe(text, closing).reason == "connection closed in the TLS handshake"
    assert probe(text, silent, SOON).reason == "no answer within 150 ms"
    with refusing() as port:
        assert probe_port(text, port).reason == "connection refused"


def test_bodies_over_tls_end_too(site: Site) -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    assert site.probe(r"https:verify=no,regex=health\Z", "good", saying(head, b"health")).ok
    assert site.probe("https:verify=no,body=x", "good", saying(head, b"health")).reason == "body without 'x'"
    endless_body = endless(head, 65_536 * b"a")
    assert site.probe("https:verify=no,body=a", "good", endless_body).ok
    reason = site.probe("https:verify=no,body=x", "good", endless_body).reason
    assert reason == "the first 1,048,576 bytes of the body without 'x'"
    assert site.probe("https:verify=no", "good", closing).reason == "connection closed without an answer"
    assert site.probe("https:verify=no", "good", silent, 4 * SOON).reason == "no answer within 600 ms"


def test_a_connection_that_ends_without_a_last_word_is_a_body_that_ends(site: Site) -> None:
    """As many servers end theirs."""
    context = site.contexts["good"]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        for step in (tls.do_handshake, tls.read):
            done = False
            while not done:
                try:
                    step()
                    done = True
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(65_536))
        tls.write(b"HTTP/1.1 200 OK\r\n\r\nhealth")
        writer.write(outgoing.read())

    assert probe(r"https:verify=no,regex=health\Z", handle).reason == "ok"
    assert probe("https:verify=no,body=x", handle).reason == "body without 'x'"


@pytest.mark.parametrize(
    ("begins", "ends", "days", "problem"),
    [
        (0, 100 * DAY, 0, None),
        (0, 100 * DAY, 90, None),
        (0, 100 * DAY, 91, "certificate expires in 90 days, expected 91 days at least"),
        (0, 10 * DAY + 1, 1, "certificate expires in a minute, expected 1 day at least"),
        (0, 10 * DAY, 0, "certificate expired a minute ago"),
        (0, 10 * DAY - 3600, 0, "certificate expired 1 hour ago"),
        (0, 10 * DAY - 119, 0, "certificate expired 1 minute ago"),
        (0, 8 * DAY, 0, "certificate expired 2 days ago"),
        (10 * DAY, 100 * DAY, 0, None),
        (10 * DAY + 7200, 100 * DAY, 0, "certificate is not valid yet: it will be in 2 hours"),
    ],
)
def test_lifetimes(begins: float, ends: float, days: int, problem: str | None) -> None:
    assert lifetime_problem(begins, ends, 10 * DAY, days) == problem
