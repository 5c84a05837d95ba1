"""The writer: group commit in order of arrival, and failures that hurt nobody else."""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from hashserv.errors import DatabaseFull, DatabaseLocked, InvokeError, StoreError
from hashserv.model import Mapping, MappingKey, Report
from hashserv.store import sqlite_file
from hashserv.store.checkpoint import Checkpointer
from hashserv.store.group_commit import MAX_GROUP
from hashserv.store.sqlite import SqliteStore
from hashserv.store.sqlite_statements import STATEMENTS
from hashserv.store.sqlite_transaction import SqliteTransaction
from hashserv.store.times import Clock
from hashserv.store.transactions import Committed, Transaction, Work
from hashserv.store.writer import Writer
from tests.store.databases import rows


class Recorder:
    """Stores reports as rows of a table, and takes note of all it is told."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.told: list[object] = []
        self.go_on = threading.Event()
        self.began = asyncio.Event()

    def report(self, transaction: Transaction, reports: Sequence[Report]) -> Committed:
        taskhashes = [report.taskhash for report in reports]
        self.groups.append(taskhashes)
        for name in taskhashes:
            transaction.run("INSERT INTO t VALUES (:name)", {"name": name})
        return Committed([f"u-{name}" for name in taskhashes])

    def before_transaction(self) -> None:
        self.told.append("before")
        self.began.set()

    def after_transaction(self, committed: Committed | None) -> None:
        self.told.append(committed and committed.result)

    def block(self, _transaction: Transaction) -> Committed:
        """Take a transaction until `go_on` is set, so that work gathers behind it."""
        self.go_on.wait()
        return Committed("unblocked")


Body = Callable[[Writer, Recorder], Awaitable[None]]


def report_of(name: str) -> Report:
    return Report("m", name, "o", "u")


def run_writer(file: Path, body: Body) -> list[str]:
    """Run a test's body with a writer, and return the rows that are stored in the end."""

    async def run() -> None:
        recorder = Recorder()
        connection = sqlite_file.connect(str(file), writable=True, busy=1)
        connection.execute("CREATE TABLE t (name TEXT)")
        writer = Writer(
            connection,
            str(file),
            transaction=SqliteTransaction(connection, STATEMENTS, Clock()),
            report=recorder.report,
            observer=recorder,
            checkpointer=Checkpointer(sqlite_file.connect(str(file), writable=True, busy=1)),
        )
        try:
            await body(writer, recorder)
        finally:
            recorder.go_on.set()
            await writer.close()

    asyncio.run(run())
    return [str(name) for (name,) in rows(file, "SELECT name FROM t ORDER BY rowid")]


def insert(name: str) -> Work:
    def work(transaction: Transaction) -> Committed:
        transaction.run("INSERT INTO t VALUES (:name)", {"name": name})
        return Committed(f"did {name}")

    return work


def insert_then(error: Exception) -> Work:
    def work(transaction: Transaction) -> Committed:
        transaction.run("INSERT INTO t VALUES ('undone')", {})
        raise error

    return work


async def begin(*calls: Awaitable[object]) -> Sequence[asyncio.Future[object]]:
    """Start calls, in order, until each waits for the writer."""
    started = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    return started


def test_what_gathers_meanwhile_is_one_transaction_in_order_of_arrival(tmp_path: Path) -> None:
    async def body(writer: Writer, recorder: Recorder) -> None:
        calls = await begin(
            writer.run(recorder.block),
            writer.report([report_of("a"), report_of("b")]),
            writer.report([]),
            writer.report([report_of("c")]),
            writer.run(insert("w")),
            writer.report([report_of("d")]),
            writer.report([report_of("e")]),
        )
        assert recorder.groups == []
        recorder.go_on.set()
        assert await asyncio.gather(*calls) == [
            *("unblocked", ["u-a", "u-b"], [], ["u-c"], "did w", ["u-d"], ["u-e"])
        ]
        assert recorder.groups == [["a", "b", "c"], ["d", "e"]]
        assert recorder.told == [
            *("before", "unblocked", "before", ["u-a", "u-b", "u-c"]),
            *("before", "did w", "before", ["u-d", "u-e"]),
        ]

    assert run_writer(tmp_path / "db", body) == [*"abc", "w", *"de"]


