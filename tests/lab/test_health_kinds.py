"""What each kind of check tells of real servers that are frozen, killed and cut off; more of tcp, udp, icmp, agent."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from l4lb.lab.faults import firewalled, frozen, killed
from l4lb.lab.servers import UDP_PORT, start_nginx
from l4lb.lab.topology import Lab, Server
from tests.lab import oddities, websites
from tests.lab.prober import Prober, until_well
from tests.lab.services import DNS, ECHO, ODDITIES, advise, start_dns, start_echo, start_oddities

SOON = 0.25  # seconds, where nothing is going to be answered
NOTHING = "no answer within 250 ms"

TELLING = {"net__ipv4__icmp_ratelimit": 0, "net__ipv6__icmp__ratelimit": 0}
STARTS = {"nginx": start_nginx, DNS: start_dns, ECHO: start_echo, ODDITIES: start_oddities}
CHECKS = {
    "tcp": f"tcp:port={websites.Port.HTTP}",
    "http": f"http:port={websites.Port.HTTP},body=well",
    "https": f"https:port={websites.Port.GOOD},verify=no,body=well",
    "tls": f"tls:port={websites.Port.GOOD},verify=no,days=9",
    "udp": f"udp:port={UDP_PORT},payload=hello,expect=b1 hello",
    "udp that expects nothing": f"udp:port={UDP_PORT},payload=hello",
    "dns": "dns:port=53,name=www.example.test,answer=192.0.2.1",
    "dns by tcp": "dns:port=53,name=www.example.test,answer=192.0.2.1,tcp=yes",
    "agent": f"agent:port={oddities.Port.AGENT}",
    "icmp": "icmp",
}


@pytest.fixture(scope="module")
def server(bare_lab: Lab, prober: Prober) -> Server:
    """A server of everything, which tells each time that it has no such port."""
    (server,) = bare_lab.servers
    server.namespace.sysctl(**TELLING)
    websites.start(bare_lab, server)
    for program in (DNS, ECHO, ODDITIES):
        STARTS[program](bare_lab, server)
    until_well(prober, *CHECKS.values())
    return server


def reasons(prober: Prober, timeout: float = 5.0) -> dict[str, str]:
    """What all checks say."""
    results = prober.checks(list(CHECKS.values()), timeout)
    assert all(result.ok == result.reason.startswith("ok") for result in results)
    return {name: result.reason for name, result in zip(CHECKS, results, strict=True)}


def test_all_are_well(server: Server, prober: Prober) -> None:
    assert reasons(prober) == dict.fromkeys(CHECKS, "ok")


def test_all_are_well_over_ipv6(server: Server, prober: Prober) -> None:
    results = prober.checks(list(CHECKS.values()), address=str(server.address6))
    assert [result.reason for result in results] == ["ok"] * len(CHECKS)


@contextmanager
def all_frozen(lab: Lab, server: Server) -> Iterator[None]:
    """The host is well, and no program on it does anything."""
    with ExitStack() as stack:
        for program in STARTS:
            stack.enter_context(frozen(lab, server, program))
        yield


@contextmanager
def all_killed(lab: Lab, server: Server) -> Iterator[None]:
    """The host is well, and no program runs on it."""
    with ExitStack() as stack:
        for program, start in STARTS.items():
            stack.enter_context(killed(lab, server, program, start))
        yield


REFUSED = dict.fromkeys(("tcp", "http", "https", "tls", "dns by tcp", "agent"), "connection refused")
UNREACHABLE = dict.fromkeys(("udp", "udp that expects nothing", "dns"), "port unreachable")
SILENT = {**dict.fromkeys(CHECKS, NOTHING), "udp that expects nothing": "ok, nothing came back"}


def test_frozen(bare_lab: Lab, server: Server, prober: Prober) -> None:
    """The kernel goes on to take connections and to answer pings."""
    with all_frozen(bare_lab, server):
        assert reasons(prober, SOON) == {**SILENT, "tcp": "ok", "icmp": "ok"}
    until_well(prober, *CHECKS.values())


def test_killed(bare_lab: Lab, server: Server, prober: Prober) -> None:
    with all_killed(bare_lab, server):
        assert reasons(prober) == {**REFUSED, **UNREACHABLE, "icmp": "ok"}
    until_well(prober, *CHECKS.values())


@pytest.mark.parametrize("hook", ["input", "output"])
def test_blackholed(server: Server, prober: Prober, hook: str) -> None:
    with firewalled(server, "drop", hook):
        assert reasons(prober, SOON) == SILENT
    assert reasons(prober) == dict.fromkeys(CHECKS, "ok")


FIREWALLS = {
    "reject with tcp reset": "connection refused",
    "reject": "connection refused",
    "reject with icmpx admin-prohibited": "no route to it, it does not answer on its link, or a firewall refuses",
    "reject with icmpx no-route": "no route to it",
    "counter drop": NOTHING,
}


@pytest.mark.parametrize(("verdict", "reason"), FIREWALLS.items(), ids=FIREWALLS)
def test_firewalls(server: Server, prober: Prober, verdict: str, reason: str) -> None:
    """What they say is told."""
    with firewalled(server, f"meta l4proto tcp {verdict}"):
        found = reasons(prober, SOON)
    assert {found[name] for name in ("tcp", "http", "https", "tls", "dns by tcp")} == {reason}
    assert found["udp"] == "ok"
    assert found["icmp"] == "ok"


def test_big_packets_are_lost(server: Server, prober: Prober) -> None:
    """As where the path's MTU is less than both sides believe: a check sees it if its answer is large enough."""
    late = f"http:port={websites.Port.HTTP},path=/late"
    with firewalled(server, "meta length > 1000 drop", "output"):
        small, large = prober.checks([CHECKS["http"], late], SOON)
    assert (small.reason, large.reason) == ("ok", NOTHING)
    assert prober.check(late).ok


