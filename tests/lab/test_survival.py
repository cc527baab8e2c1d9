"""Traffic while things change: backends, their addresses, and the daemon, which may be killed at any moment."""

import re
import signal
import subprocess
import time

from l4lb.lab.prediction import unexplained
from l4lb.lab.servers import BIG_FILE_BYTES
from l4lb.lab.topology import CLIENT_ADDRESS
from l4lb.lab.traffic import CONCURRENCY, going_on
from tests.lab.gateway import VIP, Gateway

SEED = 7


def test_backend_removed_and_added(routed: Gateway) -> None:
    """Of 2,000 short requests none fails but those in flight at the backend that is removed."""
    routed.daemon.start("--seed", str(SEED))
    routed.add_vip("web", f"{VIP}:80/tcp")
    backends = [f"{server.address}:8080" for server in routed.lab.servers]
    with going_on(routed.lab.client, "http", str(VIP), 80, 2000, seconds=1.5) as outcome:
        time.sleep(0.2)
        routed.daemon.cli("backend", "remove", "web", backends[1])
        routed.daemon.cli("backend", "add", "web", backends[1])
    assert outcome.total == 2000
    assert all(outcome.answers[name] > 400 for name in ("b1", "b2", "b3"))
    assert routed.backend(routed.daemon.status(), "web", 1)["packets"] > 0, "it was added while requests went on"
    assert unexplained(outcome, backends, backends[1], CLIENT_ADDRESS, 80, SEED) == []
    assert len(outcome.failures) <= CONCURRENCY, "no more than were in flight when it was removed"


def test_daemon_killed_during_a_download(routed: Gateway) -> None:
    """100 MB arrive though the daemon is killed in the middle; new connections work, too, while there is none."""
    routed.daemon.start()
    routed.add_vip("web", f"{VIP}:80/tcp")
    with routed.lab.client.start(
        *("curl", "--silent", "--limit-rate", "50M", "--output", "/dev/null"),
        *("--write-out", "%{http_code} %{size_download}", f"http://{VIP}/big"),
        output=subprocess.PIPE,
    ) as download:
        time.sleep(0.3)
        assert download.poll() is None
        routed.daemon.end(signal.SIGKILL)
        outcome = routed.http(300)
        assert download.poll() is None, "the download was too quick to tell"
        assert (outcome.answers.total(), outcome.failures) == (300, [])
        assert download.communicate(timeout=60)[0].decode() == f"200 {BIG_FILE_BYTES}"


def test_restart_after_a_kill(routed: Gateway) -> None:
    """What was acknowledged, the counters and running flows are there again after kill -9 and a start."""
    routed.daemon.start()
    routed.add_vip("web", f"{VIP}:80/tcp")
    routed.daemon.cli("backend", "set", "web", f"{routed.lab.servers[0].address}:8080", "--weight", "0")
    routed.http(50)
    with routed.lab.client.start(
        *("curl", "--silent", "--limit-rate", "50M", "--output", "/dev/null", "--write-out", "%{size_download}"),
        f"http://{VIP}/big",
        output=subprocess.PIPE,
    ) as download:
        time.sleep(0.2)
        routed.daemon.end(signal.SIGKILL)
        routed.daemon.start()
        assert download.poll() is None, "the download was too quick to tell"
        assert download.communicate(timeout=60)[0].decode() == str(BIG_FILE_BYTES)
    vip = routed.daemon.status()["vips"][0]
    assert [backend["weight"] for backend in vip["backends"]] == [0, 1, 1]
    assert vip["bytes_back"] > BIG_FILE_BYTES, "counters went on and were kept"
    after = routed.http(50)
    assert (after.answers.keys(), after.failures) == ({"b2", "b3"}, [])


def test_backend_gets_another_mac(routed: Gateway) -> None:
    """A server whose network card is replaced goes on getting its traffic as soon as it tells its new address."""
    routed.daemon.start()
    routed.add_vip("web", f"{VIP}:80/tcp", servers=range(1))
    assert routed.http(10).answers.total() == 10
    server = routed.lab.servers[0]
    mac = "02:00:00:00:99:01"
    server.namespace.sysctl(net__ipv4__conf__eth0__arp_notify=1)
    server.namespace.ip(f"link set eth0 address {mac}")
    routed.until(lambda: mac in routed.backend(routed.daemon.status(), "web", 0)["next_hop"])
    outcome = routed.http(20)
    assert (outcome.answers, outcome.failures) == ({"b1": 20}, [])


def test_backend_that_never_answers_arp(routed: Gateway) -> None:
    """Packets for a backend whose MAC address is not known yet are counted under a reason of their own."""
    routed.daemon.start()
    routed.daemon.cli("vip", "add", "web", f"{VIP}:80/tcp")
    routed.daemon.cli("backend", "add", "web", "10.2.0.99:8080")
    assert routed.curl("--max-time", "1", f"http://{VIP}/", check=False).returncode == 28
    status = routed.daemon.status()
    assert re.search("unresolved", routed.backend_at(status, "web", "10.2.0.99")["next_hop"])
    assert status["reasons"]["drop_no_next_hop"] > 0