def test_a_group_is_bounded_but_never_cuts_a_batch(tmp_path: Path) -> None:
    async def body(writer: Writer, recorder: Recorder) -> None:
        batches = [[report_of("x")] * size for size in (MAX_GROUP - 1, MAX_GROUP * 2, 1)]
        calls = await begin(writer.run(recorder.block), *map(writer.report, batches))
        recorder.go_on.set()
        await asyncio.gather(*calls)
        assert [len(group) for group in recorder.groups] == [MAX_GROUP * 3 - 1, 1]

    assert len(run_writer(tmp_path / "db", body)) == MAX_GROUP * 3


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("ours"), ValueError),
        (InvokeError("refused"), InvokeError),
        (sqlite3.IntegrityError("twice"), StoreError),
    ],
)
def test_a_failure_is_undone_and_hurts_nobody_else(
    tmp_path: Path, error: Exception, told: type[Exception]
) -> None:
    async def body(writer: Writer, recorder: Recorder) -> None:
        calls = await begin(
            writer.run(recorder.block),
            writer.report([report_of("a")]),
            writer.run(insert_then(error)),
            writer.report([report_of("b")]),
            writer.run(insert("c")),
        )
        recorder.go_on.set()
        _, first, failed, second, third = await asyncio.gather(*calls, return_exceptions=True)
        assert (first, second, third) == (["u-a"], ["u-b"], "did c")
        assert type(failed) is told
        assert str(error) in str(failed)
        assert recorder.told.count(None) == 1, "the observer is told that nothing was committed"

    assert run_writer(tmp_path / "db", body) == ["a", "b", "c"]


def test_who_goes_away_before_its_transaction_is_left_out(tmp_path: Path) -> None:
    async def body(writer: Writer, recorder: Recorder) -> None:
        calls = await begin(
            writer.run(recorder.block),
            writer.report([report_of("a")]),
            writer.report([report_of("gone")]),
            writer.run(insert("gone")),
            writer.report([report_of("gone")]),
            writer.report([report_of("b")]),
        )
        for call in calls[2:5]:
            call.cancel()
        await asyncio.sleep(0)
        recorder.go_on.set()
        await asyncio.gather(*calls, return_exceptions=True)
        assert await writer.run(insert("c")) == "did c"

    assert run_writer(tmp_path / "db", body) == ["a", "b", "c"]


def test_who_goes_away_during_its_transaction_changes_what_others_know(tmp_path: Path) -> None:
    async def body(writer: Writer, recorder: Recorder) -> None:
        (blocked,) = await begin(writer.run(recorder.block))
        await recorder.began.wait()
        blocked.cancel()
        await asyncio.sleep(0)
        recorder.go_on.set()
        await writer.report([report_of("a")])
        assert blocked.cancelled()
        assert recorder.told == ["before", "unblocked", "before", ["u-a"]]

    assert run_writer(tmp_path / "db", body) == ["a"]


def test_closing_finishes_what_waits_and_takes_no_more(tmp_path: Path) -> None:
    async def body(writer: Writer, recorder: Recorder) -> None:
        calls = await begin(
            writer.run(recorder.block), writer.report([report_of("a")]), writer.run(insert("b"))
        )
        (closing,) = await begin(writer.close())
        with pytest.raises(StoreError, match="is being closed"):
            await writer.report([report_of("late")])
        recorder.go_on.set()
        await closing
        assert [call.result() for call in calls] == ["unblocked", ["u-a"], "did b"]
        await writer.close()

    assert run_writer(tmp_path / "db", body) == ["a", "b"]


# Through the store.

KEYS = [MappingKey("m", f"t{n}") for n in range(3)]


class Listener:
    """Takes note of the taskhashes that are new."""

    def __init__(self) -> None:
        self.added: list[str] = []

    def mappings_added(self, mappings: Sequence[Mapping]) -> None:
        self.added += [mapping.taskhash for mapping in mappings]

    def mappings_removed(self) -> None:
        self.added.clear()


