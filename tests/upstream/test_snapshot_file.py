"""The file of a snapshot: whose it is, what it holds, and what may happen to it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from hashserv.errors import StoreError
from hashserv.model import MappingKey
from hashserv.store.sqlite import SqliteStore
from hashserv.upstream.snapshot_file import ADD, LOOKUP, PAGE_BYTES, SnapshotFile
from hashserv.wire.snapshot import BEGINNING, Position, mask, position_after
from tests.peers import METHOD, digest
from tests.upstream.asking import run, unihash

UPSTREAM = "far:8686"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "snapshot"


def keys(numbers: range) -> list[MappingKey]:
    return [MappingKey(METHOD, digest(number)) for number in numbers]


def rows(numbers: range) -> bytes:
    return mask(keys(numbers), [unihash(number) for number in numbers])


async def add(file: SnapshotFile, numbers: range) -> Position:
    added = rows(numbers)
    position = position_after(added, numbers[-1] + 1)
    await file.add(added, position)
    return position


def filled(path: Path, numbers: range = range(3000)) -> Position:
    async def fill() -> Position:
        file = SnapshotFile(str(path), UPSTREAM)
        position = await add(file, numbers)
        await file.close()
        return position

    return run(fill())


def test_what_was_added_is_found_again(path: Path) -> None:
    position = filled(path, range(5))

    async def check() -> None:
        file = SnapshotFile(str(path), UPSTREAM)
        assert (file.position, file.mappings) == (position, 5)
        assert file.lookup([]) == []
        assert file.lookup(keys(range(7))) == [*map(unihash, range(5)), None, None]
        last = await add(file, range(5, 7))
        assert file.lookup(keys(range(7))) == list(map(unihash, range(7)))
        assert (file.position, file.mappings) == (last, 7)
        changed = mask(keys(range(1)), [digest(1)])
        await file.add(changed, position_after(changed, 8))
        assert file.lookup(keys(range(2))) == [digest(1), unihash(1)]  # what is newer counts
        await file.start_anew()
        assert (file.position, file.mappings) == (BEGINNING, 0)
        assert file.lookup(keys(range(7))) == [None] * 7
        await file.close()
        await file.close()

    run(check())


def test_the_file_of_another_upstream_is_begun_anew(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(path)

    async def check() -> None:
        file = SnapshotFile(str(path), "other:8686")
        assert (file.position, file.mappings) == (BEGINNING, 0)
        assert file.lookup(keys(range(1))) == [None]
        await file.close()

    run(check())
    assert "is of another upstream than other:8686" in caplog.text


@contextmanager
def changed(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection:
        with connection:
            yield connection
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.mark.parametrize("damage", ["cut", "no source", "no table", "another release"])
def test_a_useless_file_is_begun_anew(path: Path, damage: str) -> None:
    filled(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:10000])
    else:
        with changed(path) as connection:
            connection.execute(
                {
                    "no source": "DELETE FROM source",
                    "no table": "DROP TABLE mappings",
                    "another release": "PRAGMA user_version = 99",
                }[damage]
            )

    async def check() -> None:
        file = SnapshotFile(str(path), UPSTREAM)
        for _ in range(3):  # some damage shows only when it is used
            file.lookup(keys(range(1)))
            if file.failure is None:
                break
            await file.mend()
        assert file.mappings == 0
        await add(file, range(10))
        assert file.lookup(keys(range(1))) == [unihash(0)]
        await file.close()

    run(check())


def test_damage_in_the_middle_is_found_when_it_is_met(path: Path) -> None:
    filled(path)
    whole = bytearray(path.read_bytes())
    whole[3 * PAGE_BYTES :] = b"\xee" * (len(whole) - 3 * PAGE_BYTES)  # leaves of the rows
    path.write_bytes(whole)

    async def check() -> None:
        file = SnapshotFile(str(path), UPSTREAM)
        assert file.mappings == 3000
        assert file.lookup(keys(range(100))) == [None] * 100
        assert "is damaged" in str(file.failure)
        assert file.lookup(keys(range(100))) == [None] * 100
        await file.mend()
        assert (file.failure, file.position) == (None, BEGINNING)
        await add(file, range(10))
        assert file.lookup(keys(range(1))) == [unihash(0)]
        await file.close()

    run(check())


@pytest.mark.parametrize("what", ["text", "another database", "ours", "directory", "no place"])
def test_what_is_not_a_snapshot_is_refused(path: Path, what: str) -> None:
    match what:
        case "text":
            path.write_text("precious\n" * 100)
        case "another database":
            with changed(path) as connection:
                connection.execute("CREATE TABLE t (x)")
        case "ours":
            run(_store(path))
        case "directory":
            path.mkdir()
        case _:
            path = path / "missing" / "file"
    before = path.read_bytes() if path.is_file() else None
    words = {"directory": "Is a directory", "no place": "does not exist: create it"}

    async def check() -> None:
        with pytest.raises(StoreError, match=words.get(what, "some other program's file")):
            SnapshotFile(str(path), UPSTREAM)

    run(check())
    assert (path.read_bytes() if path.is_file() else None) == before


async def _store(path: Path) -> None:
    await SqliteStore(str(path)).close()


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()


def test_a_file_that_is_removed_while_it_is_used(path: Path) -> None:
    async def check() -> None:
        file = SnapshotFile(str(path), UPSTREAM)
        await add(file, range(10))
        _remove(path)
        await add(file, range(10, 20))
        assert file.lookup(keys(range(20))) == list(map(unihash, range(20)))
        await file.close()

    run(check())
    assert not path.exists()
    filled(path)


def test_a_file_that_can_not_be_written(path: Path) -> None:
    async def check() -> None:
        file = SnapshotFile(str(path), UPSTREAM)
        await add(file, range(10))
        with closing(sqlite3.connect(path)) as other:
            other.execute(
                "CREATE TRIGGER t BEFORE INSERT ON mappings BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
            other.commit()
            with pytest.raises(StoreError, match="no"):
                await add(file, range(10, 20))
            assert file.lookup(keys(range(10, 11))) == [None]
            assert file.lookup(keys(range(1))) == [unihash(0)]  # what is there goes on
            assert file.position.id == 10
            other.execute("DROP TRIGGER t")
            other.commit()
        await file.mend()
        assert file.position.id == 10
        await add(file, range(10, 20))
        assert file.lookup(keys(range(10, 11))) == [unihash(10)]
        await file.close()

    run(check())


def test_look_ups_search_by_the_key(path: Path) -> None:
    filled(path)
    with closing(sqlite3.connect(path)) as connection:
        plan = str(
            connection.execute(f"EXPLAIN QUERY PLAN {LOOKUP}", {"keys": b"", "count": 1}).fetchall()
        )
        assert "SEARCH m USING PRIMARY KEY (key=?)" in plan
        assert "SCAN m" not in plan
        connection.execute(f"EXPLAIN {ADD}", {"rows": b"", "count": 1})
