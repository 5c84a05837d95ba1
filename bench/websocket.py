"""What WebSocket frames cost: look-ups of one server over ``ws://``, and beside it over TCP."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.generators import Generators
from bench.rounds import Rates
from bench.servers import Hashserv
from bench.workloads import Workload

_CACHE_BYTES: Final = 256 << 20
_BINDS: Final = ("127.0.0.1:0", "ws://127.0.0.1:0")


def measure(
    workload: Workload, database: Path, generators: Generators, *, rounds: int
) -> Iterator[Rates]:
    """Yield the rates so far, after each round.

    Args:
        workload: What is done over WebSockets.
        database: The server's, filled.
        generators: Put it under load.
        rounds: How often, over each transport in turn.
    """
    rates = Rates(workload=workload)
    plain = replace(workload.load, websocket=False)
    with Hashserv(
        database, cache_bytes=_CACHE_BYTES, generators=generators, binds=_BINDS
    ) as server:
        address = server.addresses[1].removeprefix("ws://")
        rates.wrong += server.under(plain).wrong
        for _ in range(rounds):
            over_tcp = server.under(plain)
            framed = generators.run(generators.loadgen, address, workload.load)
            rates.ours.append(framed.per_second)
            rates.redis.append(over_tcp.per_second)
            rates.wrong += over_tcp.wrong + framed.wrong
            yield rates
