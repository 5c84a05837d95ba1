"""Files of every era are brought to today's tables, whole or not at all."""

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

from hashserv.model import MappingKey
from hashserv.store import migrations, sqlite_file
from hashserv.store.schema import CREATE_INDEXES, TABLES, UNUSED_INDEXES
from hashserv.store.sqlite import SqliteStore
from tests.store.databases import ERAS, copy_of, digest, fixture, make, rows

OUTHASH_ROWS = (
    "SELECT id, method, taskhash, outhash, created, owner, PN, PV, PR, task, outhash_siginfo "
    "FROM {} ORDER BY id"
)
HELD = {
    "tasks_v2": (
        "SELECT method, taskhash, unihash FROM tasks_v2 AS t WHERE NOT EXISTS (SELECT 1 FROM "
        "tasks_v2 AS o WHERE (o.method, o.taskhash) = (t.method, t.taskhash) "
        "AND (o.created, o.id) < (t.created, t.id)) ORDER BY 1, 2"
    ),
    "unihashes_v2": "SELECT method, taskhash, unihash FROM unihashes_v2 ORDER BY 1, 2",
    "unihashes_v3": "SELECT method, taskhash, unihash FROM unihashes_v3 ORDER BY 1, 2",
}
OUTHASHES_IN = {
    "tasks_v2": "tasks_v2",
    "unihashes_v2": "outhashes_v2",
    "unihashes_v3": "outhashes_v2",
}


def open_once(file: Path) -> None:
    async def open_and_close() -> None:
        await SqliteStore(str(file)).close()

    asyncio.run(open_and_close())


def names(file: Path, kind: str) -> set[object]:
    found = rows(file, f"SELECT name FROM sqlite_master WHERE type = '{kind}'")
    return {name for (name,) in found if not str(name).startswith("sqlite_")}


def dump(file: Path) -> list[str]:
    connection = sqlite3.connect(file)
    lines = list(connection.iterdump())
    connection.close()
    return lines


def copied_into_a_new_file(file: Path) -> Path:
    new = file.parent / "new.db"
    open_once(new)
    copied = [f"INSERT INTO main.{table} SELECT * FROM old.{table}" for table in TABLES]
    return make(new, f"ATTACH '{file}' AS old", *copied)


