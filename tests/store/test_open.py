"""Opening what can't be used: a clear error, and the file stays as it was."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hashserv.errors import (
    DatabaseCorrupt,
    DatabaseFull,
    DatabaseLocked,
    NotADatabase,
    StoreError,
)
from hashserv.model import MappingKey
from hashserv.store import sqlite_file
from hashserv.store.sqlite import SqliteStore
from tests.store.databases import ERAS, copy_of, digest, make, overwrite, rows


class Unusable(NamedTuple):
    """A file, made in a directory, and what is said of it."""

    make: Callable[[Path], Path]
    error: type[StoreError]
    words: str


def written(name: str, data: bytes) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        (directory / name).write_bytes(data)
        return directory / name

    return write


def ours(directory: Path) -> Path:
    return copy_of("unihashes_v3", directory)


def truncated(directory: Path) -> Path:
    file = ours(directory)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def of_another_program(*statements: str) -> Callable[[Path], Path]:
    return lambda directory: make(directory / "other.db", *statements)


UNUSABLE = {
    "random bytes": Unusable(
        written("x.db", bytes(range(256)) * 64), NotADatabase, "is not an SQLite database: name"
    ),
    "text": Unusable(
        written("x.conf", b'BB_HASHSERVE = "auto"\n' * 100), NotADatabase, "is not an SQLite"
    ),
    "short text": Unusable(written("x.txt", b"hello\n"), NotADatabase, "is not an SQLite"),
    "another program's": Unusable(
        of_another_program("CREATE TABLE songs (id INTEGER)", "INSERT INTO songs VALUES (1)"),
        NotADatabase,
        "holds the tables of another program (songs)",
    ),
    "another program's, with users": Unusable(
        of_another_program("CREATE TABLE songs (id)", "CREATE TABLE users (id, name)"),
        NotADatabase,
        "holds the tables of another program",
    ),
    "another program's, with a config": Unusable(
        of_another_program("CREATE TABLE config (id, name)", "CREATE TABLE songs (id)"),
        NotADatabase,
        "holds the tables of another program",
    ),
    "another magic": Unusable(
        lambda directory: overwrite(ours(directory), 0, b"SQLITE format 9"),
        NotADatabase,
        "is not an SQLite database",
    ),
    "another page size": Unusable(
        lambda directory: overwrite(ours(directory), 16, b"\x12\x34"), NotADatabase, "is not an"
    ),
    "a damaged schema": Unusable(
        lambda directory: overwrite(ours(directory), 100, b"\xee" * 200),
        DatabaseCorrupt,
        "is damaged",
    ),
    "truncated": Unusable(truncated, DatabaseCorrupt, ".recover"),
    "a directory": Unusable(lambda directory: directory, StoreError, "is a directory: name a file"),
    "in no directory": Unusable(
        lambda directory: directory / "missing" / "hashserv.db",
        StoreError,
        "does not exist: create",
    ),
    "in a file": Unusable(
        lambda directory: written("file", b"")(directory) / "hashserv.db",
        StoreError,
        "does not exist: create",
    ),
}


def contents(place: Path) -> dict[str, str]:
    """Return what is in a directory, names and hashes, without SQLite's side files."""
    return {
        file.name: digest(file)
        for file in place.iterdir()
        if file.is_file() and not file.name.endswith(("-wal", "-shm"))
    }


async def open_and_close(path: Path, *, writable: bool = True) -> None:
    await SqliteStore(str(path), writable=writable).close()


def refusal(path: Path, *, writable: bool) -> tuple[type[StoreError], str]:
    """Return what is said of a file; no traceback keeps anything of it open afterwards."""
    with pytest.raises(StoreError) as refused:
        asyncio.run(open_and_close(path, writable=writable))
    return type(refused.value), str(refused.value)


@pytest.mark.parametrize("writable", [True, False], ids=["writable", "read-only"])
@pytest.mark.parametrize("case", UNUSABLE)
def test_what_cannot_be_used_is_told_and_left_alone(
    tmp_path: Path, case: str, writable: bool
) -> None:
    unusable = UNUSABLE[case]
    path = unusable.make(tmp_path)
    before = contents(tmp_path)
    kind, text = refusal(path, writable=writable)
    assert kind is unusable.error
    assert str(path.parent) in text
    assert unusable.words in text
    assert contents(tmp_path) == before


def start(
    path: Path, directory: Path, *, as_nobody: bool = False
) -> subprocess.CompletedProcess[str]:
    """Start a server that is to fail, as a user who may not write everything if asked to."""
    code = (
        "import os, sys, hashserv.server.app, uvloop; from hashserv.cli.main import main\n"
        "if sys.argv[1] == 'nobody' and os.getuid() == 0: os.setuid(65534)\n"
        "sys.exit(main(sys.argv[2:]))"
    )
    user = "nobody" if as_nobody else "same"
    flags = ["--bind", f"unix://{directory}/s.sock", "--database", str(path)]
    return subprocess.run(
        [sys.executable, "-c", code, user, "serve", *flags],
        capture_output=True,
        text=True,
        timeout=30,
    )


