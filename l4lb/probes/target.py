"""What a probe is made to, and how it says that something is wrong there."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A backend, and the VIP that it serves.

    Attributes:
        address: of the backend, as IP addresses are written; never a name.
        port: to be probed; 0 if there is none.
        vip_port: the first one of the VIP.
        protocol: of the VIP: ``tcp`` or ``udp``.
    """

    address: str
    port: int
    vip_address: str
    vip_port: int
    protocol: str
    vip_name: str


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
