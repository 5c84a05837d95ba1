"""The measure of what SQLite alone manages."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bench import bare, loading


def test_groups_are_stored_in_the_files_own_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bare, "GROUPS", {1: 2, 32: 2})
    monkeypatch.setattr(bare, "_LOG_ROWS", 10)
    database = tmp_path / "hashserv.db"
    loading.fill_database(database, 10)
    rates = list(bare.reports(database))
    assert [size for size, *_ in rates] == [1, 32]
    assert min(rate for _, *both in rates for rate in both) > 0
    with closing(sqlite3.connect(database)) as connection:
        for table in ("outhashes_v2", "unihashes_v3"):
            (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            assert count == 10 + 10 + 2 * bare._ROUNDS * (2 * 1 + 2 * 32)


def test_look_ups_find_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare, "_LOOK_UPS", 20)
    database = tmp_path / "hashserv.db"
    loading.fill_database(database, 10)
    assert bare.look_ups(database) > 0
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE unihashes_v3 SET method = 'm' WHERE id < 5")
        connection.commit()
    with pytest.raises(RuntimeError, match="6 mappings were found of 10"):
        bare.look_ups(database)