def check_refused(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("ERROR: ")
    assert words in line
    assert done.stdout == ""


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_server_says_so_in_one_line(tmp_path: Path, short_tmp: Path, case: str) -> None:
    path = UNUSABLE[case].make(tmp_path)
    before = contents(tmp_path)
    check_refused(start(path, short_tmp), UNUSABLE[case].words)
    assert contents(tmp_path) == before
    assert list(short_tmp.iterdir()) == []


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("what", ["file", "directory", "both"])
def test_a_place_that_may_not_be_written_is_told(short_tmp: Path, era: str, what: str) -> None:
    """A file that needs writing, or WAL's side files, which need the directory."""
    sockets, place = short_tmp / "s", short_tmp / "db"
    for directory, mode in ((short_tmp, 0o755), (sockets, 0o777), (place, 0o777)):
        directory.mkdir(exist_ok=True)
        directory.chmod(mode)
    file = copy_of(era, place)
    file.chmod(0o644 if what in ("file", "both") else 0o666)
    place.chmod(0o555 if what in ("directory", "both") else 0o777)
    before = digest(file)
    done = start(file, sockets, as_nobody=True)
    check_refused(done, "check the permissions of the file and its directory")
    assert digest(file) == before
    place.chmod(0o755)


def test_a_new_file_where_nothing_may_be_written(short_tmp: Path) -> None:
    sockets, place = short_tmp / "s", short_tmp / "db"
    for directory, mode in ((short_tmp, 0o755), (sockets, 0o777), (place, 0o555)):
        directory.mkdir(exist_ok=True)
        directory.chmod(mode)
    done = start(place / "new.db", sockets, as_nobody=True)
    check_refused(done, "check the permissions of the file and its directory")
    assert list(place.iterdir()) == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.05)


@pytest.fixture
def holder() -> Iterator[Callable[[Path], None]]:
    """Another process that holds a file for itself."""
    held: list[subprocess.Popen[bytes]] = []

    def hold(file: Path) -> None:
        code = (
            "import sqlite3, sys, signal\n"
            "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "c.execute('PRAGMA locking_mode = EXCLUSIVE')\n"
            "c.execute('BEGIN EXCLUSIVE')\n"
            "c.execute('CREATE TABLE IF NOT EXISTS config (id)')\n"
            "print('held', flush=True)\n"
            "signal.pause()"
        )
        process = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE)
        held.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"

    yield hold
    for process in held:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("era", ERAS)
def test_a_file_that_another_process_holds(
    tmp_path: Path, holder: Callable[[Path], None], era: str, journal: str
) -> None:
    file = make(copy_of(era, tmp_path), f"PRAGMA journal_mode = {journal}")
    before = digest(file)
    holder(file)
    with pytest.raises(DatabaseLocked, match="is locked by another process: stop it, or wait"):
        asyncio.run(open_and_close(file))
    assert digest(file) == before


def limit_pages(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Leave a file no page to grow by, as a full disk does."""
    connect = sqlite_file.connect
    pages = rows(file, "PRAGMA page_count")[0][0]

    def connect_full(path: str, *, writable: bool, busy: float) -> sqlite3.Connection:
        connection = connect(path, writable=writable, busy=busy)
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(sqlite_file, "connect", connect_full)


@pytest.mark.parametrize("journal", ["wal", "delete"])
@pytest.mark.parametrize("era", ["tasks_v2", "unihashes_v2"])
def test_a_disk_that_is_full_when_rows_are_carried_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, era: str, journal: str
) -> None:
    file = make(copy_of(era, tmp_path), f"PRAGMA journal_mode = {journal}", "VACUUM")
    before = digest(file)
    limit_pages(monkeypatch, file)
    with pytest.raises(DatabaseFull, match=r"No space left for .*: free some on its disk"):
        asyncio.run(open_and_close(file))
    assert digest(file) == before


def test_an_older_file_is_not_brought_up_to_date_by_who_may_only_read(tmp_path: Path) -> None:
    file = copy_of("tasks_v2", tmp_path)
    before = digest(file)
    with pytest.raises(StoreError, match="start once without --read-only"):
        asyncio.run(open_and_close(file, writable=False))
    assert digest(file) == before


def test_a_missing_file_is_not_made_by_who_may_only_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"new\.db"):
        asyncio.run(open_and_close(tmp_path / "new.db", writable=False))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["new.db", "with space.db", "a%20b?c#d.db", "é.db"])
def test_a_new_or_empty_file_becomes_a_database(tmp_path: Path, name: str) -> None:
    for file in (tmp_path / name, Path(os.path.relpath(tmp_path / f"empty-{name}"))):
        if file.name.startswith("empty"):
            file.touch()
        asyncio.run(open_and_close(file))
        tables = rows(file, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")
        assert {"config", "outhashes_v2", "unihashes_v3", "users"} < {name for (name,) in tables}
        assert rows(file, "PRAGMA journal_mode") == [("wal",)]


def test_who_may_only_read_reads_and_writes_nothing(tmp_path: Path) -> None:
    async def check(file: Path) -> None:
        store = SqliteStore(str(file), writable=False)
        key = MappingKey(*rows(file, "SELECT method, taskhash FROM unihashes_v3 LIMIT 1")[0])  # type: ignore[arg-type]
        assert await store.lookup([key]) != [None]
        assert (await store.collection()).mark == "gc-2024-06"
        for refused in (store.report([]), store.remove({"method": "m"}), store.sweep("x")):
            with pytest.raises(StoreError, match="open for reading only"):
                await refused
        await store.close()

    file = copy_of("unihashes_v3", tmp_path)
    before = digest(file)
    asyncio.run(check(file))
    assert digest(file) == before
