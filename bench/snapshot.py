"""What a copy of all mappings takes, and what clients of the copying server feel of it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from bench.generators import METHOD, Generators
from bench.servers import Hashserv
from hashserv import create_client
from hashserv.client import Client

_CACHE_BYTES: Final = 64 << 20
_LOOK_UPS: Final = 500  # before the copy
_PAUSE_SECONDS: Final = 0.002
_LOOK_AT: Final = 10  # look-ups between two questions whether all is copied
_PATIENCE_SECONDS: Final = 600.0


@dataclass(kw_only=True)
class Copied:
    """Copies of all mappings, one in each round.

    Args:
        mappings: How many there are.
    """

    mappings: int
    seconds: list[float] = field(default_factory=list)
    """Of each round, from when the server serves until all is there."""

    before: list[float] = field(default_factory=list)
    """Seconds that each look-up of a client took at a server that does not copy."""

    meanwhile: list[float] = field(default_factory=list)
    """The same at the one that copies."""

    wrong: int = 0

    @property
    def rates(self) -> list[float]:
        """How many mappings were copied in a second, of each round."""
        return [self.mappings / seconds for seconds in self.seconds]


class Copying:
    """Measures servers that copy all mappings of another one on the same machine.

    Args:
        database: The upstream's, filled; the others' go beside it.
        generators: Tell what is in it.
        mappings: How many keys that is.
    """

    def __init__(self, database: Path, generators: Generators, *, mappings: int) -> None:
        self._database = database
        self._generators = generators
        self._mappings = mappings
        self._known = [*islice(generators.rows(mappings), _LOOK_UPS)]

    def measure(self, rounds: int) -> Iterator[Copied]:
        """Yield the findings so far, after each round."""
        copied = Copied(mappings=self._mappings)
        with self._server(self._database) as upstream:
            for number in range(rounds):
                self._measure_once(upstream, self._database.with_name(f"copying-{number}"), copied)
                yield copied

    def _measure_once(self, upstream: Hashserv, place: Path, copied: Copied) -> None:
        database = place.with_suffix(".db")
        flags = ["--upstream", upstream.address]
        with self._server(database, *flags) as server, create_client(server.address) as client:
            for taskhash, _, unihash in self._known:
                copied.wrong += client.get_unihash(METHOD, taskhash) != unihash
            client.backfill_wait()
            left = iter(range(_LOOK_UPS))
            self._look_up(client, copied.before, copied, lambda: next(left, None) is not None)
        flags += ["--upstream-snapshot", str(place.with_suffix(".snapshot"))]
        with (
            self._server(database, *flags) as server,
            create_client(server.address) as client,
            create_client(server.address) as asking,
        ):
            start = time.perf_counter()
            self._look_up(
                client,
                copied.meanwhile,
                copied,
                lambda: bool(len(copied.meanwhile) % _LOOK_AT) or not _is_copied(asking, start),
            )
            copied.seconds.append(time.perf_counter() - start)
            copied.wrong += _snapshot(asking)["mappings"] < self._mappings

    def _look_up(
        self, client: Client, delays: list[float], copied: Copied, going_on: Callable[[], bool]
    ) -> None:
        """Look up what the server knows, one task after the other."""
        while going_on():
            taskhash, _, unihash = self._known[len(delays) % len(self._known)]
            start = time.perf_counter()
            copied.wrong += client.get_unihash(METHOD, taskhash) != unihash
            delays.append(time.perf_counter() - start)
            time.sleep(_PAUSE_SECONDS)

    def _server(self, database: Path, *more: str) -> Hashserv:
        return Hashserv(database, cache_bytes=_CACHE_BYTES, generators=self._generators, more=more)


def _snapshot(client: Client) -> dict[str, Any]:
    snapshot: dict[str, Any] = client.get_stats()["upstream"]["snapshot"]
    return snapshot


def _is_copied(client: Client, start: float) -> bool:
    if time.perf_counter() - start > _PATIENCE_SECONDS:
        raise RuntimeError("the copy does not come to its end")
    return bool(_snapshot(client)["state"] == "following")
