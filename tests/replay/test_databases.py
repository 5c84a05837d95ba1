"""Databases that the reference wrote, from 2020 to today, under our server."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import StartServer
from tests.replay import differences
from tests.replay.conftest import Tally
from tests.replay.differences import Changed, Difference, OldestRow
from tests.replay.peer import dial
from tests.replay.player import Player
from tests.replay.recording import find
from tests.replay.sections import Section, read_sections

FreshCopy = Callable[[str], Path]

DATABASES: Final = ("tasks_v2", "unihashes_v2", "unihashes_v3")

DROPPED: Final = "HEAD opens a copy: tasks_v2 is dropped, nothing is migrated"
"""What today's reference does to files of 2020, and we do not: other tests here show that."""

ROWS: Final = {
    "tasks_v2": {"unihashes_v3": 228, "outhashes_v2": 263, "users": 0, "config": 0},
    "unihashes_v2": {"unihashes_v3": 224, "outhashes_v2": 247, "users": 0, "config": 0},
    "unihashes_v3": {"unihashes_v3": 225, "outhashes_v2": 253, "users": 7, "config": 1},
}
"""What each file holds, once it is in today's tables."""

COLUMNS: Final = {
    "unihashes_v3": ["id", "method", "taskhash", "unihash", "gc_mark"],
    "outhashes_v2": [
        *("id", "method", "taskhash", "outhash", "created"),
        *("owner", "PN", "PV", "PR", "task", "outhash_siginfo"),
    ],
    "users": ["id", "username", "token", "permissions"],
    "config": ["id", "name", "value"],
}


def fixture(name: str) -> Path:
    path = find("db", name)
    assert path is not None, f"{name} is part of the checkout"
    return path


SECTIONS: Final = [
    pytest.param(database, section, id=f"{database}: {section.name}")
    for database in DATABASES
    for section in read_sections(fixture(f"{database}.expected.json"))
    if section.name != DROPPED
]


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> str:
    """The name of each database."""
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture
def fresh_copy(short_tmp: Path) -> FreshCopy:
    """Copy a database to where it can be written: `fresh_copy(name)` returns the path."""

    def copy(name: str) -> Path:
        path = short_tmp / f"{name}.db"
        shutil.copyfile(fixture(f"{name}.db"), path)
        return path

    return copy


@pytest.mark.parametrize(("database", "section"), SECTIONS)
def test_section(
    database: str,
    section: Section,
    fresh_copy: FreshCopy,
    start_server: StartServer,
    database_tally: Tally,
) -> None:
    path = fresh_copy(database)
    with closing(sqlite3.connect(path)) as pristine:
        outhashes = "tasks_v2" if database == "tasks_v2" else "outhashes_v2"
        (known_ids,) = pristine.execute(f"SELECT max(id) FROM {outhashes}").fetchone()
        name = f"{database}: {section.name}"
        expected = [told_by(pristine, each) for each in differences.of(name)]
    server = start_server(*section.server_arguments, database=path)
    player = Player(
        server.address,
        expected,
        known_ids=known_ids,
        gc_mark=name not in differences.WITHOUT_GC_MARK,
    )
    played = player.play(section.steps)
    database_tally.add(played)
    assert played.replies
    if played.wrong:
        pytest.fail("\n".join(played.wrong), pytrace=False)


def told_by(tasks_v2: sqlite3.Connection, difference: Difference) -> Difference:
    """Look up in a file of 2020 what an oldest row is: the rule, in other words than ours."""
    if not isinstance(difference.ours, OldestRow):
        return difference
    tasks_v2.row_factory = sqlite3.Row
    rows = [dict(row) for row in tasks_v2.execute("SELECT * FROM tasks_v2 ORDER BY created")]
    row = next(row for row in rows if row["outhash"] == difference.ours.outhash)
    task = (row["method"], row["taskhash"])
    oldest = next(row for row in rows if (row["method"], row["taskhash"]) == task)
    return replace(difference, ours=Changed({**row, "unihash": oldest["unihash"]}))


def test_file_stays_the_references_own(
    database: str, fresh_copy: FreshCopy, start_server: StartServer
) -> None:
    path = fresh_copy(database)
    start_server(database=path).stop()
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = {
            name
            for (name,) in file.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            )
        }
        assert tables == set(COLUMNS)
        for table, columns in COLUMNS.items():
            described = file.execute(f"PRAGMA table_info({table})").fetchall()
            assert [name for _, name, *_ in described] == columns
            rows = file.execute(f"SELECT count(*) FROM {table}").fetchone()
            assert rows == (ROWS[database][table],)


def test_columns_have_the_references_types(
    database: str, fresh_copy: FreshCopy, start_server: StartServer
) -> None:
    with closing(sqlite3.connect(fresh_copy("unihashes_v3"))) as written_by_reference:
        described = {
            table: written_by_reference.execute(f"PRAGMA table_info({table})").fetchall()
            for table in COLUMNS
        }
    path = fresh_copy(database)
    start_server(database=path).stop()
    with closing(sqlite3.connect(path)) as file:
        for table, columns in described.items():
            assert file.execute(f"PRAGMA table_info({table})").fetchall() == columns


