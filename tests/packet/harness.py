"""The real program, loaded and configured as the daemon does it, and run on single packets."""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from l4lb.datapath import bpf, programs
from l4lb.datapath.layout import balancer_source
from l4lb.datapath.maps import Maps
from l4lb.model import Config, IPAddress, Mode
from l4lb.plan.limits import Limits
from l4lb.plan.planner import make_plan
from l4lb.view import Traffic
from tests.packet.world import GATEWAY_MAC

LIMITS = Limits(max_vips=64, max_backends=512, max_interfaces=64, index_lines=64, slot_lines=16_384, route_lines=64)
SEED = 7

XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT = 1, 2, 3, 4
VERDICTS = {"drop": XDP_DROP, "pass": XDP_PASS, "tx": XDP_TX, "redirect": XDP_REDIRECT}

LOOPBACK = 1  # packets of a test run come in by the loopback interface


@dataclass(frozen=True)
class Outcome:
    """What became of one packet."""

    verdict: int
    packet: bytes
    reasons: Mapping[str, int]
    traffic: Mapping[str, Traffic]  # by backend


class Harness:
    """One loaded program with its maps.

    `next_hops` are (interface index, MAC) by backend address; backends without one stay unresolved.
    """

    def __init__(self, pins: Path, modes: tuple[Mode, ...] = tuple(Mode)) -> None:
        self.pins = pins
        maps = pins / "maps"
        maps.mkdir()
        asyncio.run(programs.ensure(balancer_source(modes, SEED, maps, LIMITS), pins / "program"))
        self.program = bpf.open_pin(pins / "program")
        self.maps = Maps(maps, LIMITS)
        self.image = self.maps.read_image()
        self.maps.set_port(LOOPBACK, mac(GATEWAY_MAC), 1500)
        self.wan = socket.if_nametoindex("wan")
        self.own_wan()

    def own_wan(self) -> None:
        """Makes the interface towards the clients one that packets may leave by."""
        self.maps.set_port(self.wan, mac(GATEWAY_MAC), 1500)

    def configure(self, config: Config, next_hops: Mapping[IPAddress, tuple[int, str]]) -> None:
        """Makes the maps hold `config`."""
        plan = make_plan(config, self.image, LIMITS)
        for operation in plan.operations:
            self.maps.apply(operation)
        self.image = plan.image
        for number, record in self.image.backends.items():
            ifindex, address = next_hops.get(record.endpoint.address, (0, "00:00:00:00:00:00"))
            self.maps.set_next_hop(number, ifindex, mac(address))

    def send(self, packet: bytes) -> bpf.PacketRun:
        """Runs the program once."""
        return bpf.run_on_packet(self.program, packet)

    def run(self, packet: bytes) -> Outcome:
        """Runs the program once; its counters are those of this packet alone."""
        reasons, traffic = self.maps.reasons(), self._traffic()
        answer = self.send(packet)
        return Outcome(
            answer.verdict,
            answer.packet,
            {name: count - reasons[name] for name, count in self.maps.reasons().items() if count != reasons[name]},
            {
                backend: Traffic(*(getattr(now, f) - getattr(traffic[backend], f) for f in Traffic.__slots__))
                for backend, now in self._traffic().items()
                if now != traffic[backend]
            },
        )

    def _traffic(self) -> dict[str, Traffic]:
        return {
            f"{self.image.vips[record.vip].endpoint} {record.endpoint}": self.maps.traffic(number)
            for number, record in self.image.backends.items()
        }


def mac(text: str) -> bytes:
    """Six bytes of a MAC address."""
    return bytes.fromhex(text.replace(":", ""))
