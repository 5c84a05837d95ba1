"""SQL servers that can't be used, or not now: a clear error, and recovery without a restart."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hashserv.errors import SettingsError, StoreError
from hashserv.model import MappingKey, Report
from hashserv.store.opening import Options, open_store
from tests.conftest import StartServer
from tests.engines import FreshDatabase
from tests.peers import METHOD, Peer, digest
from tests.servers import ServerProcess, wait_for
from tests.sql_servers import LOCKED, Postgres, free_port

PASSWORD = "very-secret"


def fail_to_open(url: str, *, username: str | None = None, password: str = PASSWORD) -> str:
    """Open a database that can't be, and return what is said of it."""

    async def open_it() -> None:
        await open_store(url, Options(username=username, password=password))

    with pytest.raises((SettingsError, StoreError)) as caught:
        asyncio.run(open_it())
    words = str(caught.value)
    assert PASSWORD not in words
    return words


def fail_to_start(url: str, *arguments: str, without: str = "") -> str:
    """Start a server that ends with the exit code 1, and return what it says.

    Args:
        url: The database's.
        arguments: More flags.
        without: A module that is not installed.
    """
    hide = f"sys.modules[{without!r}] = None; " if without else ""
    program = f"import sys; {hide}from hashserv.cli.main import main; sys.exit(main())"
    started = subprocess.run(
        [
            *(sys.executable, "-c", program, "serve"),
            *("--bind", "127.0.0.1:0", "--log", "DEBUG", "--database", url, *arguments),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "HASHSERVER_DB_PASSWORD": PASSWORD},
    )
    assert started.returncode == 1, started.stderr
    assert PASSWORD not in started.stderr
    assert "Traceback" not in started.stderr
    return started.stderr.splitlines()[-1]


def refusal(server: ServerProcess, command: str, **arguments: object) -> str:
    """Ask what is answered with an error, on a connection of its own; return the words."""
    with Peer(server.address) as peer:
        answer = peer.ask(command, {"method": METHOD, **arguments})
    assert answer is not None
    assert "invoke-error" in answer, answer
    words: str = answer["invoke-error"]["message"]
    assert PASSWORD not in words
    assert PASSWORD not in server.log_text()
    assert "Traceback" not in server.log_text()
    return words


def refused_report(server: ServerProcess, number: int) -> str:
    hashes = {"taskhash": f"t{number}", "outhash": f"o{number}", "unihash": digest(number)}
    return refusal(server, "report", **hashes)


def reports(server: ServerProcess, number: int) -> bool:
    """Report, and tell whether that was acknowledged."""
    with Peer(server.address) as peer:
        hashes = {"taskhash": f"t{number}", "outhash": f"o{number}", "unihash": digest(number)}
        return "unihash" in peer.ask("report", {"method": METHOD, **hashes})


def looks_up(server: ServerProcess, number: int) -> str | None:
    with Peer(server.address) as peer:
        return peer.lookup(f"t{number}")


@pytest.fixture
def role(postgres: Postgres) -> Iterator[str]:
    """A user of PostgreSQL with a password, who may do little."""
    postgres.execute(f"CREATE ROLE {LOCKED} LOGIN PASSWORD '{PASSWORD}'")
    yield LOCKED
    postgres.execute(f"DROP OWNED BY {LOCKED}; DROP ROLE {LOCKED}")


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


# What is wrong at the start.


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_wrong_password(
    driver: str, role: str, postgres: Postgres, fresh_database: FreshDatabase
) -> None:
    url = fresh_database(driver)
    postgres.execute(f"ALTER ROLE {role} PASSWORD 'another'")
    said = fail_to_start(url, "--db-username", role)
    assert "refused the login" in said
    assert "check --db-username, --db-password-file" in said


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"])
def test_wrong_password_of_mariadb(driver: str, fresh_database: FreshDatabase) -> None:
    said = fail_to_open(fresh_database(driver), username="nobody")
    assert "refused the login" in said


@pytest.mark.parametrize(
    "url",
    [
        *(
            f"postgresql+{driver}://root@no-such-host.invalid/x"
            for driver in ("asyncpg", "psycopg")
        ),
        *(f"mysql+{driver}://root@no-such-host.invalid/x" for driver in ("aiomysql", "asyncmy")),
        "postgresql+asyncpg://root@127.0.0.1:PORT/x",
        "postgresql+psycopg://root@127.0.0.1:PORT/x",
        *(f"mysql+{driver}://root@127.0.0.1:PORT/x" for driver in ("aiomysql", "asyncmy")),
        "postgresql+asyncpg://root@/x?host=127.0.0.1:PORT&host=127.0.0.1:PORT",
    ],
)
def test_no_server_there(url: str) -> None:
    while "PORT" in url:
        url = url.replace("PORT", str(free_port()), 1)
    assert "can't be reached" in fail_to_open(url)