def test_what_the_reference_does_with_the_file_still_works(
    database: str, fresh_copy: FreshCopy, start_server: StartServer
) -> None:
    """Its inserts rely on the unique constraints, its SELECTs on the columns."""
    path = fresh_copy(database)
    start_server(database=path).stop()
    with closing(sqlite3.connect(path)) as file:
        method, taskhash, unihash = file.execute(
            "SELECT method, taskhash, unihash FROM unihashes_v3 ORDER BY id LIMIT 1"
        ).fetchone()
        outhash_row = file.execute(
            "SELECT method, taskhash, outhash FROM outhashes_v2 ORDER BY id LIMIT 1"
        ).fetchone()
        mapping = "(method, taskhash, unihash, gc_mark) VALUES (?, ?, 'other', '')"
        ignored = file.execute(f"INSERT OR IGNORE INTO unihashes_v3 {mapping}", (method, taskhash))
        assert ignored.rowcount == 0
        ignored = file.execute(
            f"INSERT INTO unihashes_v3 {mapping} ON CONFLICT (method, taskhash) DO NOTHING",
            (method, taskhash),
        )
        assert ignored.rowcount == 0
        ignored = file.execute(
            "INSERT INTO outhashes_v2 (method, taskhash, outhash) VALUES (?, ?, ?)"
            " ON CONFLICT (method, taskhash, outhash) DO NOTHING",
            outhash_row,
        )
        assert ignored.rowcount == 0
        for _ in range(2):
            file.execute(
                "INSERT INTO config (name, value) VALUES ('gc-mark', 'm')"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
            )
        assert file.execute("SELECT value FROM config WHERE name = 'gc-mark'").fetchall() == [
            ("m",)
        ]
        user = "INSERT INTO users (username, token, permissions) VALUES ('twice', '', '')"
        file.execute(user)
        with pytest.raises(sqlite3.IntegrityError):
            file.execute(user)
        found = file.execute(
            "SELECT *, unihashes_v3.unihash AS unihash FROM outhashes_v2"
            " INNER JOIN unihashes_v3 ON unihashes_v3.method = outhashes_v2.method"
            " AND unihashes_v3.taskhash = outhashes_v2.taskhash"
            " WHERE outhashes_v2.method = ? AND outhashes_v2.taskhash = ?"
            " ORDER BY outhashes_v2.created ASC LIMIT 1",
            (method, taskhash),
        ).fetchone()
        assert found[-1] == unihash


def test_second_start_changes_nothing(
    database: str, fresh_copy: FreshCopy, start_server: StartServer
) -> None:
    path = fresh_copy(database)
    first = start_server(database=path)
    first.stop()
    before = schema_of(path)
    second = start_server(database=path)
    second.stop()
    assert "carr" in first.log_text() or database == "unihashes_v3"
    assert "carr" not in second.log_text()
    assert "drop" not in second.log_text()
    assert schema_of(path) == before


def test_users_and_mark_are_untouched(fresh_copy: FreshCopy, start_server: StartServer) -> None:
    path = fresh_copy("unihashes_v3")
    before = {table: rows_of(path, table) for table in COLUMNS}
    start_server(database=path).stop()
    assert {table: rows_of(path, table) for table in COLUMNS} == before
    assert len(before["users"]) == 7
    assert before["config"] == [(1, "gc-mark", "gc-2024-06")]


def test_file_of_2022_keeps_every_row_and_id(
    fresh_copy: FreshCopy, start_server: StartServer
) -> None:
    path = fresh_copy("unihashes_v2")
    mappings = rows_of(path, "unihashes_v2")
    outhashes = rows_of(path, "outhashes_v2")
    start_server(database=path).stop()
    assert rows_of(path, "unihashes_v3") == [(*row, "") for row in mappings]
    assert rows_of(path, "outhashes_v2") == outhashes


def test_file_of_2020_keeps_every_row_and_id(
    fresh_copy: FreshCopy, start_server: StartServer
) -> None:
    path = fresh_copy("tasks_v2")
    columns = ", ".join(COLUMNS["outhashes_v2"])
    with closing(sqlite3.connect(path)) as file:
        outhashes = file.execute(f"SELECT {columns} FROM tasks_v2 ORDER BY id").fetchall()
        mappings: dict[tuple[str, str], str] = {}
        for method, taskhash, unihash in file.execute(
            "SELECT method, taskhash, unihash FROM tasks_v2 ORDER BY created"
        ):
            mappings.setdefault((method, taskhash), unihash)
    server = start_server(database=path)
    with dial(server.address) as peer:
        assert peer.ask(b'{"get-stream": null}') == '"ok"'
        peer.send("".join(f"{method} {taskhash}\n" for method, taskhash in mappings).encode())
        assert [peer.reply() for _ in mappings] == list(mappings.values())
        assert peer.ask(b"END") == "ok"
        usage = json.loads(peer.ask(b'{"get-db-usage": {}}') or "")["usage"]
        assert {table: count["rows"] for table, count in usage.items()} == ROWS["tasks_v2"]
    server.stop()
    assert rows_of(path, "outhashes_v2") == outhashes


def rows_of(path: Path, table: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as file:
        return file.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()


def schema_of(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as file:
        return file.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
