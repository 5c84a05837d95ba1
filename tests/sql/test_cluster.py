"""A primary and its standby under the servers: deaths, promotions, restarts, frozen hosts."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from hashserv.server.settings import Settings
from tests.conftest import StartServer
from tests.engines import FreshDatabase
from tests.peers import METHOD, Peer, digest
from tests.servers import wait_for
from tests.sql.load import MOST_TOGETHER, Load, Told
from tests.sql_servers import Mariadb, Postgres

SOAKING: Final = bool(os.environ.get("HASHSERV_SOAK"))
DEATHS: Final = 10 if SOAKING else 2
DRIVERS: Final = ("asyncpg", "psycopg")
CLIENTS: Final = 32
IN_FLIGHT: Final = CLIENTS * MOST_TOGETHER
TASKHASHES: Final = [f"taskhash-{number}" for number in range(3000)]
OUTHASHES: Final = [f"outhash-{number}" for number in range(900)]


class Cluster:
    """A primary, and a standby that its commits wait for.

    Args:
        directory: For the files, in a path that every user may follow.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self.primary = Postgres(self._fresh())
        self.primary.execute("CREATE DATABASE hs")
        self.standby = Postgres(self._fresh(), of=self.primary)
        self.primary.wait_for_standby()
        self.hosts = [self.primary.port, self.standby.port]

    def url(self, driver: str) -> str:
        hosts = "&".join(f"host=127.0.0.1:{port}" for port in self.hosts)
        return f"postgresql+{driver}://postgres@/hs?{hosts}"

    def promote(self) -> None:
        """Make the standby the primary, once that is dead or frozen."""
        self.standby.promote()

    def replace(self) -> None:
        """Build a new standby where the former primary was, which is dead."""
        self.primary, former = self.standby, self.primary
        self.standby = Postgres(self._fresh(), of=self.primary, port=former.port)
        self.primary.wait_for_standby()

    def stop(self) -> None:
        for server in (self.primary, self.standby):
            with suppress(ProcessLookupError, FileNotFoundError):
                server.kill()

    def _fresh(self) -> Path:
        self._count += 1
        directory = self._directory / f"postgres{self._count}"
        directory.mkdir()
        return directory


