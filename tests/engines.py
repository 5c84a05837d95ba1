"""Databases of every engine, for tests that are about all of them."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.sql_servers import MARIADBD, Mariadb, Postgres, system_database
from tests.store.databases import AS_THE_REFERENCE, make

SQL_ENGINES: Final = ("asyncpg", "psycopg", "aiomysql", "asyncmy")
"""By their drivers."""

SYSTEM: Final = os.environ.get("HASHSERV_TEST_POSTGRESQL")
"""A PostgreSQL server that runs already: a URL, whose user may create databases."""

REFERENCE_FILE: Final = "reference-file"
"""SQLite, with a file that the reference has created."""

ENGINES: Final = ("sqlite", REFERENCE_FILE, *SQL_ENGINES, *(["system"] if SYSTEM else []))

FreshDatabase = Callable[[str], str]


@pytest.fixture(scope="session")
def open_tmp() -> Iterator[Path]:
    """A directory that every user may look into."""
    directory = Path(tempfile.mkdtemp(prefix="hs-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres(open_tmp: Path) -> Iterator[Postgres]:
    """A PostgreSQL server."""
    directory = open_tmp / "postgres"
    directory.mkdir()
    server = Postgres(directory)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mariadb(open_tmp: Path) -> Iterator[Mariadb]:
    """A MariaDB server."""
    if MARIADBD is None:
        pytest.skip("MariaDB is not installed (Debian: mariadb-server)")
    directory = open_tmp / "mariadb"
    directory.mkdir()
    server = Mariadb(directory)
    yield server
    server.stop()


@pytest.fixture
def fresh_database(request: pytest.FixtureRequest, short_tmp: Path) -> Iterator[FreshDatabase]:
    """Create empty databases: `fresh_database(engine)` returns what to name to a server."""
    with ExitStack() as stack:
        count = 0

        def create(engine: str) -> str:
            nonlocal count
            count += 1
            if engine == "sqlite":
                return str(short_tmp / f"fresh{count}.db")
            if engine == REFERENCE_FILE:
                return str(make(short_tmp / f"fresh{count}.db", *AS_THE_REFERENCE))
            if engine == "system":
                return stack.enter_context(system_database(SYSTEM or ""))
            server: Postgres | Mariadb
            if engine in ("asyncpg", "psycopg"):
                server = request.getfixturevalue("postgres")
            else:
                server = request.getfixturevalue("mariadb")
            return server.url(stack.enter_context(server.database()), engine)

        yield create
