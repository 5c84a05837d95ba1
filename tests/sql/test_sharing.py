"""Several servers on one database: no taskhash has two answers, and caches are kept right."""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hashserv.model import Report
from hashserv.store.opening import LEAST_CONNECTIONS, Options, open_store
from tests.conftest import StartServer
from tests.engines import FreshDatabase
from tests.peers import METHOD, Peer, digest
from tests.servers import ServerProcess, wait_for
from tests.sql.load import Load, Told, look_up
from tests.sql_servers import Mariadb, Postgres

SOAKING = bool(os.environ.get("HASHSERV_SOAK"))
ONE_OF_EACH = ("asyncpg", "aiomysql")

# For each engine, after how many reports the clients have raced enough; in a soak, 60 seconds.
REPORTS = {"asyncpg": 3000, "aiomysql": 1000}
SOAK_SECONDS = 60
SERVERS = 4
PROCESSES = 10 if SOAKING else 3  # Python takes its time to start
CLIENTS = 64
TASKHASHES = [f"taskhash-{number}" for number in range(400)]
OUTHASHES = [f"outhash-{number}" for number in range(80)]


@pytest.mark.parametrize("engine", ONE_OF_EACH)
def test_ten_start_at_once_on_an_empty_database(engine: str, fresh_database: FreshDatabase) -> None:
    database = fresh_database(engine)
    options = Options(connections=LEAST_CONNECTIONS)

    async def start() -> None:
        stores = await asyncio.gather(*(open_store(database, options) for _ in range(10)))
        reported = await asyncio.gather(
            *(
                store.report([Report("m", f"t{number}", "o", digest(number))])
                for number, store in enumerate(stores)
            )
        )
        assert len({unihash for (unihash,) in reported}) == 1
        await asyncio.gather(*(store.close() for store in stores))

    asyncio.run(start())


@pytest.mark.parametrize("engine", ONE_OF_EACH)
def test_processes_start_at_once_on_an_empty_database(
    engine: str, fresh_database: FreshDatabase, short_tmp: Path
) -> None:
    database = fresh_database(engine)

    def start(number: int) -> ServerProcess:
        directory = short_tmp / f"server{number}"
        directory.mkdir()
        return ServerProcess(directory, database=database)

    with ThreadPoolExecutor(PROCESSES) as threads:
        servers = list(threads.map(start, range(PROCESSES)))
    try:
        with Peer(servers[0].address) as peer:
            unihash = peer.report("t", "o", digest(1))
        for number, server in enumerate(servers):
            with Peer(server.address) as peer:
                assert peer.report(f"t{number}", "o", digest(number + 2)) == unihash
                assert peer.lookup("t") == unihash
            assert "Traceback" not in server.log_text()
    finally:
        for server in servers:
            server.stop()


@pytest.mark.parametrize("engine", ONE_OF_EACH)
def test_races(engine: str, fresh_database: FreshDatabase, start_server: StartServer) -> None:
    database = fresh_database(engine)
    servers = [start_server(database=database) for _ in range(SERVERS)]
    told = Told()
    begun = time.monotonic()
    with Load(
        [server.address for server in servers],
        told,
        clients=CLIENTS,
        taskhashes=TASKHASHES,
        outhashes=OUTHASHES,
    ):
        told.await_more(REPORTS[engine])
        while SOAKING and time.monotonic() < begun + SOAK_SECONDS:
            told.await_more(100)
    seconds = time.monotonic() - begun
    print(
        f"{engine}: {told.count} reports in {seconds:.1f} s by {CLIENTS} clients, {SERVERS} servers"
    )
    assert told.changed == []
    for server in servers:
        with Peer(server.address) as peer:
            assert look_up(peer, TASKHASHES) == [told.unihashes.get(t, "") for t in TASKHASHES]
            for taskhash, outhash in sorted(told.rows)[::50]:
                row = peer.ask("get", {"method": METHOD, "taskhash": taskhash, "all": True})
                assert row["unihash"] == told.unihashes[taskhash]
                assert peer.ask("get-outhash", _output(taskhash, outhash))["outhash"] == outhash
        assert "Traceback" not in server.log_text()


def test_two_reporters_of_an_outhash_agree(
    fresh_database: FreshDatabase, start_server: StartServer
) -> None:
    database = fresh_database("asyncpg")
    servers = [start_server(database=database) for _ in range(2)]
    with Peer(servers[0].address) as one, Peer(servers[1].address) as other:
        for number in range(200):
            for at, peer in enumerate((one, other)):
                report = {"taskhash": f"t{number}-{at}", "unihash": digest(2 * number + at)}
                peer.send(_line("report", {**_output("", f"o{number}"), **report}))
            assert len({_unihash(peer) for peer in (one, other)}) == 1


