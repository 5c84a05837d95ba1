"""The write-ahead log, and closing, while others hold on to the file or work takes long."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from hashserv.errors import StoreError
from hashserv.model import Mapping, MappingKey, Report
from hashserv.store import checkpoint, sqlite_file, statements, transactions
from hashserv.store.sqlite import SqliteStore
from tests.store.databases import rows

MIB = 1024 * 1024
GUARD_SECONDS = 30
"""A report that waits for as long as this waits for ever."""

LARGE = "x" * 20_000

SOME_NUMBERS = """
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000) SELECT i FROM n
"""

A_WHILE = """
    SELECT sum(n.i) FROM numbers AS m CROSS JOIN numbers AS n WHERE tell(m.i) IS NULL
"""


def batch(number: int) -> list[Report]:
    """Return reports that fill some 200 KiB of the log, others for each number."""
    return [
        Report("m", f"t{number}-{n}", f"o{number}-{n}", "u", outhash_siginfo=LARGE)
        for n in range(10)
    ]


class Reporter:
    """Reports batch after batch."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.batches = 0

    async def report(self, batches: int = 1) -> None:
        for _ in range(batches):
            reports = batch(self.batches)
            assert await self._store.report(reports) == ["u"] * len(reports)
            self.batches += 1


def test_a_reader_that_stays_does_not_stop_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BUSY_SECONDS", "WRITE_BUSY_SECONDS"):  # who waits for the reader is found out
        monkeypatch.setattr(sqlite_file, name, 3600.0, raising=False)
    monkeypatch.setattr(checkpoint, "RETRY_SECONDS", 0.0, raising=False)
    monkeypatch.setattr(checkpoint, "READERS_MILLISECONDS", 10)
    log = tmp_path / "db-wal"

    async def check() -> None:
        store = SqliteStore(str(tmp_path / "db"), durable=False, max_log=MIB)
        reporter = Reporter(store)
        await reporter.report()
        reader = sqlite3.connect(tmp_path / "db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM unihashes_v3").fetchone()
        try:
            async with asyncio.timeout(GUARD_SECONDS):
                while log.stat().st_size < 8 * MIB:
                    await reporter.report()
            assert reader.execute("SELECT count(*) FROM unihashes_v3").fetchone() == (10,)
        finally:
            reader.close()
        async with asyncio.timeout(GUARD_SECONDS):
            while log.stat().st_size > 4 * MIB:  # once the reader is gone, it is started anew
                await reporter.report()
        await store.close()
        stored = rows(tmp_path / "db", "SELECT count(*) FROM unihashes_v3")
        assert stored == [(10 * reporter.batches,)]

    asyncio.run(check())


def test_a_log_is_started_anew_when_look_ups_under_way_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Look-ups in threads overlap: hardly ever is there none that needs the log."""
    monkeypatch.setattr(checkpoint, "READERS_MILLISECONDS", 1000 * GUARD_SECONDS)
    under_way = threading.Event()

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(tmp_path / "db", isolation_level=None, timeout=0)

    with closing(connect()) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE numbers (i)")
        writer.execute(f"INSERT INTO numbers {SOME_NUMBERS}")

        def read() -> None:
            with closing(connect()) as reader:
                reader.create_function("tell", 1, lambda _: under_way.set())
                reader.execute(A_WHILE).fetchall()

        reading = threading.Thread(target=read)
        reading.start()
        assert under_way.wait(GUARD_SECONDS)
        checkpoint.restart_log(writer)
        writer.execute("INSERT INTO numbers VALUES (0)")
        (_, pages, _) = writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        assert pages == 1, "the log has what was written since"
        reading.join()


def test_a_log_that_can_not_be_copied_does_not_fail_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect = sqlite_file.connect
    refused: list[str | None] = []

    def connect_refusing(
        path: str, *, writable: bool, busy: float, page_cache: int = sqlite_file.LEAST_PAGE_CACHE
    ) -> sqlite3.Connection:
        connection = connect(path, writable=writable, busy=busy, page_cache=page_cache)
        connection.set_authorizer(authorize)
        return connection

    def authorize(action: int, name: str | None, value: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_PRAGMA and name == "wal_checkpoint" and value == "RESTART":
            refused.append(value)
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    monkeypatch.setattr(sqlite_file, "connect", connect_refusing)
    monkeypatch.setattr(checkpoint, "RETRY_SECONDS", 0.0, raising=False)

    async def check() -> None:
        store = SqliteStore(str(tmp_path / "db"), durable=False, max_log=MIB)
        reporter = Reporter(store)
        async with asyncio.timeout(GUARD_SECONDS):
            while len(refused) < 2:
                await reporter.report()
        await reporter.report(3)
        assert await store.lookup([MappingKey("m", "t0-0")]) == ["u"]
        await store.close()
        stored = rows(tmp_path / "db", "SELECT count(*) FROM unihashes_v3")
        assert stored == [(10 * reporter.batches,)]

    asyncio.run(check())
    assert "Copying the write-ahead log failed" in caplog.text


SLOW_COUNT = """
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 8000000)
    SELECT sum(i), count(*) FROM n WHERE :mark = ''
"""


def test_closing_does_not_wait_for_a_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    current_mark = transactions.current_mark

    def begin(transaction: transactions.Transaction) -> str | None:
        begun.set()
        return current_mark(transaction)

    monkeypatch.setattr(statements, "COUNT_MARKED", SLOW_COUNT)
    monkeypatch.setattr(transactions, "current_mark", begin)

    async def check() -> None:
        store = SqliteStore(str(tmp_path / "db"), durable=False)
        (first, second) = [asyncio.ensure_future(store.collection()) for _ in range(2)]
        await asyncio.get_running_loop().run_in_executor(None, begun.wait)
        await store.close()
        for count in (first, second):
            with pytest.raises((StoreError, asyncio.CancelledError)):
                await count
        await store.close()

    asyncio.run(check())


def test_what_was_reported_while_a_count_ran_is_stored_by_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "COUNT_MARKED", SLOW_COUNT)

    async def check() -> None:
        store = SqliteStore(str(tmp_path / "db"), durable=False)
        counting = asyncio.ensure_future(store.collection())
        adding = asyncio.ensure_future(store.add_mappings([Mapping("m", "t", "u")]))
        await asyncio.sleep(0)
        await store.close()
        assert await adding == ["u"]
        with pytest.raises((StoreError, asyncio.CancelledError)):
            await counting

    asyncio.run(check())
    assert rows(tmp_path / "db", "SELECT taskhash FROM unihashes_v3") == [("t",)]
