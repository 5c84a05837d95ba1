"""``hashserv copy``: equal at the end, whatever the source's era and however often it is begun."""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.commands import hashserv, python
from tests.conftest import StartServer
from tests.peers import Peer, digest
from tests.store import databases
from tests.store.databases import AS_THE_REFERENCE, ERAS, copy_of, make, rows

COLUMNS = {
    "unihashes_v3": "method, taskhash, unihash, gc_mark",
    "outhashes_v2": "method, taskhash, outhash, created, owner, PN, PV, PR, task, outhash_siginfo",
    "users": "username, token, permissions",
    "config": "name, value",
}

BATCH = 100

INTERRUPTED = f"""
import os, sys
from hashserv.cli.main import main
from hashserv.equivalence import whole_tables
from hashserv.store import transactions

whole_tables.BATCH_ROWS = {BATCH}
insert = getattr(transactions, sys.argv[1])
left = int(sys.argv[2])

def insert_and_be_interrupted(connection, rows):
    global left
    committed = insert(connection, rows)
    left -= 1
    if not left:
        os.kill(os.getpid(), int(sys.argv[3]))
    return committed

setattr(transactions, sys.argv[1], insert_and_be_interrupted)
sys.exit(main(sys.argv[4:]))
"""
"""The command, with small batches and a signal to itself in the middle of a transaction."""


def content(file: Path) -> list[list[tuple[object, ...]]]:
    """Return all that is in a file, but for the ids, in their order."""
    return [
        rows(file, f"SELECT {columns} FROM {table} ORDER BY id")
        for table, columns in COLUMNS.items()
    ]


