"""What the scheduler of a VIP gives a packet, from the tables and records that are in the maps."""

from collections import Counter
from collections.abc import Callable

from l4lb.balance.explain import Flow, Why, explain
from l4lb.balance.flowhash import Constants, flow_hash64, flow_tag
from l4lb.balance.slots import Table
from l4lb.datapath.explain import network_of
from l4lb.lab.testbed import Testbed
from l4lb.model import Config, Endpoint, Protocol, Scheduler, Vip
from tests.fuzz.maps import tick

_BY_CHANCE = (Why.ROUND_ROBIN, Why.LEAST_CONNECTIONS, Why.RANDOM)


def chosen_because(why: Why) -> str:
    """What a choice is called in the coverage."""
    return f"chosen: {why.replace('_', ' ')}"


class Choice:
    """The schedulers of a configuration that the maps hold.

    Args:
        run: lets the program have the packet.
        coverage: counts why backends were chosen.
    """

    def __init__(
        self, bed: Testbed, config: Config, constants: Constants, run: Callable[[], object], coverage: Counter[str]
    ) -> None:
        self._bed = bed
        self._constants = constants
        self._run = run
        self._coverage = coverage
        numbers = {record.service: number for number, record in bed.image.vips.items()}
        self.numbers = {vip.name: numbers[vip.service] for vip in config.vips}
        self._tables: dict[int, Table] = {}
        self._learning: dict[int, int] = {}
        for number, table in bed.image.tables.items():
            if table.region.slots:
                self._tables[number] = bed.maps.read_table(table.region)
                self._learning[number] = bed.maps.learning_until(table.region)

    def __call__(self, vip: Vip, client: Endpoint, port: int, protocol: Protocol, begins: bool) -> Endpoint | None:
        """The backend. Where chance or turns decide, the program has to, and its record tells what it was."""
        number = self.numbers[vip.name]
        table = self._tables.get(number)
        if table is None:
            self._coverage[chosen_because(Why.NO_BACKEND)] += 1
            return None
        hash64 = slot_hash = flow_hash64(client, port, self._constants)
        if vip.scheduler is Scheduler.SOURCE_HASH:
            network = network_of(client.address, self._bed.image.vip_settings[number].client_bits)
            slot_hash = flow_hash64(Endpoint(network, 0), 0, self._constants)
        record = self._record(number, hash64)
        # An error about a datagram begins nothing, as a TCP segment that is no SYN does not.
        as_tcp = protocol is Protocol.TCP or not begins
        flow = Flow(
            slot_hash >> 32,
            Protocol.TCP if as_tcp else Protocol.UDP,
            begins and protocol is Protocol.TCP,
            record,
            self._learning[number] > tick(),
        )
        found = explain(table, vip.scheduler, flow)
        self._coverage[chosen_because(found.why)] += 1
        chosen = found.backend
        if found.why in _BY_CHANCE:
            self._run()
            chosen = self._record(number, hash64)
            weights = {backend.endpoint: backend.weight for backend in vip.backends}
            if chosen is not None and chosen != record and not weights[self._bed.image.backends[chosen].endpoint]:
                return None  # who gets no flows got one
        return self._bed.image.backends[chosen].endpoint if chosen is not None else None

    def _record(self, vip: int, hash64: int) -> int | None:
        settings = self._bed.image.vip_settings[vip]
        return self._bed.maps.record(flow_tag(hash64, vip, self._constants), vip, tick(), settings.idle_ticks)