@pytest.mark.parametrize("era", ERAS)
def test_every_row_is_kept(tmp_path: Path, era: str) -> None:
    file = copy_of(era, tmp_path)
    outhashes = rows(file, OUTHASH_ROWS.format(OUTHASHES_IN[era]))
    held = rows(file, HELD[era])
    open_once(file)
    assert outhashes
    assert rows(file, OUTHASH_ROWS.format("outhashes_v2")) == outhashes
    assert held
    assert rows(file, HELD["unihashes_v3"]) == held
    assert names(file, "table") == set(TABLES)
    assert names(file, "index") >= set(CREATE_INDEXES)
    assert not names(file, "index") & set(UNUSED_INDEXES)
    assert rows(file, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("era", ERAS)
def test_look_ups_are_answered_as_the_server_of_that_time_did(tmp_path: Path, era: str) -> None:
    expected = json.loads(fixture(f"{era}.expected.json").read_text())
    queries = next(s for s in expected["sections"] if s["name"].startswith("queries"))
    steps = [step for step in queries["steps"] if step.get("stream") == "get-stream"]
    assert steps

    async def check() -> None:
        store = SqliteStore(str(copy_of(era, tmp_path)))
        for step in steps:
            keys = [MappingKey(*line.split()) for line in step["lines"]]
            assert [unihash or "" for unihash in await store.lookup(keys)] == step["replies"]
        await store.close()

    asyncio.run(check())


def test_users_and_the_collection_under_way_stay(tmp_path: Path) -> None:
    file = copy_of("unihashes_v3", tmp_path)
    users, config = (rows(file, f"SELECT * FROM {table}") for table in ("users", "config"))
    marks = rows(file, "SELECT id, gc_mark FROM unihashes_v3 ORDER BY id")
    open_once(file)
    assert len(users) == 7
    assert [rows(file, f"SELECT * FROM {table}") for table in ("users", "config")] == [
        users,
        config,
    ]
    assert rows(file, "SELECT id, gc_mark FROM unihashes_v3 ORDER BY id") == marks


@pytest.mark.parametrize("layout", ["the reference's", "compact"])
@pytest.mark.parametrize("old", ["tasks_v2", "unihashes_v2"])
def test_rows_of_an_older_table_join_those_beside_it(tmp_path: Path, old: str, layout: str) -> None:
    """What is in today's tables stays; where both know a taskhash, today's unihash holds."""
    file = copy_of("unihashes_v3", tmp_path)
    if layout == "compact":
        file = copied_into_a_new_file(file)
    held = rows(file, "SELECT method, taskhash, unihash FROM unihashes_v3 LIMIT 1")[0]
    method, taskhash, _ = held
    copied = copy_of(old, tmp_path)
    (schema,) = rows(copied, f"SELECT sql FROM sqlite_master WHERE name = '{old}'")[0]
    before = rows(file, OUTHASH_ROWS.format("outhashes_v2")), rows(file, HELD["unihashes_v3"])
    make(
        file,
        str(schema),
        f"ATTACH '{copied}' AS old",
        f"INSERT INTO main.{old} SELECT * FROM old.{old}",
        f"UPDATE main.{old} SET method = '{method}', taskhash = '{taskhash}' WHERE id = 1",
    )
    old_rows = rows(file, f"SELECT method, taskhash FROM {old}")
    open_once(file)
    after = rows(file, OUTHASH_ROWS.format("outhashes_v2")), rows(file, HELD["unihashes_v3"])
    assert set(before[0]) <= set(after[0])
    assert set(before[1]) <= set(after[1])
    assert held in after[1]
    assert set(old_rows) <= {row[:2] for row in after[1]}
    assert old not in names(file, "table")


@pytest.mark.parametrize("era", ERAS)
def test_what_is_interrupted_anywhere_leaves_the_file_as_it_was(tmp_path: Path, era: str) -> None:
    file = copy_of(era, tmp_path)
    bytes_before, dump_before = digest(file), dump(file)

    def actions(*, fail_at: int | None) -> int:
        """Migrate, refusing one of the actions of its statements, and count them."""
        count = 0

        def authorize(*_action: object) -> int:
            nonlocal count
            count += 1
            return sqlite3.SQLITE_DENY if count == fail_at else sqlite3.SQLITE_OK

        connection = sqlite_file.connect(str(file), writable=True, busy=1)
        connection.set_authorizer(authorize)
        try:
            migrations.migrate(connection, str(file))
        finally:
            connection.set_authorizer(None)
            connection.close()
        return count

    again = copy_of(era, tmp_path)
    total = actions(fail_at=None)
    assert total > 10
    for fail_at in range(2, total, max(1, total // 40)):
        again = copy_of(era, tmp_path)
        with pytest.raises(sqlite3.DatabaseError):
            actions(fail_at=fail_at)
        assert digest(again) == bytes_before, fail_at
        assert dump(again) == dump_before, fail_at


@pytest.mark.parametrize("era", [*ERAS, "new"])
def test_the_second_opening_writes_nothing(tmp_path: Path, era: str) -> None:
    file = tmp_path / "new.db" if era == "new" else copy_of(era, tmp_path)
    open_once(file)
    before = digest(file), file.stat().st_mtime_ns
    open_once(file)
    assert (digest(file), file.stat().st_mtime_ns) == before


def test_the_reference_finds_the_columns_that_it_expects(tmp_path: Path) -> None:
    reference = copy_of("unihashes_v3", tmp_path)
    new = tmp_path / "new.db"
    open_once(new)
    for table in TABLES:
        columns = f"SELECT name, type, \"notnull\", pk FROM pragma_table_info('{table}')"
        assert rows(new, columns) == rows(reference, columns)


def test_what_was_done_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = copy_of("tasks_v2", tmp_path)
    open_once(file)
    assert f"{file}: carried 263 rows of tasks_v2 (2019 to 2021) over" in caplog.text
    assert f"{file}: dropped the superfluous index" in caplog.text
    caplog.clear()
    open_once(file)
    assert caplog.text == ""
