"""What others feel of one greedy client: the delay of their pings, and the server's memory."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from bench import loading, machine
from bench.generators import METHOD, Generators, Load
from bench.servers import Hashserv

STREAMING: Final = "ping, 1 client streams look-ups"
NEVER_READING: Final = "ping, 1 client never reads"

_PAUSE_SECONDS: Final = 0.002  # between pings, so that they meet the load at all its moments
_IN_FLIGHT: Final = 50_000  # more than a build asks for in one burst
_RECEIVE_BUFFER: Final = 64 * 1024

_Going = Callable[[], bool]
"""Tells whether a greedy client has not come to its end, and pings go on."""


@dataclass(kw_only=True)
class Greed:
    """A client's doing, and what of it others felt."""

    name: str
    delays: list[float] = field(default_factory=list)
    """Seconds that each ping took."""

    growth: int = 0
    """Bytes by which the server's memory exceeded, at its most, what it was before."""

    wrong: int = 0


def quantile(delays: Sequence[float], part: float) -> float:
    """Return the delay that this part of all did not exceed."""
    return sorted(delays)[round(part * (len(delays) - 1))]


class Fairness:
    """Measures pings beside greedy clients.

    Args:
        server: Ours, without a cache, whose growth would be counted.
        generators: The generators.
        mappings: How many keys the server has.
        look_ups: How many the greedy client makes.
        pings: How many to make meanwhile, at least.
    """

    def __init__(
        self,
        server: Hashserv,
        generators: Generators,
        *,
        mappings: int,
        look_ups: int,
        pings: int,
    ) -> None:
        self._server = server
        self._generators = generators
        self._mappings = mappings
        self._look_ups = look_ups
        self._pings = pings

    def measure(self) -> Iterator[list[Greed]]:
        """Yield what others feel of nobody, of one who streams, and of one who never reads."""
        found = [self._felt("ping, idle server", lambda _: nullcontext(_never))]
        yield found
        found.append(self._felt(STREAMING, self._streaming))
        yield found
        found.append(self._felt(NEVER_READING, self._never_reading))
        yield found

    def _felt(self, name: str, doing: Callable[[Greed], AbstractContextManager[_Going]]) -> Greed:
        greed = Greed(name=name)
        before = machine.own_bytes(self._server.pid)
        with self._server.connect() as connection, doing(greed) as going_on:
            while len(greed.delays) < self._pings or going_on():
                start = time.perf_counter()
                greed.wrong += not self._server.ping(connection)
                greed.delays.append(time.perf_counter() - start)
                greed.growth = max(greed.growth, machine.own_bytes(self._server.pid) - before)
                time.sleep(_PAUSE_SECONDS)
        return greed

    @contextmanager
    def _streaming(self, greed: Greed) -> Iterator[_Going]:
        load = Load(
            mode="get",
            requests=self._look_ups,
            depth=_IN_FLIGHT,
            unknown=50,
            keys=self._mappings,
        )
        with ThreadPoolExecutor(1) as executor:
            outcome = executor.submit(self._server.under, load)
            yield lambda: not outcome.done()
            greed.wrong += outcome.result().wrong

    @contextmanager
    def _never_reading(self, _: Greed) -> Iterator[_Going]:
        rows = islice(self._generators.rows(self._mappings), self._look_ups)
        lines = "".join(f"{METHOD} {row[0]}\n" for row in rows).encode()
        repeats = max(1, self._look_ups // self._mappings)

        def send() -> None:
            with contextlib.suppress(OSError):  # ends when the connection is shut down
                for _ in range(repeats):
                    connection.sendall(lines)

        with ThreadPoolExecutor(1) as executor, self._server.connect() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            loading.begin_stream(connection, "get")
            executor.submit(send)
            try:
                yield _never
            finally:
                connection.shutdown(socket.SHUT_RDWR)


def _never() -> bool:
    return False