@pytest.mark.parametrize("engine", ["asyncpg", "psycopg", "aiomysql", "asyncmy"])
def test_unknown_database(engine: str, fresh_database: FreshDatabase) -> None:
    url = fresh_database(engine).rpartition("/")[0]
    said = fail_to_open(f"{url}/other", password="")
    assert "does not exist: create the database first" in said


@pytest.mark.parametrize(
    ("url", "module", "words"),
    [
        ("oracle://host/x", "", "There is no engine for oracle://: use postgresql+asyncpg"),
        ("postgresql+pg8000://host/x", "", "There is no engine for postgresql+pg8000://"),
        ("postgresql://host:port/x", "", "can't be understood: write it as postgresql+asyncpg"),
        ("postgresql://host/x", "asyncpg", "pip install 'hashserv[postgresql]'"),
        ("postgresql+psycopg://host/x", "psycopg", "pip install 'hashserv[postgresql]'"),
        ("mysql://host/x", "aiomysql", "pip install 'hashserv[mysql]'"),
        ("mariadb+asyncmy://host/x", "asyncmy", "pip install 'hashserv[mysql]'"),
    ],
)
def test_unknown_or_missing_driver(
    url: str, module: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if module:
        monkeypatch.setitem(sys.modules, module, None)
    assert words in fail_to_open(url)


def test_no_sqlalchemy() -> None:
    said = fail_to_start("postgresql://host/x", without="sqlalchemy")
    assert "needs SQLAlchemy and a driver, which are not installed: pip install" in said


def test_tables_of_a_later_release(postgres: Postgres, fresh_database: FreshDatabase) -> None:
    url = fresh_database("asyncpg")
    postgres.execute("CREATE TABLE unihashes_v4 (id INTEGER)", name_of(url))
    assert "unihashes_v4 are not known here: update hashserv" in fail_to_open(url)


def test_no_right_to_create_tables(role: str, fresh_database: FreshDatabase) -> None:
    said = fail_to_open(fresh_database("asyncpg"), username=role)
    assert "lacks a permission (permission denied for schema public)" in said


def test_no_connection_left(role: str, postgres: Postgres, fresh_database: FreshDatabase) -> None:
    postgres.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
    said = fail_to_open(fresh_database("asyncpg"), username=role)
    assert "takes no more connections: lower --database-pool" in said


# What goes wrong later.


def as_role(start_server: StartServer, url: str, role: str) -> ServerProcess:
    """Start a server that may use tables that the administrator's server created."""
    start_server(database=url).stop()
    return start_server(
        *("--db-username", role, "--database-timeout", "0.5"),
        database=url,
        environment={"HASHSERVER_DB_PASSWORD": PASSWORD},
    )


def test_no_right_to_write(
    role: str, postgres: Postgres, fresh_database: FreshDatabase, start_server: StartServer
) -> None:
    url = fresh_database("asyncpg")
    postgres.execute(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}", name_of(url))
    server = as_role(start_server, url, role)
    assert looks_up(server, 1) is None
    assert "lacks a permission" in refused_report(server, 1)
    postgres.execute(
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};"
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}",
        name_of(url),
    )
    assert reports(server, 1)


def test_a_read_only_database(
    postgres: Postgres, fresh_database: FreshDatabase, start_server: StartServer
) -> None:
    url = fresh_database("asyncpg")
    server = start_server("--database-timeout", "0.5", database=url)
    assert reports(server, 1)
    alter = f"ALTER DATABASE {name_of(url)} SET default_transaction_read_only"
    postgres.execute(f"{alter} = on;{end_of_connections(url)}")
    assert "can't be written, it is a standby or read-only" in refused_report(server, 2)
    assert looks_up(server, 1) == digest(1)
    postgres.execute(f"{alter} = off", "postgres")
    wait_for(lambda: reports(server, 2))


def test_connections_run_out(
    role: str, postgres: Postgres, fresh_database: FreshDatabase, start_server: StartServer
) -> None:
    url = fresh_database("asyncpg")
    postgres.execute(f"ALTER DATABASE {name_of(url)} OWNER TO {role}")
    server = start_server(
        *("--db-username", role, "--database-timeout", "0.5"),
        database=url,
        environment={"HASHSERVER_DB_PASSWORD": PASSWORD},
    )
    assert reports(server, 1)
    postgres.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0;{end_of_connections(url)}")
    wait_for(lambda: "takes no more connections" in refusal(server, "get", taskhash="t2"))
    assert "takes no more connections: lower --database-pool" in refused_report(server, 2)
    postgres.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")
    wait_for(lambda: reports(server, 2))
    postgres.execute(f"REASSIGN OWNED BY {role} TO postgres", name_of(url))