def files(directory: Path) -> dict[str, str]:
    """Return the files of a directory, and hashes of what is in them."""
    return {file.name: databases.digest(file) for file in directory.iterdir()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of today's reference, with users and a collection under way."""
    return copy_of("unihashes_v3", tmp_path)


@pytest.mark.parametrize("era", ERAS)
def test_a_copy_of_any_era_is_equal_and_its_source_is_unchanged(
    tmp_path: Path, start_server: StartServer, era: str
) -> None:
    source, target = copy_of(era, tmp_path), tmp_path / "new.db"
    before = databases.digest(source)
    done = hashserv("copy", source, target)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"{target} is equal to {source}, row by row"
    assert databases.digest(source) == before
    assert files(tmp_path).keys() == {source.name, target.name}
    start_server(database=source).stop()  # it brings the source up to date in place
    expected = content(source)
    assert content(target) == expected
    told = [line.split(",")[0].rsplit(maxsplit=1) for line in done.stdout.splitlines()[:3]]
    assert told == [
        [name, str(len(table))]
        for name, table in zip(("mappings", "outhash rows", "users"), expected, strict=False)
    ]


@pytest.mark.parametrize("insert", ["insert_mappings", "insert_outhashes"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_copy_goes_on(
    tmp_path: Path, source: Path, insert: str, batch: int, how: signal.Signals
) -> None:
    target = tmp_path / "new.db"
    begun = python("-c", INTERRUPTED, insert, str(batch), str(int(how)), "copy", source, target)
    killed = how == signal.SIGKILL
    assert begun.returncode == (-how if killed else 1)
    assert begun.stderr == (
        "" if killed else "Interrupted: the same command goes on where this one stopped\n"
    )
    table = {"insert_mappings": "unihashes_v3", "insert_outhashes": "outhashes_v2"}[insert]
    (held,) = rows(target, f"SELECT count(*) FROM {table}")[0]
    assert held == BATCH * (batch - 1 if killed else batch)
    done = hashserv("copy", source, target)
    assert (done.returncode, done.stderr) == (0, "")
    assert content(target) == content(source)
    mappings, outhashes = (line.split()[-5] for line in done.stdout.splitlines()[:2])
    assert int(mappings) == (225 - held if insert == "insert_mappings" else 0)
    assert int(outhashes) == (253 if insert == "insert_mappings" else 253 - held)


def test_a_copy_takes_less_of_the_disk(tmp_path: Path) -> None:
    source, target = make(tmp_path / "old.db", *AS_THE_REFERENCE), tmp_path / "new.db"
    digits = [f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}" * 4 for n in range(2000)]
    with closing(sqlite3.connect(source)) as connection:
        connection.executemany(
            "INSERT INTO unihashes_v3 (method, taskhash, unihash, gc_mark) "
            "VALUES ('m', ?1, ?1, '')",
            ((each,) for each in digits),
        )
        connection.executemany(
            "INSERT INTO outhashes_v2 (method, taskhash, outhash) VALUES ('m', ?1, ?1)",
            ((each,) for each in digits),
        )
        connection.commit()
    assert hashserv("copy", source, target).returncode == 0
    assert content(target) == content(source)
    assert target.stat().st_size < 0.75 * source.stat().st_size


def test_a_copy_of_a_copy_that_is_done_copies_nothing(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "new.db"
    first = hashserv("copy", source, target)
    again = hashserv("copy", source, target)
    assert again.returncode == 0
    assert again.stdout.count(" 0 of them copied now") == 3
    assert first.stdout.splitlines()[-1] == again.stdout.splitlines()[-1]


def test_a_server_may_go_on_with_the_source(tmp_path: Path, start_server: StartServer) -> None:
    server, target = start_server(), tmp_path / "new.db"
    with Peer(server.address) as peer:
        peer.report(digest(1), digest(2), digest(3))
        assert hashserv("copy", server.database, target).returncode == 0
        assert len(content(target)[0]) == 1
        peer.report(digest(4), digest(2), digest(5))
        assert hashserv("copy", server.database, target).returncode == 0
        assert content(target) == content(server.database)
        assert peer.lookup(digest(4)) == digest(3)


def test_what_is_added_meanwhile_is_told_and_left_for_the_next_time(
    tmp_path: Path, source: Path
) -> None:
    code = f"""
import sqlite3, sys
from hashserv.cli.main import main
from hashserv.equivalence import copying
copy = copying.copy

async def copy_and_add(*arguments):
    with sqlite3.connect({str(source)!r}) as other:
        other.execute("INSERT INTO unihashes_v3 VALUES (NULL, 'm', 't', 'u', '')")
    return await copy(*arguments)

copying.copy = copy_and_add
sys.exit(main(sys.argv[1:]))
"""
    target = tmp_path / "new.db"
    done = python("-c", code, "copy", source, target)
    assert done.returncode == 0, done.stderr
    assert "1 rows were added to the source meanwhile: copy again" in done.stdout
    assert len(content(target)[0]) == 225
    assert hashserv("copy", source, target).returncode == 0
    assert content(target) == content(source)


CHANGES = {
    "a unihash": ("UPDATE unihashes_v3 SET unihash = 'x' WHERE id = 3", "row 3 of the mappings: ("),
    "a mark": ("UPDATE unihashes_v3 SET gc_mark = 'x' WHERE id = 3", "row 3 of the mappings: ("),
    "a time": (
        "UPDATE outhashes_v2 SET created = '2020-01-01T00:00:00+00:00' WHERE id = 1",
        "row 1 of the outhash rows: (",
    ),
    "a field": ("UPDATE outhashes_v2 SET PN = 'x' WHERE id = 1", "row 1 of the outhash rows: ("),
    "a row more": (
        "INSERT INTO unihashes_v3 VALUES (NULL, 'm', 't', 'u', '')",
        "row 226 of the mappings: nothing in the source, ('m', 't', 'u', '') in the target",
    ),
    "a token": ("UPDATE users SET token = 'secret' WHERE id = 2", "number 2 of the users: "),
    "the collection": (
        "UPDATE config SET value = 'x'",
        "mark of the collection under way: gc-2024-06 in the source, x in the target",
    ),
}
"""What something else changes in a target, and what is said of it."""


@pytest.mark.parametrize("change", CHANGES)
def test_a_target_with_something_else_is_refused_and_left_alone(
    tmp_path: Path, source: Path, change: str
) -> None:
    statement, words = CHANGES[change]
    target = tmp_path / "new.db"
    assert hashserv("copy", source, target).returncode == 0
    make(target, statement)
    before = content(target)
    done = hashserv("copy", source, target)
    assert (done.returncode, done.stdout) == (1, "")
    assert "something else than a first part of the source" in done.stderr
    assert words in done.stderr
    assert "or use: hashserv merge" in done.stderr
    assert "secret" not in done.stderr
    assert content(target) == before


@pytest.mark.parametrize("change", [*CHANGES, "a row less"])
def test_a_copy_that_is_not_equal_is_told(tmp_path: Path, source: Path, change: str) -> None:
    statement, words = CHANGES.get(
        change,
        (
            "DELETE FROM outhashes_v2 WHERE id = (SELECT max(id) FROM outhashes_v2)",
            "row 253 of the outhash rows: (",
        ),
    )
    target = tmp_path / "new.db"
    code = f"""
import sqlite3, sys
from hashserv.cli.main import main
from hashserv.equivalence import copying
copy = copying.copy

async def copy_and_change(*arguments):
    inserted = await copy(*arguments)
    with sqlite3.connect({str(target)!r}) as other:
        other.execute({statement!r})
    return inserted

copying.copy = copy_and_change
sys.exit(main(sys.argv[1:]))
"""
    done = python("-c", code, "copy", source, target)
    assert done.returncode == 1
    assert "ERROR: The two are not equal. They differ in " in done.stderr
    assert words in done.stderr
    assert "is equal to" not in done.stdout
    assert "secret" not in done.stderr


def test_a_time_may_be_spelt_in_another_way(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "new.db"
    assert hashserv("copy", source, target).returncode == 0
    make(
        target,
        "UPDATE outhashes_v2 SET created = replace(replace(created, 'T', ' '), '+00:00', '')",
    )
    done = hashserv("copy", source, target, environment={"TZ": "UTC"})
    assert done.returncode == 0, done.stderr
    done = hashserv("copy", source, target, environment={"TZ": "Asia/Tokyo"})
    assert "row 1 of the outhash rows" in done.stderr


@pytest.mark.parametrize("era", ["tasks_v2", "unihashes_v2"])
def test_a_target_of_another_era_is_refused_and_stays_as_it_is(
    tmp_path: Path, source: Path, era: str
) -> None:
    target = copy_of(era, tmp_path)
    before = databases.digest(target)
    done = hashserv("copy", source, target)
    assert done.returncode == 1
    assert f"{target} holds rows of an older server" in done.stderr
    assert databases.digest(target) == before


def test_an_empty_target_of_the_reference_is_filled(tmp_path: Path, source: Path) -> None:
    target = copy_of("unihashes_v2", tmp_path)
    make(target, "DELETE FROM unihashes_v2", "DELETE FROM outhashes_v2")
    assert hashserv("copy", source, target).returncode == 0
    assert content(target) == content(source)


@pytest.mark.parametrize(
    ("names", "code", "words"),
    [
        (("missing.db", "new.db"), 1, "There is no file missing.db: name a database that exists"),
        (("song.db", "new.db"), 1, "song.db holds the tables of another program"),
        ((".", "new.db"), 1, "is a directory"),
        (("unihashes_v3.db", "song.db"), 1, "song.db holds the tables of another program"),
        (("unihashes_v3.db", "missing/new.db"), 1, "missing of the database does not exist"),
        (("unihashes_v3.db", "./unihashes_v3.db"), 2, "are the same database: name two"),
        (("unihashes_v3.db", "link.db"), 2, "are the same database: name two"),
        (("missing.db", "./missing.db"), 2, "are the same database: name two"),
        (("unihashes_v3.db", "other://host/name"), 2, "There is no engine for other://"),
        (("other://host/name", "new.db"), 2, "There is no engine for other://"),
        (("unihashes_v3.db",), 2, "arguments are required: TARGET"),
        (("unihashes_v3.db", "new.db", "--db-password-file", "no"), 2, "file no can't be read"),
    ],
)
def test_what_can_not_be_is_told_and_nothing_is_created(
    tmp_path: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("song.db"), "CREATE TABLE songs (id)")
    Path("link.db").symlink_to(source)
    before = files(tmp_path)
    done = hashserv("copy", *names)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert files(tmp_path) == before


def test_a_target_that_another_process_holds_is_told(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "new.db"
    with closing(sqlite3.connect(target, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        done = hashserv("copy", source, target)
    assert done.returncode == 1
    assert "is locked by another process: stop it" in done.stderr
