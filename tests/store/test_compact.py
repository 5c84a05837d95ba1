"""New files are small, and the reference can open, read and write them, and so can we again."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from hashserv.model import MappingKey, Report
from hashserv.store import migrations, sqlite_file
from hashserv.store.opening import Options
from hashserv.store.schema import COMPACT, CREATE_INDEXES, TABLES, UNUSED_INDEXES
from hashserv.store.sqlite import SqliteStore
from hashserv.store.unchanged import open_unchanged
from tests.store.databases import AS_THE_REFERENCE, REFERENCE_INDEXES, digest, make, rows

METHOD = "oe.sstatesig.OEOuthashBasic"
TASKS = 20_000
MOST_BYTES = 650
"""Bytes a task; 922 with the reference's indexes."""

INSERT = (
    "INTO outhashes_v2 (method, taskhash, outhash, created) VALUES ('m', ?, ?, '2099-01-01T00:00')"
)


def report(name: str) -> Report:
    return Report("m", f"t-{name}", f"o-{name}", f"u-{name}")


def store_reports(file: Path, *reports: Report) -> list[str]:
    """Store reports with a server of ours."""

    async def run() -> list[str]:
        store = SqliteStore(str(file), durable=False)
        try:
            return await store.report(reports)
        finally:
            await store.close()

    return asyncio.run(run())


