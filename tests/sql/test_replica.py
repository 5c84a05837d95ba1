"""A read replica: it is asked first, and never believed when it says no, or lags behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hashserv import create_client
from tests.conftest import StartServer
from tests.peers import digest
from tests.servers import ServerProcess, wait_for
from tests.sql_servers import Postgres

METHOD = "m"

SCANS = "SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_tables WHERE relname = 'unihashes_v3'"


@pytest.fixture
def standby(open_tmp: Path, postgres: Postgres) -> Iterator[Postgres]:
    """A standby of the server that all tests share."""
    directory = open_tmp / "standby"
    directory.mkdir()
    server = Postgres(directory, of=postgres)
    yield server
    server.stop()


def look_up(server: ServerProcess, *taskhashes: str) -> list[str | None]:
    with create_client(server.address) as client:
        return client.get_unihash_batch((METHOD, taskhash) for taskhash in taskhashes)


def test_a_replica(postgres: Postgres, standby: Postgres, start_server: StartServer) -> None:
    first, second, third = map(digest, (1, 2, 3))
    with postgres.database() as name:
        there = start_server(database=postgres.url(name))
        server = start_server(
            *("--database-replica", standby.url(name), "--cache-bytes", "0"),
            database=postgres.url(name),
        )
        with create_client(there.address) as client:
            client.report_unihash(first, METHOD, first, first)
            wait_for(lambda: standby.execute("SELECT count(*) FROM unihashes_v3", name) == "1\n")
            assert look_up(server, first, second) == [first, None]
            wait_for(lambda: standby.execute(SCANS, name) != "0\n")

            standby.execute("SELECT pg_wal_replay_pause()")
            client.report_unihash(second, METHOD, second, second)
            assert look_up(server, first, second) == [first, second], "it was added a moment ago"
            assert client.remove({"method": METHOD, "taskhash": first}) == {"count": 2}
            wait_for(lambda: look_up(server, first) == [None])
            assert standby.execute("SELECT count(*) FROM unihashes_v3", name) == "1\n"
            assert look_up(server, first, second) == [None, second], "the replica still has it"
            standby.execute("SELECT pg_wal_replay_resume()")

            standby.kill()
            client.report_unihash(third, METHOD, third, third)
            assert look_up(server, first, second, third) == [None, second, third]
            assert "does not answer, look-ups go to the primary" in server.log_text()
        server.stop()
        there.stop()