def test_a_report_whose_caller_is_gone_is_told_to_the_listener(tmp_path: Path) -> None:
    async def check() -> None:
        store = SqliteStore(str(tmp_path / "db"), durable=False)
        listener = store.listener = Listener()
        other = sqlite3.connect(tmp_path / "db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")  # so that the transaction waits
        (reporting,) = await begin(store.report([report_of("t0")]))
        await asyncio.sleep(0)
        reporting.cancel()
        await asyncio.sleep(0)
        other.execute("ROLLBACK")
        assert await store.report([report_of("t1")]) == ["u"]
        assert await store.lookup(KEYS) == ["u", "u", None]
        assert listener.added == ["t0", "t1"]
        other.close()
        await store.close()

    asyncio.run(check())


def test_a_file_that_another_process_locks_is_used_again_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "WRITE_BUSY_SECONDS", 0.05)

    async def check() -> None:
        store = SqliteStore(str(tmp_path / "db"))
        await store.report([report_of("t0")])
        other = sqlite3.connect(tmp_path / "db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        refused = await asyncio.gather(
            store.report([report_of("t1")]),
            store.add_mappings([Mapping("m", "t1", "u")]),
            store.remove({"method": "m"}),
            store.sweep("a"),
            return_exceptions=True,
        )
        assert [type(error) for error in refused] == [DatabaseLocked] * 4
        assert await store.lookup(KEYS) == ["u", None, None], "reading goes on"
        other.execute("ROLLBACK")
        other.close()
        assert await store.report([report_of("t2")]) == ["u"]
        assert await store.lookup(KEYS) == ["u", None, "u"]
        await store.close()

    asyncio.run(check())


def test_a_disk_that_was_full_is_used_again_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[sqlite3.Connection] = []
    connect = sqlite_file.connect

    def connect_noted(
        path: str, *, writable: bool, busy: float, page_cache: int = sqlite_file.LEAST_PAGE_CACHE
    ) -> sqlite3.Connection:
        opened.append(connect(path, writable=writable, busy=busy, page_cache=page_cache))
        return opened[-1]

    async def check() -> None:
        await SqliteStore(str(tmp_path / "db")).close()
        opened.clear()
        monkeypatch.setattr(sqlite_file, "connect", connect_noted)
        store = SqliteStore(str(tmp_path / "db"))
        await store.report([report_of("t0")])
        (pages,) = rows(tmp_path / "db", "PRAGMA page_count")[0]
        del opened[0]  # which looked what the file is, and is closed
        for connection in opened:
            connection.execute(f"PRAGMA max_page_count = {pages}")
        large = Report("m", "t1", "o1", "u1", outhash_siginfo="x" * 100_000)
        for _ in range(3):
            with pytest.raises(DatabaseFull, match="No space left for"):
                await store.report([large, report_of("t2")])
            assert await store.lookup(KEYS) == ["u", None, None], "none of a group is stored"
        for connection in opened:
            connection.execute("PRAGMA max_page_count = 1000000")
        assert await store.report([large, report_of("t2")]) == ["u1", "u"]
        assert await store.lookup(KEYS) == ["u", "u1", "u"]
        await store.close()

    asyncio.run(check())
    assert rows(tmp_path / "db", "PRAGMA integrity_check") == [("ok",)]


def test_a_store_is_closed_once_and_finishes_what_was_begun(tmp_path: Path) -> None:
    async def check() -> None:
        store = SqliteStore(str(tmp_path / "db"))
        calls = await begin(*(store.report([report_of(f"t{n}")]) for n in range(3)))
        await store.close()
        assert [call.result() for call in calls] == [["u"]] * 3
        await store.close()

    asyncio.run(check())
    assert rows(tmp_path / "db", "SELECT count(*) FROM unihashes_v3") == [(3,)]
    assert [file.name for file in tmp_path.iterdir()] == ["db"], "nothing is left beside it"
