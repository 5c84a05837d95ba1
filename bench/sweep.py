"""What reports feel of a collection that removes nearly everything while they come in."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Final

from bench import loading
from bench.generators import METHOD, Generators
from bench.servers import Hashserv
from hashserv import create_client
from hashserv.client import Client

_MARK: Final = "bench"
_KEPT: Final = 10  # mappings that are marked, and so survive
_REPORTS: Final = 500  # before the sweep
_CACHE_BYTES: Final = 64 << 20


@dataclass(kw_only=True)
class Swept:
    """A sweep, and what another client's reports took, one after the other.

    Args:
        mappings: How many the sweep was to remove.
    """

    mappings: int
    seconds: float = 0.0
    """What the sweep took."""

    before: list[float] = field(default_factory=list)
    """Seconds that each report took on the idle server."""

    meanwhile: list[float] = field(default_factory=list)
    """The same during the sweep."""

    wrong: int = 0


def measure(database: Path, generators: Generators, *, mappings: int) -> Swept:
    """Mark a few mappings of a server, sweep the others, and report all the while.

    Args:
        database: A filled file that no server has open. It is copied: a sweep leaves nothing.
        generators: Tell what is in it.
        mappings: How many keys that is.
    """
    copy = database.with_name("swept.db")
    loading.copy_database(database, copy)
    swept = Swept(mappings=mappings - _KEPT)
    numbers = count()
    with (
        Hashserv(copy, cache_bytes=_CACHE_BYTES, generators=generators) as server,
        create_client(server.address) as sweeping,
        create_client(server.address) as reporting,
        ThreadPoolExecutor(1) as executor,
    ):
        for taskhash, _, _ in islice(generators.rows(mappings), _KEPT):
            sweeping.gc_mark(_MARK, {"method": METHOD, "taskhash": taskhash})
        _report(reporting, numbers, swept, swept.before, lambda: len(swept.before) < _REPORTS)
        start = time.perf_counter()
        sweep = executor.submit(sweeping.gc_sweep, _MARK)
        _report(reporting, numbers, swept, swept.meanwhile, lambda: not sweep.done())
        swept.seconds = time.perf_counter() - start
        swept.wrong += sweep.result()["count"] != swept.mappings
    copy.unlink()
    return swept


def _report(
    client: Client,
    numbers: "count[int]",
    swept: Swept,
    delays: list[float],
    going_on: Callable[[], bool],
) -> None:
    """Report new tasks, which a collection keeps, once at least."""
    while True:
        hashed = f"{next(numbers):064x}"
        start = time.perf_counter()
        reply = client.report_unihash(hashed, METHOD, hashed, hashed)
        delays.append(time.perf_counter() - start)
        swept.wrong += reply["unihash"] != hashed
        if not going_on():
            return
