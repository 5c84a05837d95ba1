"""What becomes of the server as its database grows: rates, start, memory and file."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Final

from bench import loading, machine, workloads
from bench.generators import Generators
from bench.rounds import FRESH_KEYS
from bench.servers import Hashserv

SIZES: Final = (10_000, 100_000, 1_000_000)
"""Mappings of the databases, usually."""

ALL_SIZES: Final = (*SIZES, 10_000_000)
"""The same, in a full run."""

_COLD_PART: Final = 0.1  # of the look-ups: the disk answers them
_COPIED: Final = 100_000
"""Mappings up to which reports go to a copy, which each round makes: a larger file hardly grows."""

_PIECE: Final = 1 << 20


@dataclass(kw_only=True)
class Grown:
    """What was measured of a database; lists have an item for each round.

    Args:
        mappings: Its size.
    """

    mappings: int
    loading_seconds: float = 0.0
    file_bytes: int = 0
    """Of the file as it was loaded, with its indexes packed."""

    ready_seconds: list[float] = field(default_factory=list)
    """From when the server was started to its first answer."""

    look_ups: list[float] = field(default_factory=list)
    """A second, uncached, with the file in the system's cache."""

    own_bytes: list[int] = field(default_factory=list)
    """The server's own memory after them."""

    cold_look_ups: list[float] = field(default_factory=list)
    """A second, uncached, with nothing of the file in the system's cache."""

    cold_bytes: list[float] = field(default_factory=list)
    """What had to be read from the disk for each of them."""

    reports: list[float] = field(default_factory=list)
    """A second, durable."""

    wrong: int = 0


@dataclass(frozen=True, kw_only=True)
class Filed:
    """A database that began empty, and has what clients reported."""

    tasks: int
    file_bytes: int
    wrong: int

    @property
    def bytes_each(self) -> float:
        """What a task takes."""
        return self.file_bytes / self.tasks


def reported(directory: Path, generators: Generators, tasks: int) -> Filed:
    """Report tasks to an empty database, and see how large its file becomes.

    Args:
        directory: Where the file goes, until it was looked at.
        generators: Report them.
        tasks: How many.
    """
    database = directory / "reported.db"
    load = replace(workloads.pipelined_reports(scale=1), requests=tasks, keys=tasks)
    with Hashserv(database, cache_bytes=0, generators=generators) as server:
        outcome = server.under(load)
    filed = Filed(tasks=tasks, file_bytes=database.stat().st_size, wrong=outcome.wrong)
    database.unlink()
    return filed


class Growth:
    """Measures databases of several sizes in turn, without a cache in the server.

    Args:
        directory: Where their files go.
        generators: Fill them, and put servers under load.
        sizes: How many mappings each has.
        scale: What part of a usual run's requests to make.
    """

    def __init__(
        self, directory: Path, generators: Generators, *, sizes: Sequence[int], scale: float
    ) -> None:
        self._directory = directory
        self._generators = generators
        self._sizes = sizes
        self._scale = scale
        self._reports = replace(workloads.pipelined_reports(scale=scale), offset=FRESH_KEYS)

    def steps(self, rounds: int) -> int:
        """Return how many steps `measure` has."""
        return len(self._sizes) * (1 + 3 * rounds)

    def measure(self, rounds: int) -> Iterator[list[Grown]]:
        """Yield the findings so far, after each step."""
        found: list[Grown] = []
        for mappings in self._sizes:
            found.append(self._load(mappings))
            yield found
        for _ in range(rounds):
            for measure in (self._look_up, self._look_up_cold, self._report):
                for grown in found:
                    measure(grown)
                    yield found

    def _load(self, mappings: int) -> Grown:
        grown = Grown(mappings=mappings)
        start = perf_counter()
        loading.fill_database(self._file(grown), mappings)
        grown.loading_seconds = perf_counter() - start
        grown.file_bytes = self._file(grown).stat().st_size
        return grown

    def _look_up(self, grown: Grown) -> None:
        _read(self._file(grown))
        load = workloads.uncached_look_ups(mappings=grown.mappings, scale=self._scale)
        start = perf_counter()
        with self._server(self._file(grown)) as server:
            with server.connect() as connection:
                grown.wrong += not server.ping(connection)
            grown.ready_seconds.append(perf_counter() - start)
            outcome = server.under(load)
            grown.look_ups.append(outcome.per_second)
            grown.wrong += outcome.wrong
            grown.own_bytes.append(machine.own_bytes(server.pid))

    def _look_up_cold(self, grown: Grown) -> None:
        load = workloads.uncached_look_ups(mappings=grown.mappings, scale=self._scale * _COLD_PART)
        _forget(self._file(grown))
        with self._server(self._file(grown)) as server:
            before = machine.read_bytes(server.pid)
            outcome = server.under(load)
            read = machine.read_bytes(server.pid) - before
        grown.cold_look_ups.append(outcome.per_second)
        grown.cold_bytes.append(read / load.requests)
        grown.wrong += outcome.wrong

    def _report(self, grown: Grown) -> None:
        database = self._file(grown)
        if grown.mappings <= _COPIED:
            database = self._directory / "copied.db"
            loading.copy_database(self._file(grown), database)
        with self._server(database) as server:
            outcome = server.under(self._reports)
        grown.reports.append(outcome.per_second)
        grown.wrong += outcome.wrong
        # In the next round the server may know these.
        offset = self._reports.offset + self._reports.keys
        self._reports = replace(self._reports, offset=offset)

    def _file(self, grown: Grown) -> Path:
        return self._directory / f"{grown.mappings}.db"

    def _server(self, database: Path) -> Hashserv:
        return Hashserv(database, cache_bytes=0, generators=self._generators)


def _read(file: Path) -> None:
    """Have the system's cache hold a file, as far as there is memory."""
    with file.open("rb", buffering=0) as opened:
        while opened.read(_PIECE):
            pass


def _forget(file: Path) -> None:
    """Have the system's cache hold nothing of a file, which no process may have open."""
    loading.write_back(file)  # what is not on the disk stays
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