@pytest.fixture
def cluster(open_tmp: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    directory = open_tmp / f"cluster{abs(hash(request.node.name))}"
    directory.mkdir()
    cluster = Cluster(directory)
    yield cluster
    cluster.stop()


def check(database: Postgres, told: Told) -> None:
    """Look in the database for all that was answered."""
    assert told.changed == []
    rows = database.execute("SELECT taskhash, outhash FROM outhashes_v2", "hs").splitlines()
    assert told.rows <= {(taskhash, outhash) for taskhash, outhash in (r.split("|") for r in rows)}
    mappings = database.execute("SELECT taskhash, unihash FROM unihashes_v3", "hs").splitlines()
    assert told.unihashes.items() <= dict(row.split("|") for row in mappings).items()


def test_the_primary_dies(cluster: Cluster, start_server: StartServer) -> None:
    servers = [start_server(database=cluster.url(driver)) for driver in DRIVERS]
    told = Told()
    waits = []
    with Load(
        [server.address for server in servers],
        told,
        clients=CLIENTS,
        taskhashes=TASKHASHES,
        outhashes=OUTHASHES,
    ):
        for _ in range(DEATHS):
            told.await_more(500)
            cluster.primary.kill()
            cluster.promote()
            promoted = time.monotonic()
            told.await_more(IN_FLIGHT + 1)
            waits.append(time.monotonic() - promoted)
            told.await_more(500)
            cluster.replace()
        told.await_more(500)
    print(f"{told.count} reports; served {max(waits):.2f} s after promotion at most")
    check(cluster.primary, told)
    for server in servers:
        assert "Traceback" not in server.log_text()
        assert "is back" in server.log_text()


def test_the_primary_freezes(cluster: Cluster, start_server: StartServer) -> None:
    servers = [start_server(database=cluster.url(driver)) for driver in DRIVERS]
    told = {server: Told() for server in servers}
    with ExitStack() as loads:
        for number, server in enumerate(servers):
            hashes = [f"{number}-{taskhash}" for taskhash in TASKHASHES]
            load = Load(
                [server.address], told[server], clients=4, taskhashes=hashes, outhashes=hashes
            )
            loads.enter_context(load)
            told[server].await_more(100)
        cluster.primary.signal(signal.SIGSTOP)
        cluster.promote()
        promoted = time.monotonic()
        for driver, server in zip(DRIVERS, servers, strict=True):
            told[server].await_more(1)
            print(f"{driver}: served {time.monotonic() - promoted:.2f} s after promotion")
            told[server].await_more(100)
    for server in servers:
        check(cluster.standby, told[server])
        assert "Traceback" not in server.log_text()


@pytest.mark.parametrize("driver", DRIVERS if SOAKING else DRIVERS[:1])
def test_acknowledged_is_what_the_standby_has(
    driver: str, cluster: Cluster, start_server: StartServer
) -> None:
    server = start_server("--database-timeout", "1", database=cluster.url(driver))
    with Peer(server.address) as reporter, Peer(server.address) as other:
        assert reporter.report("t", "o", digest(1)) == digest(1)
        cluster.standby.signal(signal.SIGSTOP)
        arguments = {"method": METHOD, "taskhash": "t2", "outhash": "o2", "unihash": digest(2)}
        reporter.send(json_line("report", arguments))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        wait_for(lambda: cluster.primary.execute(waiting) == "1\n")
        assert other.lookup("t2") is None
        if SOAKING:  # it takes as long as a try, and another
            assert "invoke-error" in reply(reporter)
            assert other.lookup("t") == digest(1)
            assert other.lookup("t2") is None, "visible before it is safe"
        cluster.standby.signal(signal.SIGCONT)
        if not SOAKING:
            assert reply(reporter)["unihash"] == digest(2)
        wait_for(lambda: other.lookup("t2") == digest(2))


def test_what_the_promoted_standby_lacks_is_forgotten(
    cluster: Cluster, start_server: StartServer
) -> None:
    servers = [start_server(database=cluster.url("asyncpg")) for _ in range(2)]
    cluster.primary.set("synchronous_standby_names = ''")
    cluster.standby.stop()
    with Peer(servers[0].address) as one, Peer(servers[1].address) as other:
        assert one.report("t", "o", digest(1)) == digest(1)
        assert one.lookup("t") == other.lookup("t") == digest(1)  # from now on out of the cache
        cluster.primary.kill()
        cluster.standby.start()
        cluster.promote()
        assert one.report("t", "o", digest(2)) == digest(2)
        assert one.lookup("t") == digest(2)
        wait_for(lambda: other.lookup("t") == digest(2))


@pytest.mark.parametrize("engine", ["asyncpg", "psycopg", "aiomysql", "asyncmy"])
def test_a_restart(
    engine: str,
    fresh_database: FreshDatabase,
    request: pytest.FixtureRequest,
    start_server: StartServer,
) -> None:
    server = start_server(database=fresh_database(engine))
    database = server_of(request, engine)
    told = Told()
    with Load([server.address], told, clients=8, taskhashes=TASKHASHES, outhashes=OUTHASHES):
        told.await_more(100)
        database.stop()
        database.start()
        told.await_more(100)
    assert told.changed == []
    assert "is back" in server.log_text()
    assert "Traceback" not in server.log_text()


@pytest.mark.parametrize("engine", ["asyncpg", "aiomysql"])
def test_down_for_longer_than_the_time_out(
    engine: str,
    fresh_database: FreshDatabase,
    request: pytest.FixtureRequest,
    start_server: StartServer,
) -> None:
    server = start_server("--database-timeout", "0.5", database=fresh_database(engine))
    database = server_of(request, engine)
    with Peer(server.address) as peer:
        assert peer.report("t", "o", digest(1)) == digest(1)
    database.stop()
    try:
        for _ in range(2):
            with Peer(server.address) as peer:
                refused = peer.ask("get", {"method": METHOD, "taskhash": "other"})
                assert "can't be reached" in refused["invoke-error"]["message"]
            with Peer(server.address) as peer:
                arguments = {"method": METHOD, "taskhash": "t2", "outhash": "o2"}
                refused = peer.ask("report", {**arguments, "unihash": digest(2)})
                assert "start it, or check the URL" in refused["invoke-error"]["message"]
    finally:
        database.start()
    wait_for(lambda: serves(server.address))
    with Peer(server.address) as peer:
        assert peer.lookup("t") == digest(1)
        assert peer.report("t2", "o2", digest(2)) == digest(2)
    assert "Traceback" not in server.log_text()


@pytest.mark.parametrize("engine", ["aiomysql", "asyncmy"] if SOAKING else ["aiomysql"])
def test_a_frozen_mariadb(
    engine: str, mariadb: Mariadb, fresh_database: FreshDatabase, start_server: StartServer
) -> None:
    server = start_server("--database-timeout", "0.5", database=fresh_database(engine))
    with Peer(server.address) as one, Peer(server.address) as other:
        assert one.report("t", "o", digest(1)) == digest(1)
        mariadb.signal(signal.SIGSTOP)
        try:
            arguments = {"method": METHOD, "taskhash": "t2", "outhash": "o2", "unihash": digest(2)}
            one.send(json_line("report", arguments))
            other.send(json_line("get", {"method": METHOD, "taskhash": "other"}))
            for peer in (one, other):
                assert "can't be reached" in reply(peer)["invoke-error"]["message"]
        finally:
            mariadb.signal(signal.SIGCONT)
    wait_for(lambda: serves(server.address))
    with Peer(server.address) as peer:
        assert peer.report("t2", "o2", digest(2)) == digest(2)
    assert "Traceback" not in server.log_text()


def test_a_server_ends_though_its_database_is_frozen(
    postgres: Postgres, fresh_database: FreshDatabase, start_server: StartServer
) -> None:
    server = start_server("--shutdown-timeout", "0.1", database=fresh_database("asyncpg"))
    with Peer(server.address) as peer:
        assert peer.report("t", "o", digest(1)) == digest(1)
        postgres.signal(signal.SIGSTOP)
        try:
            peer.send(b'{"get": {"method": "m", "taskhash": "t"}}\n')
            assert server.stop() == 0
        finally:
            postgres.signal(signal.SIGCONT)
    assert "Traceback" not in server.log_text()


@pytest.mark.parametrize("driver", DRIVERS)
def test_clients_that_go_away_cost_no_connection(
    driver: str, postgres: Postgres, fresh_database: FreshDatabase, start_server: StartServer
) -> None:
    url = fresh_database(driver)
    server = start_server(database=url)
    opened = f"SELECT sessions FROM pg_stat_database WHERE datname = '{url.rpartition('/')[2]}'"
    request = {"method": METHOD, "taskhash": "t", "all": True}
    for _ in range(200):
        with Peer(server.address) as peer:
            peer.send(json_line("get", request))
    assert serves(server.address)
    server.stop()
    assert 1 <= int(postgres.execute(opened)) <= Settings.database_pool + 1
    assert "Traceback" not in server.log_text()


def server_of(request: pytest.FixtureRequest, engine: str) -> Postgres | Mariadb:
    name = "postgres" if engine in ("asyncpg", "psycopg") else "mariadb"
    server: Postgres | Mariadb = request.getfixturevalue(name)
    return server


def serves(address: str) -> bool:
    with Peer(address) as peer:
        reply = peer.ask("get", {"method": METHOD, "taskhash": "other"})
        return reply is None


def json_line(command: str, arguments: object) -> bytes:
    return json.dumps({command: arguments}).encode() + b"\n"


def reply(peer: Peer) -> Any:
    line = peer.line()
    assert line is not None, "closed without an answer"
    return json.loads(line)
