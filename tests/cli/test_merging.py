"""``hashserv merge``: what is held first stays, and whatever is left out is told."""

from pathlib import Path

import pytest

from tests.cli.commands import hashserv
from tests.cli.test_copying import content, files
from tests.conftest import StartServer
from tests.peers import Peer, digest
from tests.store.databases import ERAS, copy_of, make, rows

HEADER = "method\ttaskhash\tkept\tkept_of\tleft\tleft_of"


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Databases of all eras in the directory that is worked in."""
    monkeypatch.chdir(tmp_path)
    return tuple(copy_of(era, tmp_path).name for era in ERAS)


def three(directory: Path) -> tuple[str, ...]:
    """Make a target and two sources that contradict it and each other, and two of the users."""
    made = []
    for name, mappings, token in (
        ("target", "('m', 't1', 'u1', 'old')", "secret-1"),
        ("one", "('m', 't1', 'v1', ''), ('m', 't2', 'v2', 'x')", "secret-1"),
        ("two", "('m', 't1', 'u1', ''), ('m', 't2', 'w2', ''), ('m', 't3', 'w3', '')", "secret-2"),
    ):
        file = directory / f"{name}.db"
        assert hashserv("merge", file, copy_of("unihashes_v2", directory)).returncode == 0
        make(
            file,
            "DELETE FROM unihashes_v3",
            "DELETE FROM outhashes_v2",
            f"INSERT INTO unihashes_v3 (method, taskhash, unihash, gc_mark) VALUES {mappings}",
            "INSERT INTO outhashes_v2 (method, taskhash, outhash) SELECT method, taskhash, 'o' "
            "FROM unihashes_v3",
            f"INSERT INTO users (username, token, permissions) VALUES ('anna', '{token}', '')",
        )
        made.append(file.name)
    (directory / "unihashes_v2.db").unlink()
    return tuple(made)


CONFLICTS = [
    HEADER,
    "m\tt1\tu1\ttarget.db\tv1\tone.db",
    "m\tt2\tv2\tone.db\tw2\ttwo.db",
]


@pytest.mark.parametrize("dry", [False, True])
def test_conflicts_are_told_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    made = three(tmp_path)
    before = files(tmp_path)
    done = hashserv("merge", *made, "--report", "report", *(["--dry-run"] * dry))
    assert (done.returncode, done.stderr) == (0, "")
    note = " (a dry run: nothing was changed)" * dry
    assert done.stdout.splitlines() == [
        f"Inserted 2 mappings, 2 outhash rows, 0 users{note}",
        "Left out 2 mappings whose taskhash has another unihash, which was held first and stays",
        "Outputs whose tasks have more than one unihash: 1 (before: 0)",
        "Left out the user anna of two.db: target.db has another of that name",
    ]
    assert Path("report").read_text().splitlines() == CONFLICTS
    Path("report").unlink()
    if dry:
        assert files(tmp_path) == before
        return
    after = files(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"target.db"}
    mappings, outhashes, users, _ = content(Path("target.db"))
    assert mappings == [("m", "t1", "u1", "old"), ("m", "t2", "v2", ""), ("m", "t3", "w3", "")]
    assert [row[:3] for row in outhashes] == [("m", f"t{n}", "o") for n in (1, 2, 3)]
    assert users == [("anna", "secret-1", "")]

    again = hashserv("merge", *made, "--report", "-")
    assert "Inserted 0 mappings, 0 outhash rows, 0 users" in again.stderr
    assert again.stdout.splitlines()[2] == "m\tt2\tv2\ttarget.db\tw2\ttwo.db"
    assert content(Path("target.db"))[0] == mappings


def test_conflicts_are_counted_without_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = hashserv("merge", *three(tmp_path))
    assert "Left out 2 mappings whose taskhash has another unihash" in done.stdout
    assert "held first and stays: see --report" in done.stdout
    assert "secret" not in done.stdout + done.stderr


def test_all_eras_are_merged_into_a_new_database(tmp_path: Path, names: tuple[str, ...]) -> None:
    before = files(tmp_path)
    dry = hashserv("merge", "new.db", *names, "--dry-run")
    assert dry.stdout.startswith("Inserted 677 mappings, 763 outhash rows, 7 users (a dry run")
    assert files(tmp_path) == before
    done = hashserv("merge", "new.db", *names)
    assert dry.stdout.replace(" (a dry run: nothing was changed)", "") == done.stdout
    assert (
        "unihashes_v3.db has a garbage collection under way, which is not merged: gc-2024-06"
        in (done.stdout)
    )
    assert {name: files(tmp_path)[name] for name in before} == before
    assert rows(Path("new.db"), "SELECT DISTINCT gc_mark FROM unihashes_v3") == [("",)]
    assert rows(Path("new.db"), "SELECT * FROM config") == []
    assert [len(table) for table in content(Path("new.db"))] == [677, 763, 7, 0]


@pytest.mark.parametrize("era", ERAS)
def test_a_target_of_any_era_is_merged_into(
    tmp_path: Path, names: tuple[str, ...], era: str
) -> None:
    others = [name for name in names if name != f"{era}.db"]
    before = files(tmp_path)
    dry = hashserv("merge", f"{era}.db", *others, "--dry-run")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert files(tmp_path) == before
    done = hashserv("merge", f"{era}.db", *others)
    assert dry.stdout.replace(" (a dry run: nothing was changed)", "") == done.stdout
    assert "dropped the superfluous index" in done.stderr  # as when a server opens it


def test_what_is_merged_into_a_collection_survives_its_sweep(tmp_path: Path) -> None:
    target, source = copy_of("unihashes_v3", tmp_path), copy_of("tasks_v2", tmp_path)
    unmarked = "SELECT count(*) FROM unihashes_v3 WHERE gc_mark != 'gc-2024-06'"
    before = rows(target, unmarked)
    done = hashserv("merge", target, source)
    assert done.stdout.startswith("Inserted 228 mappings")
    assert done.stdout.splitlines()[-1] == (
        "A garbage collection of the target is under way, which keeps what was inserted: gc-2024-06"
    )
    assert rows(target, unmarked) == before


def test_a_server_may_go_on_with_both(start_server: StartServer) -> None:
    one, two = start_server(), start_server()
    with Peer(one.address) as into, Peer(two.address) as source:
        into.report(digest(1), digest(2), digest(3))
        assert into.lookup(digest(4)) is None
        source.report(digest(1), digest(2), digest(5))
        source.report(digest(4), digest(6), digest(7))
        done = hashserv("merge", one.database, two.database)
        assert done.stdout.startswith("Inserted 1 mappings, 1 outhash rows")
        assert into.lookup(digest(1)) == digest(3)
        assert into.lookup(digest(4)) == digest(7)
        assert source.lookup(digest(1)) == digest(5)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("new.db", "missing.db"), 1, "There is no file missing.db: name a database that exists"),
        (("new.db", "tasks_v2.db", "missing.db"), 1, "There is no file missing.db"),
        (("song.db", "tasks_v2.db"), 1, "song.db holds the tables of another program"),
        (("song.db", "tasks_v2.db", "--dry-run"), 1, "song.db holds the tables of another"),
        (("missing/new.db", "tasks_v2.db"), 1, "missing of the database does not exist"),
        (("missing/new.db", "tasks_v2.db", "--dry-run"), 1, "missing of the database does not"),
        (("tasks_v2.db", "unihashes_v3.db", "./tasks_v2.db"), 2, "TARGET is one of the sources"),
        (("new.db", "x://host/name"), 2, "There is no engine for x://"),
        (("new.db", "tasks_v2.db", "--report", "no/report"), 2, "report no/report can't be writt"),
        (("new.db",), 2, "arguments are required: SOURCE"),
    ],
)
def test_what_can_not_be_is_told_and_nothing_is_created(
    tmp_path: Path, names: tuple[str, ...], arguments: tuple[str, ...], code: int, words: str
) -> None:
    assert names
    make(Path("song.db"), "CREATE TABLE songs (id)")
    before = files(tmp_path)
    done = hashserv("merge", *arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert files(tmp_path) == before