def schema(file: Path) -> dict[str, str]:
    """Return what SQLite has been told to create, by name."""
    found = rows(file, "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {str(name): str(sql) for name, sql in found if not str(name).startswith("sqlite_")}


def names(file: Path) -> set[str]:
    return set(schema(file))


def outhash_rows(file: Path) -> list[tuple[object, ...]]:
    return rows(file, "SELECT method, taskhash, outhash FROM outhashes_v2 ORDER BY id")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A new file, with one task."""
    store_reports(tmp_path / "new.db", report("first"))
    return tmp_path / "new.db"


@pytest.fixture
def reference(file: Path) -> Iterator[sqlite3.Connection]:
    """A reference server that has the new file open."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in AS_THE_REFERENCE:
            connection.execute(statement)
        yield connection


def steps(connection: sqlite3.Connection, query: str) -> str:
    """Return SQLite's plan of what the reference asks."""
    return " ".join(step for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {query}"))


# What it is like.


def test_a_new_file_is_small(tmp_path: Path) -> None:
    random = Random(1)

    def digits() -> str:
        return f"{random.getrandbits(256):064x}"

    reports = [
        Report(
            *(METHOD, digits(), digits(), digits()),
            owner="ci",
            PN=f"recipe-{n % 800}",
            PV="1.0",
            PR="r0",
            task="package",
        )
        for n in range(TASKS)
    ]
    store_reports(tmp_path / "new.db", *reports)
    assert len(outhash_rows(tmp_path / "new.db")) == TASKS
    assert (tmp_path / "new.db").stat().st_size <= MOST_BYTES * TASKS


def test_a_new_file_has_small_indexes_alone(file: Path) -> None:
    assert names(file) == {*TABLES, *COMPACT}


def test_the_schema_needs_no_function_but_substr(tmp_path: Path) -> None:
    """A version of SQLite that lacks a function in it can't open the file at all."""
    called: set[str | None] = set()

    def authorize(action: int, _: str | None, name: str | None, *_others: object) -> int:
        if action == sqlite3.SQLITE_FUNCTION:
            called.add(name)
        return sqlite3.SQLITE_OK

    with closing(sqlite3.connect(":memory:")) as connection:
        connection.set_authorizer(authorize)
        for statement in schema(make_new(tmp_path)).values():
            connection.execute(statement)
        for _ in range(2):
            connection.execute(f"INSERT {INSERT}", ("t", "o"))
    assert called == {"substr"}


def make_new(directory: Path) -> Path:
    store_reports(directory / "new.db")
    return directory / "new.db"


def test_a_file_that_exists_keeps_its_tables_and_indexes(tmp_path: Path) -> None:
    file = make(tmp_path / "old.db", *AS_THE_REFERENCE)
    before = schema(file)
    store_reports(file, report("new"))
    kept = {name: sql for name, sql in before.items() if name not in UNUSED_INDEXES}
    assert schema(file) == kept
    assert set(kept) == {*TABLES, *CREATE_INDEXES}


@pytest.mark.parametrize("made", [1, 2])
def test_a_file_that_the_reference_began_is_finished_as_its_own(tmp_path: Path, made: int) -> None:
    """It creates one table after the other; ours come together, or not at all."""
    file = make(tmp_path / "begun.db", *AS_THE_REFERENCE[:made])
    store_reports(file, report("new"))
    assert names(file) == {*TABLES, *CREATE_INDEXES}
    assert "UNIQUE(method, taskhash, outhash)" in schema(file)["outhashes_v2"]


@pytest.mark.parametrize("name", COMPACT)
def test_what_was_dropped_by_hand_is_there_again(file: Path, name: str) -> None:
    before = schema(file)
    make(file, f"DROP {'TRIGGER' if name == 'hashserv_unique' else 'INDEX'} {name}")
    assert store_reports(file, report("second")) == ["u-second"]
    assert schema(file) == before


def test_who_is_interrupted_while_creating_it_leaves_nothing(tmp_path: Path) -> None:
    def create(file: Path, *, fail_at: int | None) -> int:
        """Make a new file, refusing one of the actions of its statements, and count them."""
        count = 0

        def authorize(*_action: object) -> int:
            nonlocal count
            count += 1
            return sqlite3.SQLITE_DENY if count == fail_at else sqlite3.SQLITE_OK

        with closing(sqlite_file.connect(str(file), writable=True, busy=1)) as connection:
            connection.set_authorizer(authorize)
            try:
                migrations.migrate(connection, str(file))
            finally:
                connection.set_authorizer(None)
        return count

    total = create(tmp_path / "whole.db", fail_at=None)
    assert total > 50
    for fail_at in range(2, total):
        file = tmp_path / f"{fail_at}.db"
        with pytest.raises(sqlite3.DatabaseError):
            create(file, fail_at=fail_at)
        assert not names(file)
        store_reports(file, report("new"))
        assert names(file) == {*TABLES, *COMPACT}


# The trigger.


@pytest.mark.parametrize("verb", ["INSERT", "INSERT OR IGNORE"])
def test_a_row_that_is_known_is_ignored_whoever_inserts_it(file: Path, verb: str) -> None:
    known = outhash_rows(file)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        last = other.execute("SELECT last_insert_rowid()").fetchone()
        assert other.execute(f"{verb} {INSERT}", ("t-first", "o-first")).rowcount == 0
        assert other.execute("SELECT last_insert_rowid()").fetchone() == last
        assert outhash_rows(file) == known
        for new in [("t-first", "o-other"), ("t-other", "o-first")]:
            assert other.execute(f"{verb} {INSERT}", new).rowcount == 1
    assert outhash_rows(file) == [*known, ("m", "t-first", "o-other"), ("m", "t-other", "o-first")]


def test_a_row_that_comes_twice_in_one_insert_is_inserted_once(file: Path) -> None:
    make(file, "INSERT INTO outhashes_v2 (method, taskhash, outhash) VALUES (1, 2, 3), (1, 2, 3)")
    assert outhash_rows(file)[1:] == [("1", "2", "3")]


@pytest.mark.parametrize("indexes", [(), REFERENCE_INDEXES], ids=["ours", "the reference's too"])
@pytest.mark.parametrize("alike", ["taskhash", "outhash"])
def test_an_insert_does_not_look_at_other_tasks(
    file: Path, alike: str, indexes: tuple[str, ...]
) -> None:
    """Counted in steps of SQLite's machine, of which a scan takes some for each row.

    Tests, and who tries a server out, make hashes of numbers with leading zeros.
    """
    many = 3000
    make(file, *indexes)

    def insert(connection: sqlite3.Connection, n: int) -> int:
        ran = 0

        def step() -> None:
            nonlocal ran
            ran += 1

        hashes = (f"{n:064}", "class" if alike == "outhash" else f"{n:064}")
        connection.set_progress_handler(step, 1)
        connection.execute(f"INSERT {INSERT}", hashes)
        connection.set_progress_handler(None, 1)
        return ran

    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        few = insert(connection, 0)
        connection.execute("BEGIN")
        for n in range(1, many):
            insert(connection, n)
        assert insert(connection, many) < few + 100 < many
        connection.execute("ANALYZE")
        connection.execute("COMMIT")
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        assert insert(connection, many + 1) < few + 100


# There and back.


def test_the_reference_reads_and_writes_it_by_its_own_indexes(
    reference: sqlite3.Connection, file: Path
) -> None:
    assert names(file) == {
        *TABLES,
        *COMPACT,
        *CREATE_INDEXES,
        "taskhash_lookup_v4",
        "config_lookup",
    }
    joined = (
        "SELECT unihash FROM outhashes_v2 INNER JOIN unihashes_v3 ON unihashes_v3.method = "
        "outhashes_v2.method AND unihashes_v3.taskhash = outhashes_v2.taskhash "
        "WHERE outhashes_v2.method = 'm' AND outhashes_v2.{} ORDER BY outhashes_v2.created LIMIT 1"
    )
    by_outhash = joined.format("outhash = 'o-first'")
    assert "INDEX outhash_lookup_v3 (method=? AND outhash=?)" in steps(reference, by_outhash)
    assert reference.execute(by_outhash).fetchone() == ("u-first",)
    by_taskhash = joined.format("taskhash = 't-first'")  # which no index of such a file leads to
    assert reference.execute(by_taskhash).fetchone() == ("u-first",)
    by_unihash = "SELECT count(*) FROM unihashes_v3 WHERE unihash = 'u-first'"
    assert "unihash_lookup_v1 (unihash=?)" in steps(reference, by_unihash)
    assert reference.execute(by_unihash).fetchone() == (1,)
    reference.execute(f"INSERT OR IGNORE {INSERT}", ("t-first", "o-first"))
    assert len(outhash_rows(file)) == 1


def test_one_index_more_is_all_that_the_reference_has_of_its_own_files(
    reference: sqlite3.Connection, file: Path
) -> None:
    """The one that the documentation gives to who goes back."""
    reference.execute(
        "CREATE UNIQUE INDEX outhash_rows ON outhashes_v2 (method, taskhash, outhash)"
    )
    by_task = "SELECT outhash FROM outhashes_v2 WHERE method = 'm' AND taskhash = 't-first'"
    assert "outhash_rows (method=? AND taskhash=?)" in steps(reference, by_task)
    upsert = f"INSERT {INSERT} ON CONFLICT (method, taskhash, outhash) DO NOTHING"
    assert reference.execute(upsert, ("t-first", "o-first")).rowcount == 0
    assert store_reports(file, report("second")) == ["u-second"]
    assert "outhash_rows" in names(file)


def test_both_work_with_it_at_the_same_time(reference: sqlite3.Connection, file: Path) -> None:
    asked = "SELECT taskhash FROM outhashes_v2 WHERE method = 'm' AND outhash = 'o-first'"
    assert reference.execute(asked).fetchall() == [("t-first",)]

    async def check() -> None:
        store = SqliteStore(str(file), durable=False)
        assert "outhash_lookup_v3" in steps(reference, asked), "the other one needs it"
        assert await store.report([Report("m", "t-ours", "o-first", "u")]) == ["u-first"]
        assert reference.execute(asked).fetchall() == [("t-first",), ("t-ours",)]
        reference.execute(f"INSERT OR IGNORE {INSERT}", ("t-theirs", "o-theirs"))
        reference.execute(
            "INSERT OR IGNORE INTO unihashes_v3 (method, taskhash, unihash, gc_mark) "
            "VALUES ('m', 't-theirs', 'u-theirs', '')"
        )
        assert await store.report([Report("m", "t-more", "o-theirs", "u")]) == ["u-theirs"]
        # A second one starts: it creates its indexes once more.
        for statement in AS_THE_REFERENCE:
            reference.execute(statement)
        assert await store.report([Report("m", "t-end", "o-theirs", "u")]) == ["u-theirs"]
        assert await store.lookup([MappingKey("m", "t-theirs")]) == ["u-theirs"]
        await store.close()

    asyncio.run(check())


def test_it_goes_there_and_back(
    reference: sqlite3.Connection, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What our server does without goes; what the other one needs stays, which may be running."""
    for n in range(3):
        reference.execute(f"INSERT OR IGNORE {INSERT}", (f"t-{n}", "o-first"))
        for statement in AS_THE_REFERENCE:
            reference.execute(statement)
        caplog.clear()
        assert store_reports(file, Report("m", f"t-{n}", "o-first", "u")) == ["u-first"]
        assert f"{file}: dropped the superfluous indexes taskhash_lookup_v4, config_lookup" in (
            caplog.text
        )
        assert names(file) == {*TABLES, *COMPACT, *CREATE_INDEXES}
        assert len(outhash_rows(file)) == n + 2
    reference.close()
    make(file, *(f"DROP INDEX {name}" for name in CREATE_INDEXES))  # as the documentation says
    assert rows(file, "PRAGMA integrity_check") == [("ok",)]
    before = digest(file)
    caplog.clear()
    store_reports(file)
    assert caplog.records == []
    assert digest(file) == before


@pytest.mark.parametrize("opened", ["read-only", "unchanged"])
@pytest.mark.parametrize("make_file", [(), AS_THE_REFERENCE], ids=["ours", "the reference's too"])
def test_who_may_only_read_reads_it(file: Path, opened: str, make_file: tuple[str, ...]) -> None:
    make(file, *make_file)
    before = digest(file)

    async def check(store: SqliteStore) -> None:
        assert await store.lookup([MappingKey("m", "t-first")]) == ["u-first"]
        found = await store.equivalent("m", "o-first"), await store.task(MappingKey("m", "t-first"))
        assert [each and each.unihash for each in found] == ["u-first", "u-first"]
        assert await store.exists(["u-first", "u-firs"]) == [True, False]
        assert await store.split_outputs() == 0

    async def run() -> None:
        if opened == "unchanged":
            async with open_unchanged(str(file), Options()) as store:
                assert isinstance(store, SqliteStore)
                await check(store)
        else:
            store = SqliteStore(str(file), writable=False)
            await check(store)
            await store.close()

    asyncio.run(run())
    assert digest(file) == before
