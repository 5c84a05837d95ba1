"""``hashserv copy`` and ``merge`` between engines."""

from pathlib import Path

from tests.cli.commands import hashserv
from tests.cli.test_copying import content
from tests.engines import FreshDatabase
from tests.store.databases import copy_of


def test_a_copy_goes_round_all_engines_and_comes_back_equal(
    tmp_path: Path, fresh_database: FreshDatabase
) -> None:
    source = copy_of("unihashes_v3", tmp_path)
    back = tmp_path / "back.db"
    ways = [str(source), *map(fresh_database, ("asyncpg", "aiomysql", "psycopg")), str(back)]
    for at, target in enumerate(ways[1:]):
        done = hashserv("copy", ways[at], target)
        assert (done.returncode, done.stderr) == (0, ""), (ways[at], target)
        assert "is equal to" in done.stdout.splitlines()[-1]
    again = hashserv("copy", ways[0], ways[1])
    assert again.returncode == 0
    assert hashserv("copy", source, back).returncode == 0
    before, after = content(source), content(back)
    assert after[0] == before[0]
    assert after[2:] == before[2:]
    # Of outhash rows all but the spelling of times.
    assert [row[:3] + row[4:] for row in after[1]] == [row[:3] + row[4:] for row in before[1]]


def test_databases_of_several_engines_are_merged(
    tmp_path: Path, fresh_database: FreshDatabase
) -> None:
    source = copy_of("unihashes_v3", tmp_path)
    target = fresh_database("asyncpg")
    assert hashserv("merge", target, source).returncode == 0
    again = hashserv("merge", target, source)
    assert again.returncode == 0
    assert hashserv("merge", "--dry-run", tmp_path / "unihashes_v3.db", target).returncode == 0
