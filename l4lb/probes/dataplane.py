"""What a backend makes of packets that come to it as clients' do: to the VIP's address, by the way of its mode.

A handshake is begun and taken back as soon as it is answered, so the service never hears of it. A datagram has to be
answered: a backend that has lost the VIP says nothing either.
"""

import asyncio
import contextlib
import os

from l4lb.health.check import Check
from l4lb.health.values import payload_bytes
from l4lb.probes.packets import ACK, RST, SYN, TCP, UDP, Answer, Complaint, Heard, datagram, segment
from l4lb.probes.target import NoWay, Target, Unwell, Way
from l4lb.probes.udp import judge
from l4lb.probes.wire import Line

_AGAIN_SECONDS = 1.0  # as the kernel sends a SYN again


async def probe(check: Check, target: Target) -> None:
    """Makes a check of kind tcp or udp by way of the dataplane."""
    if isinstance(target.way, NoWay):
        raise Unwell(target.way.reason)
    assert target.way is not None
    if check.kind == "tcp":
        await _shake_hands(target, target.way)
    else:
        await _ask(check, target, target.way)


async def _shake_hands(target: Target, way: Way) -> None:
    sequence = int.from_bytes(os.urandom(4))
    after = (sequence + 1) % 2**32
    with Line(target, way, TCP) as line:
        syn = segment(line.ends, SYN, sequence)
        try:
            while True:
                line.send(syn)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN_SECONDS):
                        while True:
                            if _is_answer(await line.hear(), sequence, target):
                                return
        finally:
            line.send(segment(line.ends, RST, after))  # also for an answer that nobody waits for any more


def _is_answer(found: Heard, sequence: int, target: Target) -> bool:
    """Whether it is one to this SYN, and a good one.

    Raises:
        Unwell: it is a bad one.
    """
    if isinstance(found, Complaint):
        if found.sequence == sequence:
            raise _unwell(found, target)
        return False
    if not found.flags & ACK or found.acknowledged != (sequence + 1) % 2**32:
        return False
    if found.flags & RST:
        raise Unwell("connection refused")
    return bool(found.flags & SYN)


async def _ask(check: Check, target: Target, way: Way) -> None:
    with Line(target, way, UDP) as line:
        line.send(datagram(line.ends, payload_bytes(check.get("payload"))))
        found = await line.hear()
    if isinstance(found, Complaint):
        raise _unwell(found, target)
    assert isinstance(found, Answer)
    judge(check, found.payload)


def _unwell(found: Complaint, target: Target) -> Unwell:
    """What an ICMP error means for the backend."""
    reason = found.words
    if found.takes_no_tunnel:
        reason = f"it takes no packets out of their outer header ({found.words})"
    elif found.sends_it_on:
        reason = f"it sends on what is for the VIP ({found.words})"
    teller = str(found.teller)
    return Unwell(reason if teller in (target.address, target.vip_address) else f"{reason}, says {teller}")
