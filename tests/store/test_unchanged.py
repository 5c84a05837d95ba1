"""Reading a database and leaving it as it is."""

import asyncio
import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from hashserv.errors import NotADatabase, StoreError
from hashserv.model import Mapping
from hashserv.store import sqlite_file, unchanged
from hashserv.store.opening import Options
from tests.store.databases import ERAS, copy_of, digest, make

ROWS = {"tasks_v2": (228, 263, 0), "unihashes_v2": (224, 247, 0), "unihashes_v3": (225, 253, 7)}
"""Mappings, outhash rows and users of each era's file."""


def read(file: Path) -> tuple[int, ...]:
    """Return how many mappings, outhash rows and users are read of a file."""

    async def count() -> tuple[int, ...]:
        async with unchanged.open_unchanged(str(file), Options()) as store:
            counted = await store.usage()
            mappings = await store.mappings_after(0, 10_000)
            assert len(mappings) == counted["unihashes_v3"]
            return (counted["unihashes_v3"], counted["outhashes_v2"], counted["users"])

    return asyncio.run(count())


@pytest.mark.parametrize("era", ERAS)
def test_a_file_of_any_era_is_read_and_stays_as_it_is(tmp_path: Path, era: str) -> None:
    file = copy_of(era, tmp_path)
    before = digest(file)
    assert read(file) == ROWS[era]
    assert [each.name for each in tmp_path.iterdir()] == [file.name]
    assert digest(file) == before


def test_nothing_is_copied_aside_without_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unchanged, "open_aside", None)
    assert read(copy_of("unihashes_v3", tmp_path)) == ROWS["unihashes_v3"]


@pytest.mark.parametrize("era", ERAS)
def test_a_file_beside_which_nothing_may_be_created_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, era: str
) -> None:
    file = copy_of(era, tmp_path)
    before = digest(file)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and access(path, mode))
    assert read(file) == ROWS[era]
    assert [each.name for each in tmp_path.iterdir()] == [file.name]
    assert digest(file) == before


def test_a_file_on_read_only_media_is_read_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = copy_of("unihashes_v3", tmp_path)
    monkeypatch.setattr(sqlite_file, "is_frozen", lambda _: True)
    assert read(file) == ROWS["unihashes_v3"]
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("era", ["tasks_v2", "unihashes_v3"])
def test_what_another_process_has_just_written_is_read(tmp_path: Path, era: str) -> None:
    """It may be in the write-ahead log alone."""
    file = copy_of(era, tmp_path)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        if era == "tasks_v2":
            other.execute(
                "INSERT INTO tasks_v2 SELECT NULL, method, 'new', outhash, unihash, "
                "created, owner, PN, PV, PR, task, outhash_siginfo FROM tasks_v2 LIMIT 1"
            )
        else:
            other.execute("INSERT INTO unihashes_v3 VALUES (NULL, 'm', 'new', 'u', '')")
            other.execute("INSERT INTO outhashes_v2 (method, taskhash, outhash) VALUES (1, 2, 3)")
        assert Path(f"{file}-wal").stat().st_size
        mappings, outhashes, users = ROWS[era]
        assert read(file) == (mappings + 1, outhashes + 1, users)


def test_a_missing_file_is_told_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"There is no file .*new\.db: name a database"):
        read(tmp_path / "new.db")
    with pytest.raises(StoreError, match="is a directory"):
        read(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_program_is_told(tmp_path: Path) -> None:
    file = make(tmp_path / "songs.db", "CREATE TABLE songs (id)")
    with pytest.raises(NotADatabase, match=r"songs\.db holds the tables of another program"):
        read(file)


@pytest.mark.parametrize("era", [None, *ERAS])
def test_a_copy_aside_may_be_written_and_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, era: str | None
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    file = None if era is None else copy_of(era, tmp_path)
    before = file and digest(file)

    async def scenario() -> int:
        async with unchanged.open_aside(None if file is None else str(file)) as store:
            assert len(list(temporary.iterdir())) == 1
            await store.add_mappings([Mapping("m", "new", "u")])
            return (await store.usage())["unihashes_v3"]

    assert asyncio.run(scenario()) == 1 + (0 if era is None else ROWS[era][0])
    assert before == (file and digest(file))
    assert not list(temporary.iterdir())
