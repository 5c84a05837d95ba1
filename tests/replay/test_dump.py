"""A database that the reference made on PostgreSQL, under our server."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import StartServer
from tests.replay import differences
from tests.replay.conftest import Tally
from tests.replay.player import Player
from tests.replay.recording import find
from tests.replay.sections import Section, read_sections
from tests.sql_servers import Postgres

Loaded = Callable[[], str]

SCHEMA: Final = """
    SELECT table_name, column_name, data_type, is_nullable, column_default
    FROM information_schema.columns WHERE table_schema = 'public' AND table_name != 'hashserv_state'
    ORDER BY table_name, ordinal_position;
    SELECT indexdef FROM pg_indexes
    WHERE schemaname = 'public' AND tablename != 'hashserv_state' ORDER BY indexname;
"""


def fixture(name: str) -> Path:
    path = find("db", name)
    assert path is not None, f"{name} is part of the checkout"
    return path


@pytest.fixture
def loaded(postgres: Postgres) -> Iterator[Loaded]:
    """Load the dump into a database of its own: `loaded()` returns the database's name."""
    with ExitStack() as stack:

        def load() -> str:
            name = stack.enter_context(postgres.database())
            postgres.execute(fixture("postgres_v3.sql").read_text(), name)
            return name

        yield load


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize(
    "section",
    [
        pytest.param(section, id=section.name)
        for section in read_sections(fixture("postgres_v3.expected.json"))
    ],
)
def test_section(
    section: Section,
    driver: str,
    loaded: Loaded,
    postgres: Postgres,
    start_server: StartServer,
    database_tally: Tally,
) -> None:
    name = loaded()
    known_ids = int(postgres.execute("SELECT max(id) FROM outhashes_v2", name))
    server = start_server(*section.server_arguments, database=postgres.url(name, driver))
    player = Player(
        server.address,
        differences.of(f"postgres_v3: {section.name}"),
        known_ids=known_ids,
        gc_mark=None,  # there, the reference tells the mark with an outhash only
    )
    played = player.play(section.steps)
    database_tally.add(played)
    assert played.replies
    if played.wrong:
        pytest.fail("\n".join(played.wrong), pytrace=False)


def test_it_stays_the_references_own(
    loaded: Loaded, postgres: Postgres, start_server: StartServer
) -> None:
    """Columns, constraints and indexes are as they were, and so is each row."""
    name = loaded()
    rows = "SELECT * FROM {} ORDER BY id;"
    whole = SCHEMA + "".join(
        rows.format(table) for table in ("unihashes_v3", "outhashes_v2", "users", "config")
    )
    before = postgres.execute(whole, name)
    start_server(database=postgres.url(name)).stop()
    assert postgres.execute(whole, name) == before
