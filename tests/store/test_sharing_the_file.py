"""A file that other programs have in use, or have left in another state."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from hashserv.equivalence.mapping import Equivalences
from hashserv.model import MappingKey, Report
from hashserv.store.sqlite import SqliteStore
from tests.servers import wait_for
from tests.store.databases import make, rows

KEYS = [MappingKey("m", "t0"), MappingKey("m", "t1")]
LOOKUP = b"m t0"


def report_of(taskhash: str) -> Report:
    return Report("m", taskhash, f"o-{taskhash}", "u")


def filled(file: Path) -> Path:
    """Make a file of today's tables with one mapping."""

    async def fill() -> None:
        store = SqliteStore(str(file), durable=False)
        await store.report([report_of("t0")])
        await store.close()

    asyncio.run(fill())
    return file


def out_of_wal(directory: Path) -> Path:
    return make(filled(directory / "db"), "PRAGMA journal_mode = DELETE")


def from_a_backup(directory: Path) -> Path:
    make(filled(directory / "original"), f"VACUUM INTO '{directory / 'db'}'")
    return directory / "db"


NOT_IN_WAL_MODE = pytest.mark.parametrize("left", [out_of_wal, from_a_backup])


@NOT_IN_WAL_MODE
def test_a_file_that_is_not_in_wal_mode_is_put_into_it(
    tmp_path: Path, left: Callable[[Path], Path]
) -> None:
    file = left(tmp_path)
    assert rows(file, "PRAGMA journal_mode") == [("delete",)]

    async def check() -> None:
        store = SqliteStore(str(file), durable=False)
        reader = sqlite3.connect(file, isolation_level=None)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM unihashes_v3").fetchone() == (1,)
        assert await store.report([report_of("t1")]) == ["u"], "readers are in nobody's way"
        assert await store.lookup(KEYS) == ["u", "u"]
        reader.close()
        await store.close()

    asyncio.run(check())
    assert rows(file, "PRAGMA journal_mode") == [("wal",)]


@NOT_IN_WAL_MODE
def test_reading_leaves_the_mode_of_a_file_alone(
    tmp_path: Path, left: Callable[[Path], Path]
) -> None:
    file = left(tmp_path)
    before = file.read_bytes()

    async def check() -> None:
        store = SqliteStore(str(file), writable=False)
        assert await store.lookup(KEYS) == ["u", None]
        await store.close()

    asyncio.run(check())
    assert file.read_bytes() == before


class Interfered(SqliteStore):
    """A store that another process writes to between each commit and its acknowledgement."""

    interfere: Callable[[], None] | None = None

    def before_transaction(self) -> None:
        super().before_transaction()
        if self.interfere is not None:
            # Before the writer's thread can ask the loop to acknowledge anything.
            asyncio.get_running_loop().call_soon(self.interfere)


@pytest.mark.parametrize(
    ("change", "now"),
    [
        ("DELETE FROM unihashes_v3 WHERE taskhash = 't0'", b""),
        ("UPDATE unihashes_v3 SET unihash = 'other' WHERE taskhash = 't0'", b"other"),
    ],
)
def test_what_another_process_changes_before_we_acknowledge_it_is_not_cached(
    tmp_path: Path, change: str, now: bytes
) -> None:
    async def check() -> None:
        store = Interfered(str(tmp_path / "db"), durable=False)
        equivalences = Equivalences(store)
        other = sqlite3.connect(tmp_path / "db", isolation_level=None)

        def interfere() -> None:
            """Keep the loop until the report is committed, then change it."""
            stored = "SELECT 1 FROM unihashes_v3 WHERE taskhash = 't0'"
            wait_for(lambda: other.execute(stored).fetchone())
            other.execute(change)

        store.interfere = interfere
        assert await equivalences.report([report_of("t0")]) == ["u"]
        store.interfere = None
        for _ in range(3):
            await asyncio.sleep(0)  # the cache asks about others once a turn of the loop
            assert equivalences.known_lookups([LOOKUP]) in ([None], [now])
        assert await equivalences.lookup(KEYS[:1]) == [now]
        await asyncio.sleep(0)
        assert equivalences.known_lookups([LOOKUP]) == [now], "the truth is cached"
        other.close()
        await store.close()

    asyncio.run(check())
