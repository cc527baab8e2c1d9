"""Whole configurations as files, while connections are in use: applied, refused, and started with."""

import re
import signal
import textwrap
from typing import Any

import pytest

from l4lb.client import Client
from l4lb.errors import L4lbError
from l4lb.lab.connections import connections
from l4lb.lab.topology import CLIENT_ADDRESS
from l4lb.lab.traffic import going_on
from tests.lab.gateway import VIP, Gateway


def site(backends: str, usual: str = "{interval: 1s, fall: 5}") -> str:
    """A file with a VIP `web` of these of the lab's servers, and another one, of UDP."""
    return textwrap.dedent(f"""\
        x-usual: &usual {usual}
        vips:
        - name: web
          address: {VIP}:80/tcp
          <<: *usual
          backends: {backends}
        - name: echo
          address: {VIP}:53/udp
          backends: [10.2.0.11:5353]
    """)


TWO = site("[10.2.0.11:8080, 10.2.0.12:8080]")
THREE = site(
    "[{address: 10.2.0.11:8080, weight: 3}, 10.2.0.12:8080, 10.2.0.13:8080]",
    "{checks: 'tcp', interval: 100ms}",
)


class Files:
    """A gateway with a file, which the tests rewrite."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.path = gateway.lab.folder / "site.yaml"

    def said(self, command: str, text: str, status: int = 0) -> list[str]:
        """What a command says of a file with this text."""
        self.path.write_text(text)
        done = self.gateway.daemon.cli(command, str(self.path), check=False)
        assert done.returncode == status, done
        return (done.stdout or done.stderr).splitlines()

    def export(self) -> str:
        return self.gateway.daemon.cli("export").stdout


@pytest.fixture
def files(routed: Gateway) -> Files:
    return Files(routed)


def test_applied_under_traffic(files: Files) -> None:
    """No connection is lost, none moves and none fails while what it needs not to change changes around it."""
    gateway = files.gateway
    gateway.daemon.start()
    said = files.said("apply", TWO)
    assert len(said) == 5, said
    another = THREE.replace("interval:", "mss: 1400, interval:")  # which needs another program, too
    with (
        connections(gateway.lab.client, VIP, 80, 200) as in_use,
        going_on(gateway.lab.client, "http", str(VIP), 80, 500, seconds=1.5) as outcome,
    ):
        expected = files.said("diff", another, status=1)
        assert files.said("apply", another) == expected
        assert files.said("apply", another.replace("- name: echo", "- name: renamed")) == [
            f"- vip echo {VIP}:53/udp (its only backend)",
            f"+ vip renamed {VIP}:53/udp",
            "+ backend 10.2.0.11:5353 of VIP renamed",
        ]
        after = gateway.http(100)
        fates = in_use.report()
    assert [fate.error for fate in fates if fate.error] == []
    assert {fate.backend for fate in fates} == {"b1", "b2"}
    assert (outcome.failures, outcome.total, after.failures) == ([], 500, [])
    assert after.answers.keys() == {"b1", "b2", "b3"}, "new ones go where the new file says"
    assert gateway.udp(20).answers == {"b1": 20}
    exported = files.export()
    assert files.said("apply", exported) == []
    assert files.export() == exported


def test_a_bad_file_changes_nothing(files: Files) -> None:
    gateway = files.gateway
    gateway.daemon.start()
    files.said("apply", TWO)
    before, state = files.export(), gateway.daemon.state.read_bytes()
    wrong = TWO.replace("8080]", "8080, 10.2.0.300:8080]").replace("- name: echo", "- name: echo\n  mode: fly")
    said = files.said("apply", wrong, status=2)
    assert [re.sub(r".*site\.yaml", "", line)[:26] for line in said] == [
        ":6: vips[0].backends[2]: '",
        ":8: vips[1].mode 'fly' is ",
    ]
    assert (files.export(), gateway.daemon.state.read_bytes()) == (before, state)
    assert gateway.http(20).failures == []


def test_started_with_a_file(files: Files) -> None:
    """Instead of what was saved, and with the connections that there are; a bad one keeps it from starting."""
    gateway = files.gateway
    gateway.daemon.start()
    files.said("apply", TWO)
    with connections(gateway.lab.client, VIP, 80, 100) as in_use:
        gateway.daemon.end(signal.SIGKILL)
        files.path.write_text(THREE.replace("interval", "intervall"))
        state = gateway.daemon.state.read_bytes()
        with pytest.raises(L4lbError, match=r"site\.yaml:1: vips\[0\]\.intervall is not known: did you mean interval"):
            gateway.daemon.start("--config", str(files.path))
        assert gateway.daemon.state.read_bytes() == state
        assert gateway.http(20).failures == [], "forwarding goes on"
        files.path.write_text(THREE)
        gateway.daemon.start("--config", str(files.path))
        assert files.said("diff", THREE) == []
        fates = in_use.report()
    assert [fate.error for fate in fates if fate.error] == []
    assert "not as it was saved: + backend 10.2.0.13:8080 of VIP web" in gateway.daemon.log.read_text()
    gateway.daemon.end(signal.SIGTERM)
    gateway.daemon.start()
    assert files.said("diff", THREE) == [], "and it was saved"


def test_another_seed(files: Files) -> None:
    """From then on the program chooses by it, as the tables do."""
    gateway = files.gateway
    gateway.daemon.start()
    files.said("apply", THREE)
    assert files.said("apply", f"seed: 8\n{THREE}") == ["~ seed: 0 -> 8 (flows may move to other backends)"]
    client = Client(gateway.daemon.socket)
    for port in range(41_000, 41_008):
        end = f"{CLIENT_ADDRESS}:{port}"
        explained: Any = client.call("explain", protocol="tcp", client=end, service=f"{VIP}:80", begins=True)
        answered = gateway.curl("--local-port", str(port), f"http://{VIP}/").stdout.strip()
        assert explained["backend"] == f"10.2.0.1{answered.removeprefix('b')}:8080"