Two = tuple[ServerProcess, ServerProcess]


@pytest.fixture(params=ONE_OF_EACH, scope="module")
def two_servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Two]:
    """Two servers for several tests, which keep to taskhashes of their own."""
    server: Postgres | Mariadb = request.getfixturevalue(
        "postgres" if request.param == "asyncpg" else "mariadb"
    )
    with server.database() as name:
        one, other = (
            ServerProcess(
                tmp_path_factory.mktemp("server"),
                database=server.url(name, request.param),
                bind="127.0.0.1:0",
            )
            for _ in range(2)
        )
        yield one, other
        one.stop()
        other.stop()


def test_what_one_adds_the_others_find_at_once(two_servers: Two) -> None:
    with Peer(two_servers[0].address) as one, Peer(two_servers[1].address) as other:
        for number in range(100, 120):
            assert other.lookup(f"t{number}") is None
            assert not _exists(other, digest(number))
            one.report(f"t{number}", f"o{number}", digest(number))
            assert other.lookup(f"t{number}") == digest(number)
            assert _exists(other, digest(number))


def test_what_one_removes_the_others_forget(two_servers: Two) -> None:
    with Peer(two_servers[0].address) as one, Peer(two_servers[1].address) as other:
        for number in range(3):
            one.report(f"t{number}", f"o{number}", digest(number))
        for number in range(3):
            assert other.lookup(f"t{number}") == digest(number)
            assert _exists(other, digest(number))
        assert one.ask("remove", {"where": {"taskhash": "t0"}})["count"] == 2
        assert one.lookup("t0") is None
        wait_for(lambda: other.lookup("t0") is None)
        assert not _exists(other, digest(0))
        assert other.lookup("t1") == digest(1)  # it is in the cache again
        assert one.ask("gc-mark", {"mark": "kept", "where": {"taskhash": "t2"}})["count"] == 1
        assert one.ask("gc-sweep", {"mark": "kept"})["count"] >= 1
        wait_for(lambda: other.lookup("t1") is None)
        assert other.lookup("t2") == digest(2)


def test_what_the_other_reports_after_a_removal_counts(two_servers: Two) -> None:
    with Peer(two_servers[0].address) as one, Peer(two_servers[1].address) as other:
        for number in range(200, 240, 2):
            other.report("t", "o", digest(number))
            assert one.ask("remove", {"where": {"taskhash": "t"}})["count"] == 2
            # It may not have heard of the removal yet: the database has the last word.
            assert one.report("t", "o", digest(number + 1)) == digest(number + 1)
            assert other.report("t", "o2", digest(999)) == digest(number + 1)
            assert other.lookup("t") == digest(number + 1)
            assert one.ask("remove", {"where": {"taskhash": "t"}})["count"] == 3


def test_users_of_one_are_the_others(
    fresh_database: FreshDatabase, start_server: StartServer
) -> None:
    database = fresh_database("asyncpg")
    login = ("--admin-user", "root", "--admin-password", "secret")
    servers = [start_server(*login, database=database) for _ in range(2)]
    with Peer(servers[0].address) as one, Peer(servers[1].address) as other:
        root = {"username": "root", "token": "secret"}
        for peer in (one, other):
            assert peer.ask("auth", root)["result"]
        new = one.ask("new-user", {"username": "anna", "permissions": ["@read"]})
        assert other.ask("get-user", {"username": "anna"})["permissions"] == ["@read"]
        anna = {"username": "anna", "token": new["token"]}
        with Peer(servers[1].address) as peer:
            assert peer.ask("auth", anna)["permissions"] == ["@read"]
        one.ask("set-user-perms", {"username": "anna", "permissions": ["@report"]})
        with Peer(servers[1].address) as peer:
            assert peer.ask("auth", anna)["permissions"] == ["@report"]
        one.ask("delete-user", {"username": "anna"})
        with Peer(servers[1].address) as peer:
            refused = peer.ask("auth", anna)
            assert "Unable to authenticate" in refused["invoke-error"]["message"]


def _output(taskhash: str, outhash: str) -> dict[str, object]:
    return {"method": METHOD, "taskhash": taskhash, "outhash": outhash, "with_unihash": False}


def _line(command: str, arguments: object) -> bytes:
    return json.dumps({command: arguments}).encode() + b"\n"


def _unihash(peer: Peer) -> str:
    line = peer.line()
    assert line is not None
    unihash: str = json.loads(line)["unihash"]
    return unihash


def _exists(peer: Peer, unihash: str) -> bool:
    peer.stream("exists-stream")
    peer.send(f"{unihash}\nEND\n".encode())
    answer, end = peer.lines(2)
    assert end == b"ok"
    return answer == b"true"
