"""Ours on PostgreSQL beside ours on SQLite, and what a copy from the one to the other takes."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import loading
from bench.generators import Generators
from bench.rounds import Rates, Rounds
from bench.servers import Hashserv
from bench.workloads import on_postgresql
from tests.sql_servers import Postgres

_SETTINGS: Final = (
    *("fsync = on", "shared_buffers = 3GB", "max_wal_size = 8GB"),
    "synchronous_commit = on",
)


@dataclass(kw_only=True)
class Engines:
    """What was measured."""

    rows: int = 0
    """How many were copied, of both tables: what was loaded, and what was reported since."""

    seconds: float = 0.0
    """What the copy took, without its check of every row."""

    rates: list[Rates] = field(default_factory=list)
    """PostgreSQL's, and in the place of Redis SQLite's."""

    wrong_when_warming: int = 0

    @property
    def wrong(self) -> int:
        """How many replies were wrong."""
        return self.wrong_when_warming + sum(row.wrong for row in self.rates)


class Comparison:
    """Measures both engines with the same rows, in turn.

    Args:
        database: The SQLite file, filled; PostgreSQL's files go beside it.
        generators: Put servers under load, and tell what is in the database.
        mappings: How many keys that is.
        cache_bytes: The cache for the rows that are cached.
        scale: What part of a usual run's requests to make.
    """

    def __init__(
        self,
        database: Path,
        generators: Generators,
        *,
        mappings: int,
        cache_bytes: int,
        scale: float,
    ) -> None:
        self._database = database
        self._generators = generators
        self._mappings = mappings
        self._cache_bytes = cache_bytes
        self._workloads = on_postgresql(mappings=mappings, scale=scale)
        self._found = Engines()

    @property
    def steps(self) -> int:
        """How many workloads there are, each with all rounds."""
        return len(self._workloads)

    def measure(self, rounds: Rounds) -> Iterator[Engines]:
        """Yield the findings so far, after each step."""
        with self._postgres() as server:
            server.execute("CREATE DATABASE bench")
            url = server.url("bench")
            self._copy(url)
            server.execute("VACUUM ANALYZE; CHECKPOINT", "bench")
            yield self._found
            for cached in (False, True):
                with self._server(cached, url) as ours, self._server(cached, None) as beside:
                    if cached:
                        for each in (ours, beside):
                            rows = self._generators.rows(self._mappings)
                            self._found.wrong_when_warming += loading.warm(each, rows)
                    for workload in self._workloads:
                        if workload.rehearsed is cached:
                            self._found.rates.append(rounds.measure(workload, ours, beside))
                            yield self._found

    def _copy(self, url: str) -> None:
        command = [sys.executable, "-m", "hashserv.cli.main", "copy", str(self._database), url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        told = re.search(r"(\d+) rows copied in ([\d.]+) s", done.stdout)
        if done.returncode or told is None:
            raise RuntimeError(f"the copy failed: {done.stdout}{done.stderr}")
        self._found.rows = int(told[1])
        self._found.seconds = max(0.1, float(told[2]))

    def _server(self, cached: bool, url: str | None) -> Hashserv:  # noqa: FBT001 - one of the rows
        return Hashserv(
            self._database,
            url=url,
            cache_bytes=self._cache_bytes if cached else 0,
            generators=self._generators,
        )

    @contextmanager
    def _postgres(self) -> Iterator[Postgres]:
        directory = self._database.parent / "postgres"
        directory.mkdir()
        for part in (directory, *directory.parents[:2]):  # its user must get there
            part.chmod(part.stat().st_mode | 0o011)
        server = Postgres(directory, settings=_SETTINGS)
        try:
            yield server
        finally:
            server.stop()
