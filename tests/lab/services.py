"""More of what servers serve in the lab, for checks to be made of it. All that start something return at once."""

import sys
from pathlib import Path

from l4lb.lab.servers import UDP_PORT
from l4lb.lab.topology import Lab, Server

# In command lines, to tell them apart.
DNS, ECHO, ODDITIES = "dnsmasq", "l4lb.lab.udp_echo", "tests.lab.oddities"

_RECORDS = (
    "local=/example.test/",
    "host-record=www.example.test,192.0.2.1,2001:db8::1",
    "cname=alias.example.test,www.example.test",
    "mx-host=example.test,mail.example.test,10",
    'txt-record=example.test,"v=spf1 -all"',
    *(f"host-record=many.example.test,192.0.2.{number}" for number in range(1, 101)),
    "server=/lost.test/127.0.0.1#9",  # nobody is there, and what was asked is not answered
)


def start_dns(lab: Lab, server: Server) -> None:
    """A DNS server (dnsmasq): it knows example.test, and nothing else."""
    configuration = lab.folder / f"{server.name}-dnsmasq.conf"
    configuration.write_text("\n".join(("no-resolv", "no-hosts", "user=root", "pid-file", *_RECORDS)))
    lab.start(server.namespace, "dnsmasq", "--keep-in-foreground", f"--conf-file={configuration}")


def start_echo(lab: Lab, server: Server) -> None:
    """What answers datagrams with the server's name and themselves."""
    lab.start(server.namespace, sys.executable, "-m", "l4lb.lab.udp_echo", str(UDP_PORT), server.name)


def start_oddities(lab: Lab, server: Server) -> None:
    """Servers that do what they should not, and an agent."""
    advise(lab, server, "up")
    lab.start(server.namespace, sys.executable, "-m", "tests.lab.oddities", str(_advice(lab, server)))


def advise(lab: Lab, server: Server, line: str) -> None:
    """Has the agent say something else."""
    file = _advice(lab, server)
    new = file.with_name(f"{file.name}.new")
    new.write_text(f"{line}\n")
    new.rename(file)


def _advice(lab: Lab, server: Server) -> Path:
    return lab.folder / f"{server.name}-agent"