@contextmanager
def trigger(postgres: Postgres, database: str, when: str, code: str) -> Iterator[None]:
    """Have PostgreSQL fail with an error code at each mapping, while a condition is met."""
    postgres.execute(
        f"""
        CREATE SEQUENCE tries;
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF {when} THEN RAISE EXCEPTION 'it fails' USING ERRCODE = '{code}'; END IF;
            RETURN NEW; END $$;
        CREATE TRIGGER fail BEFORE INSERT ON unihashes_v3 FOR EACH ROW EXECUTE FUNCTION fail();
        """,
        database,
    )
    yield
    postgres.execute("DROP FUNCTION fail CASCADE; DROP SEQUENCE tries", database)


def test_a_full_disk(
    postgres: Postgres, fresh_database: FreshDatabase, start_server: StartServer
) -> None:
    # What PostgreSQL says then comes of a trigger: a disk that is full needs a mount.
    url = fresh_database("asyncpg")
    server = start_server(database=url)
    assert reports(server, 1)
    with trigger(postgres, name_of(url), "true", "53100"):
        for _ in range(3):
            assert "No space left for" in refused_report(server, 2)
            assert looks_up(server, 1) == digest(1)
            assert looks_up(server, 2) is None
    assert reports(server, 2)


def test_transactions_that_are_undone_are_done_again(
    postgres: Postgres, fresh_database: FreshDatabase, start_server: StartServer
) -> None:
    url = fresh_database("asyncpg")
    server = start_server(database=url)
    for number, code in enumerate(("40001", "40P01", "55P03", "57P01")):
        with trigger(postgres, name_of(url), "nextval('tries') % 3 > 0", code):
            assert reports(server, number)
            assert looks_up(server, number) == digest(number)


def test_all_connections_are_in_use(
    postgres: Postgres, fresh_database: FreshDatabase, start_server: StartServer
) -> None:
    url = fresh_database("asyncpg")
    server = start_server("--database-pool", "4", "--database-timeout", "0.5", database=url)
    locks = "SELECT count(*) FROM pg_locks WHERE relation = 'unihashes_v3'::regclass AND"
    locking = subprocess.Popen(postgres.client(name_of(url)), stdin=subprocess.PIPE, text=True)
    assert locking.stdin is not None
    with locking, Peer(server.address) as first:
        locking.stdin.write("BEGIN; LOCK unihashes_v3;\n")
        locking.stdin.flush()
        wait_for(lambda: postgres.execute(f"{locks} granted", name_of(url)) == "1\n")
        first.send(b'{"get": {"method": "m", "taskhash": "t"}}\n')
        wait_for(lambda: postgres.execute(f"{locks} NOT granted", name_of(url)) == "1\n")
        words = refusal(server, "get", taskhash="t", all=True)
        assert "all connections to it are in use; raise --database-pool" in words
        locking.stdin.close()  # which ends the transaction
        assert first.line() == b"null"
    assert looks_up(server, 1) is None


@pytest.mark.parametrize("engine", ["asyncpg", "psycopg", "aiomysql", "asyncmy"])
def test_what_the_database_refuses_fails_alone(engine: str, fresh_database: FreshDatabase) -> None:
    good = [Report("m", f"t{number}", f"o{number}", digest(number)) for number in range(20)]
    long = "".join(digest(number**9) for number in range(200))
    bad = [
        Report("m", long, "o", digest(98)),
        Report("m", "t", long, digest(99)),
    ]
    if engine in ("asyncpg", "psycopg"):  # which have no such character in texts
        bad.append(Report("m", "t\0", "o", digest(97)))

    async def report_all() -> None:
        store = await open_store(fresh_database(engine), Options(durable=False))
        try:
            answers = await asyncio.gather(
                *(store.report([report]) for report in [*good[:10], *bad, *good[10:]]),
                return_exceptions=True,
            )
            refused = answers[10 : 10 + len(bad)]
            assert all(isinstance(each, StoreError) for each in refused), refused
            assert all("can't take this" in str(each) for each in refused)
            del answers[10 : 10 + len(bad)]
            assert answers == [[report.unihash] for report in good]
            found = await store.lookup([report.key for report in (*good, *bad)])
            assert found == [*(report.unihash for report in good), *(None for _ in bad)]
        finally:
            await store.close()

    asyncio.run(report_all())


def end_of_connections(url: str) -> str:
    return (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{name_of(url)}' AND pid <> pg_backend_pid()"
    )


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_what_can_not_be_there_is_not_found(driver: str, fresh_database: FreshDatabase) -> None:
    async def look_up() -> None:
        store = await open_store(fresh_database(driver), Options(durable=False))
        try:
            await store.report([Report("m", "t", "o", digest(1))])
            keys = [MappingKey("m", "t"), MappingKey("m", "t\0"), MappingKey("\0", "t")]
            answers = await asyncio.gather(*(store.lookup([key]) for key in keys))
            assert answers == [[digest(1)], [None], [None]]
            assert await store.exists([digest(1), "\0", r"\u0000"]) == [True, False, False]
        finally:
            await store.close()

    asyncio.run(look_up())
