"""DNS checks of a real server: what it knows, what it does not, and when it says nothing."""

import pytest

from l4lb.lab.faults import firewalled, frozen, killed
from l4lb.lab.topology import Lab, Server
from tests.lab.oddities import Port as Odd
from tests.lab.prober import Prober, until_well
from tests.lab.services import DNS, start_dns, start_oddities

SOON = 0.25  # seconds, where nothing is going to be answered
NOTHING = "no answer within 250 ms"
CHECK = "dns:port=53,name=www.example.test,answer=192.0.2.1"
CHECKS = [CHECK, f"{CHECK},tcp=yes"]


@pytest.fixture(scope="module")
def server(bare_lab: Lab, prober: Prober) -> Server:
    (server,) = bare_lab.servers
    server.namespace.sysctl(net__ipv4__icmp_ratelimit=0)
    start_dns(bare_lab, server)
    start_oddities(bare_lab, server)
    until_well(prober, *CHECKS, f"agent:port={Odd.AGENT}")
    return server


BY_EITHER = [
    ("name=www.example.test", "ok"),
    ("name=WWW.Example.Test,answer=192.0.2.1", "ok"),
    ("name=www.example.test,type=AAAA,answer=2001:db8:0::1", "ok"),
    ("name=alias.example.test,answer=192.0.2.1", "ok"),
    ("name=alias.example.test,type=CNAME,answer=www.example.test", "ok"),
    ("name=example.test,type=MX,answer=10 mail.example.test", "ok"),
    ("name=example.test,type=TXT,answer=v=spf1 -all", "ok"),
    ("name=none.example.test,rcode=NXDOMAIN", "ok"),
    ("name=example.org,rcode=REFUSED", "ok"),
    ("name=none.example.test", "NXDOMAIN, expected NOERROR"),
    ("name=example.org", "REFUSED, expected NOERROR"),
    ("name=www.example.test,rcode=NXDOMAIN", "NOERROR, expected NXDOMAIN"),
    ("name=www.example.test,answer=192.0.2.2", "no A record is '192.0.2.2' (but 192.0.2.1)"),
    ("name=www.example.test,type=MX,answer=1 a.test", "no MX record is '1 a.test' (there is none)"),
    ("name=example.test,type=TXT,answer=v=spf1", "no TXT record is 'v=spf1' (but \"v=spf1 -all\")"),
]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("how", ["", ",tcp=yes"], ids=["udp", "tcp"])
@pytest.mark.parametrize(("question", "reason"), BY_EITHER)
def test_answers(server: Server, prober: Prober, question: str, how: str, reason: str, version: int) -> None:
    result = prober.check(f"dns:port=53,{question}{how}", address=str(server.address_of(version)))
    assert (result.ok, result.reason) == (reason == "ok", reason)


def test_what_does_not_fit_into_a_datagram(server: Server, prober: Prober) -> None:
    question = "dns:port=53,name=many.example.test,answer=192.0.2.100"
    assert prober.check(question).reason == "answer was cut short; ask by tcp=yes"
    assert prober.check(f"{question},tcp=yes").ok


def test_a_resolver_whose_own_server_is_gone(server: Server, prober: Prober) -> None:
    questions = ["dns:port=53,name=www.lost.test", "dns:port=53,name=www.lost.test,tcp=yes", *CHECKS]
    results = prober.checks(questions, SOON)
    assert [result.reason == "ok" for result in results] == [False, False, True, True]
    assert results[0].reason == NOTHING


def test_frozen(bare_lab: Lab, server: Server, prober: Prober) -> None:
    with frozen(bare_lab, server, DNS):
        assert [result.reason for result in prober.checks(CHECKS, SOON)] == [NOTHING] * 2
    until_well(prober, *CHECKS)


def test_killed(bare_lab: Lab, server: Server, prober: Prober) -> None:
    with killed(bare_lab, server, DNS, start_dns):
        assert [result.reason for result in prober.checks(CHECKS)] == ["port unreachable", "connection refused"]
    until_well(prober, *CHECKS)


FIREWALLS = {
    "udp dport 53 drop": [NOTHING, "ok"],
    "tcp dport 53 drop": ["ok", NOTHING],
    "udp dport 53 reject with icmpx admin-prohibited": [
        "no route to it, it does not answer on its link, or a firewall refuses", "ok",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("rule", "reasons"), FIREWALLS.items(), ids=FIREWALLS)
def test_firewalls(server: Server, prober: Prober, rule: str, reasons: list[str]) -> None:
    with firewalled(server, rule):
        assert [result.reason for result in prober.checks(CHECKS, SOON)] == reasons


NO_SERVERS = {
    Odd.SILENT: NOTHING,
    Odd.CLOSING: "connection closed without an answer",
    Odd.GARBAGE: "bad DNS: ShortHeader",  # its first two bytes stand for a length of 1
    Odd.BANNER: NOTHING,  # these for 12,850
    Odd.FULL: NOTHING,
    Odd.MUTE: "connection refused",
}


@pytest.mark.parametrize(("port", "reason"), NO_SERVERS.items())
def test_what_is_no_dns_server_by_tcp(server: Server, prober: Prober, port: int, reason: str) -> None:
    assert prober.check(f"dns:port={port},name=www.example.test,tcp=yes", SOON).reason == reason


def test_who_says_nothing(server: Server, prober: Prober) -> None:
    assert prober.check(f"dns:port={Odd.MUTE},name=www.example.test", SOON).reason == NOTHING
