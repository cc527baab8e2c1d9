"""Labs for the tests, and a shell in those that fail (``--lab-shell``)."""

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from l4lb.lab.daemon import Daemon
from l4lb.lab.servers import HTTP_PORT, UDP_PORT, start_servers
from l4lb.lab.shell import open_shell
from l4lb.lab.topology import Lab, Layout, lab
from tests.conftest import FAILED
from tests.lab.gateway import CLIENTS, SEGMENT_PORTS, VIP, Gateway
from tests.lab.prober import Prober


def _no_vlans() -> str:
    """Why this machine can make no VLAN; empty if it can."""
    name = f"l4lb-vlan-{secrets.token_hex(3)}"
    subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True)
    words = ["ip", "-netns", name, "link", "add", "link", "lo", "name", "v5", "type", "vlan", "id", "5"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
    return done.stderr.strip()


NO_VLANS = _no_vlans()
collect_ignore = ["test_vlans.py"] if NO_VLANS else []


def pytest_report_header() -> str:
    """Tells what cannot be tested here; packet tests are all there is of it then."""
    return f"not collected: tests/lab/test_vlans.py ({NO_VLANS})" if NO_VLANS else ""


@pytest.fixture(scope="module")
def routed_lab() -> Iterator[Lab]:
    """Backends behind the gateway, serving."""
    with lab(Layout.ROUTED) as made:
        start_servers(made, HTTP_PORT, UDP_PORT)
        yield made


@pytest.fixture(scope="module")
def segment_lab() -> Iterator[Lab]:
    """Backends beside the gateway, serving on the VIPs' ports."""
    with lab(Layout.SEGMENT) as made:
        start_servers(made, *SEGMENT_PORTS)
        yield made


@pytest.fixture(scope="module")
def wide_routed_lab() -> Iterator[Lab]:
    """As `routed_lab`, with six backends and a client of many addresses."""
    with lab(Layout.ROUTED, servers=6) as made:
        start_servers(made, HTTP_PORT, UDP_PORT)
        made.client.ip(*(f"address add {address}/24 dev eth0" for address in CLIENTS))
        yield made


@pytest.fixture(scope="module")
def wide_segment_lab() -> Iterator[Lab]:
    """As `segment_lab`, with six backends that own the VIP."""
    with lab(Layout.SEGMENT, servers=6) as made:
        start_servers(made, *SEGMENT_PORTS)
        made.own_vip(VIP)
        yield made


@pytest.fixture(scope="module")
def bare_lab() -> Iterator[Lab]:
    """One backend behind the gateway, that serves nothing yet."""
    with lab(Layout.ROUTED, servers=1) as made:
        yield made


@pytest.fixture(scope="module")
def prober(bare_lab: Lab) -> Iterator[Prober]:
    """Who makes checks of it."""
    with Prober(bare_lab.gateway, str(bare_lab.servers[0].address)) as made:
        yield made


@pytest.fixture
def routed(routed_lab: Lab, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """A daemon of the test's own in the lab for nat."""
    with _gateway(routed_lab, request) as gateway:
        yield gateway


@pytest.fixture
def segment(segment_lab: Lab, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """A daemon of the test's own in the lab for dsr."""
    with _gateway(segment_lab, request) as gateway:
        yield gateway


@pytest.fixture
def wide(wide_routed_lab: Lab, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """A daemon of the test's own in the wide lab for nat."""
    with _gateway(wide_routed_lab, request) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def wide_running(wide_routed_lab: Lab, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """One for all tests of a module, each with a VIP that it takes away."""
    with _gateway(wide_routed_lab, request) as gateway:
        yield gateway


@pytest.fixture
def wide_segment(wide_segment_lab: Lab, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """A daemon of the test's own in the wide lab for dsr."""
    with _gateway(wide_segment_lab, request) as gateway:
        yield gateway


@contextmanager
def _gateway(made: Lab, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    gateway = Gateway(Daemon(made))
    try:
        yield gateway
    finally:
        if request.node.stash.get(FAILED, False):
            print(gateway.daemon.log.read_text() if gateway.daemon.log.exists() else "no daemon log")
            if request.config.getoption("--lab-shell"):
                _shell(gateway, request)
            else:
                print("`scripts/test --lab-shell -k NAME` opens a shell in the gateway of a test that fails")
        gateway.clean()


def _shell(gateway: Gateway, request: pytest.FixtureRequest) -> None:
    capture = request.config.pluginmanager.getplugin("capturemanager")
    capture.suspend(in_=True)
    print(f"\n{request.node.nodeid} failed. This is the gateway of {gateway.lab.folder.name}; leave by ^D.")
    open_shell(gateway.lab.folder)
    capture.resume()