def test_tcp(server: Server, prober: Prober) -> None:
    """A connection is all that it wants, whatever comes then, and a queue that is full takes none."""
    for port in oddities.Port:
        if port not in (oddities.Port.FULL, oddities.Port.MUTE):
            assert prober.check(f"tcp:port={port}").ok, port
    assert prober.check(f"tcp:port={oddities.Port.FULL}", SOON).reason == NOTHING
    assert prober.check(f"tcp:port={oddities.Port.MUTE}").reason == "connection refused"


UDP = [
    (f"udp:port={UDP_PORT},payload=hex:00ff,expect=hex:62312000ff", "ok"),
    (f"udp:port={UDP_PORT}", "ok"),
    (f"udp:port={UDP_PORT},payload=hello,expect=pong", "answer begins with b'b1 hello', expected b'pong'"),
    (f"udp:port={UDP_PORT},payload=hello,expect=b1 hello!", "answer begins with b'b1 hello', expected b'b1 hello!'"),
    (f"udp:port={oddities.Port.MUTE}", "ok, nothing came back"),
    (f"udp:port={oddities.Port.MUTE},expect=hello", NOTHING),
    (f"udp:port={oddities.Port.AGENT}", "port unreachable"),
    (f"udp:port={oddities.Port.AGENT},expect=hello", "port unreachable"),
]


@pytest.mark.parametrize(("text", "reason"), UDP)
@pytest.mark.parametrize("version", [4, 6])
def test_udp(server: Server, prober: Prober, text: str, reason: str, version: int) -> None:
    assert prober.check(text, SOON, str(server.address_of(version))).reason == reason


def test_silence_of_a_port_that_was_not_there_a_moment_ago(server: Server, prober: Prober) -> None:
    """Hosts tell of it about once a second: that is no reason to believe in the port meanwhile."""
    server.namespace.sysctl(**dict.fromkeys(TELLING, 1000))
    try:
        found = {prober.check(f"udp:port={oddities.Port.AGENT}", 0.03).reason for _ in range(20)}
    finally:
        server.namespace.sysctl(**TELLING)
    assert found == {"port unreachable", "no answer, and port unreachable a moment ago"}


PINGS = {4: "icmp type echo-request drop", 6: "icmpv6 type echo-request drop"}


@pytest.mark.parametrize("version", [4, 6])
def test_icmp(server: Server, prober: Prober, version: int) -> None:
    address = str(server.address_of(version))
    assert prober.check("icmp", address=address).ok
    with firewalled(server, PINGS[version]):
        assert prober.check("icmp", SOON, address).reason == NOTHING
    assert prober.check("icmp", address=address).ok


NOWHERE = [
    ("10.2.0.99", "fd02::99", "no route to it, it does not answer on its link, or a firewall refuses"),
    ("192.0.2.1", "2001:db8::1", "no route to it"),
]


@pytest.mark.parametrize(("address", "address6", "reason"), NOWHERE, ids=["nobody has it", "no route"])
@pytest.mark.parametrize("kind", ["icmp", "tcp", "http", "udp", "dns:name=a"])
def test_addresses_that_nobody_has(
    bare_lab: Lab, prober: Prober, kind: str, address: str, address6: str, reason: str
) -> None:
    bare_lab.gateway.sysctl(
        **{
            f"net__{family}__neigh__lan__{name}": value
            for family in ("ipv4", "ipv6")
            for name, value in (("mcast_solicit", 1), ("retrans_time_ms", 50))
        }
    )
    bare_lab.gateway.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 0")
    for each in (address, address6):
        assert prober.check(kind, address=each).reason == reason


ADVICE = [
    ("up 75%", True, "ok", "up 75%"),
    ("Drain, maxconn:30 # for a new kernel", True, "ok", "drain"),
    ("down # disk is full", False, "agent says down: disk is full", "down"),
    ("stopped", False, "agent says stopped", "stopped"),
    ("", False, "agent says nothing", None),
    ("well", False, "agent says 'well', which is not known", None),
]


@pytest.mark.parametrize(("line", "ok", "reason", "advice"), ADVICE, ids=[row[0] for row in ADVICE])
def test_agent(
    bare_lab: Lab, server: Server, prober: Prober, line: str, ok: bool, reason: str, advice: str | None
) -> None:
    advise(bare_lab, server, line)
    try:
        result = prober.check(CHECKS["agent"])
        assert (result.ok, result.reason, result.advice) == (ok, reason, advice)
    finally:
        advise(bare_lab, server, "up")


NO_AGENTS = {
    oddities.Port.SILENT: NOTHING,
    oddities.Port.HANGING_UP: "agent says nothing",
    oddities.Port.FULL: NOTHING,
    oddities.Port.DRIPPING: NOTHING,
    websites.Port.HTTP: NOTHING,
}


@pytest.mark.parametrize(("port", "reason"), NO_AGENTS.items())
def test_what_is_no_agent(server: Server, prober: Prober, port: int, reason: str) -> None:
    assert prober.check(f"agent:port={port}", SOON).reason == reason
