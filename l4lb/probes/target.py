"""What a probe is made to, and how it says that something is wrong there."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Way:
    """How packets leave for a backend by way of the dataplane.

    Attributes:
        interface: its name; a VLAN's own, where it is one.
        mac: of the next hop, 6 bytes.
        source: the gateway's own address of the VIP's family, which the backend answers to.
        mode: of the VIP: ``dsr``, ``ipip`` or ``gue``.
        outer_source: of the outer header; empty where there is none.
        gue_port: UDP port that the backend takes tunnelled packets at.
    """

    interface: str
    mac: bytes
    source: str
    mode: str
    outer_source: str
    gue_port: int


@dataclass(frozen=True, slots=True)
class NoWay:
    """That there is none, and why, for a person."""

    reason: str


@dataclass(frozen=True, slots=True)
class Target:
    """A backend, and the VIP that it serves.

    Attributes:
        address: of the backend, as IP addresses are written; never a name.
        port: to be probed; 0 if there is none.
        vip_port: the first one of the VIP.
        protocol: of the VIP: ``tcp`` or ``udp``.
        way: by which probes go to the VIP's address at this backend; None where they go to the backend's own address.
    """

    address: str
    port: int
    vip_address: str
    vip_port: int
    protocol: str
    vip_name: str
    way: Way | NoWay | None = None


class Unwell(Exception):  # noqa: N818 - it is no error of ours that the backend is not well
    """The backend is not well.

    Attributes:
        reason: for a person, in a few words.
        advice: what an agent said, whatever else.
    """

    def __init__(self, reason: str, advice: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice
