"""Answers hold as long as the header of the wal-index is the same, and locks hold all the while."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hashserv.model import MappingKey, Report
from hashserv.store.base import Freshness
from hashserv.store.sqlite import SqliteStore
from hashserv.store.wal_index import WalIndex
from tests.store.databases import make

OPEN = 128
"""The byte of the wal-index on which each process with an open connection has a shared lock. Who
gets it alone takes it that nobody has the file open, and begins with an empty wal-index."""

ADD = "INSERT INTO unihashes_v3 (method, taskhash, unihash, gc_mark) VALUES ('m', 't', 'u', '')"


def wal_index_of(file: Path) -> Path:
    return file.with_name(f"{file.name}-shm")


def taken(file: Path) -> bool:
    """Tell whether another process is kept from the lock."""
    script = f"""
        import fcntl, sys
        with open({str(wal_index_of(file))!r}, "r+b") as index:
            try:
                fcntl.lockf(index, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, {OPEN})
            except OSError:
                sys.exit(3)
    """
    lines = "\n".join(line[8:] for line in script.splitlines())
    return subprocess.run([sys.executable, "-c", lines], check=False).returncode == 3


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "change",
    [
        ADD,
        "UPDATE unihashes_v3 SET unihash = 'u2'",
        "DELETE FROM unihashes_v3",
        "PRAGMA user_version = 7",
        "CREATE TABLE others (id)",
    ],
)
def test_each_commit_of_another_changes_it(tmp_path: Path, change: str) -> None:
    async def check() -> None:
        file = tmp_path / "db"
        store = SqliteStore(str(file), durable=False)
        await store.report([Report("m", "t0", "o", "u")])
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("SELECT * FROM unihashes_v3").fetchall()
            index = WalIndex(str(file))
            before = index.header()
            assert store.freshness() is Freshness.SAME
            other.execute("BEGIN")
            other.execute(change)
            assert index.header() == before
            assert store.freshness() is Freshness.SAME
            other.execute("COMMIT")
            assert index.header() != before
            index.close()
            assert store.freshness() is Freshness.CHANGED
            assert store.freshness() is Freshness.SAME
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            other.execute(change.replace("'t'", "'t2'").replace("others", "more_of_them"))
            assert store.freshness() is Freshness.CHANGED, "although the log began anew"
        await store.close()

    asyncio.run(check())


def test_letting_go_of_it_takes_nobodys_locks_away(tmp_path: Path) -> None:
    file = tmp_path / "db"

    async def check() -> None:
        stores = [SqliteStore(str(file), durable=False) for _ in range(2)]
        with closing(sqlite3.connect(file)) as other:
            other.execute("SELECT * FROM unihashes_v3").fetchall()
            for store in stores:
                assert taken(file)
                await store.close()
            assert taken(file)
        assert not wal_index_of(file).exists()

    asyncio.run(check())


def test_stores_that_come_and_go_leave_nothing_open(tmp_path: Path) -> None:
    async def come_and_go(file: Path, times: int) -> int:
        for _ in range(times):
            store = SqliteStore(str(file), durable=False)
            assert store.freshness() is Freshness.SAME
            await store.close()
        return descriptors()

    file = tmp_path / "db"
    assert asyncio.run(come_and_go(file, 1)) == asyncio.run(come_and_go(file, 20))
    with closing(sqlite3.connect(file)) as other:  # while it is open, the wal-index stays
        other.execute("SELECT * FROM unihashes_v3").fetchall()
        assert asyncio.run(come_and_go(file, 1)) == asyncio.run(come_and_go(file, 20))


def test_a_link_leads_to_the_wal_index_of_the_file(tmp_path: Path) -> None:
    """Not to one beside the link, of a file that was there before."""
    (tmp_path / "far").mkdir()
    file, link = tmp_path / "far" / "db", tmp_path / "db"
    link.symlink_to(file)
    wal_index_of(link).write_bytes(bytes(32768))

    async def check() -> None:
        store = SqliteStore(str(link), durable=False)
        assert await store.report([Report("m", "t0", "o", "u")]) == ["u"]
        assert store.freshness() is Freshness.SAME
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute(ADD)
        assert store.freshness() is Freshness.CHANGED
        await store.close()

    asyncio.run(check())


def test_what_is_left_of_a_wal_index_counts_for_nothing(tmp_path: Path) -> None:
    """A file that is not in WAL mode may have one beside it, of a crash long ago."""

    file = tmp_path / "db"

    async def create() -> None:
        await SqliteStore(str(file), durable=False).close()

    async def check() -> None:
        store = SqliteStore(str(file), writable=False)
        assert await store.lookup([MappingKey("m", "t")]) == [None]
        assert store.freshness() is Freshness.SAME
        make(file, ADD)
        assert store.freshness() is Freshness.CHANGED
        await store.close()

    asyncio.run(create())
    make(file, "PRAGMA journal_mode = DELETE")
    wal_index_of(file).write_bytes(bytes(32768))
    asyncio.run(check())
