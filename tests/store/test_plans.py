"""Every statement finds its rows by an index: what SQLite's planner says of each."""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest

from hashserv.model import Condition
from hashserv.store import statements
from hashserv.store.schema import (
    COMPACT,
    CREATE_INDEXES,
    MAPPINGS,
    OUTHASHES,
    QUERY_COLUMNS,
    SQLITE_TYPES,
    TABLES,
    create_tables,
    is_indexed,
)
from hashserv.store.sqlite_statements import COMPACT_STATEMENTS, STATEMENTS, SqliteStatements
from hashserv.store.statements import Statements
from tests.store.databases import REFERENCE_INDEXES

CONDITIONS: list[Condition] = [
    {"method": "m", "taskhash": "x"},
    {"method": "m", "outhash": "x"},
    {"method": "m", "taskhash": "x", "outhash": "y"},
    {"unihash": "x"},
    {"unihash": "x", "method": "m", "gc_mark": "y"},
    {"method": "m", "taskhash": "x", "PN": "y"},
    {"method": "m"},
    {"taskhash": "x"},
    {"outhash": "x"},
    {"gc_mark": "x"},
    {"PN": "x"},
    {"method": "m", "PN": "x"},
    {"method": "m", "gc_mark": "x"},
]


def matching(table: str, *, indexed: bool) -> dict[str, Condition]:
    return {
        " ".join(condition): condition
        for condition in CONDITIONS
        if condition.keys() <= set(QUERY_COLUMNS[table]) and is_indexed(condition, table) is indexed
    }


def by_index(engine: SqliteStatements) -> dict[str, str]:
    """Return statements that must be quick however large the file is."""
    return {
        "lookup": engine.lookup,
        "unihashes": engine.unihashes,
        "exists": engine.exists,
        "task": engine.task,
        "equivalent": engine.equivalent,
        "outhash": engine.outhash,
        "outhashes_of_tasks": engine.outhashes_of_tasks,
        "oldest_equivalents": engine.oldest_equivalents,
        "REMARK": statements.REMARK,
        "CURRENT_MARK": statements.CURRENT_MARK,
        "SET_CURRENT_MARK": statements.SET_CURRENT_MARK,
        "ADD_CURRENT_MARK": statements.ADD_CURRENT_MARK,
        "FIND_USER": statements.FIND_USER,
        "ADD_USER": statements.ADD_USER,
        "SET_PERMISSIONS": statements.SET_PERMISSIONS,
        "SET_TOKEN": statements.SET_TOKEN,
        "REMOVE_USER": statements.REMOVE_USER,
        **{f"insert into {table}": engine.insert(table, 2) for table in (MAPPINGS, OUTHASHES)},
        **{
            f"{verb} {name}": statement(condition)
            for verb, statement in (
                ("mark", engine.mark_matching),
                ("count", engine.count_matching),
            )
            for name, condition in matching(MAPPINGS, indexed=True).items()
        },
        **{
            f"delete {name} from {table}": engine.delete_matching(table, condition)
            for table in (MAPPINGS, OUTHASHES)
            for name, condition in matching(table, indexed=True).items()
        },
    }


def by_slice(engine: SqliteStatements) -> dict[str, str]:
    """Return statements that go through a whole table, slice by slice."""
    return {
        "sweep": engine.delete_slice(MAPPINGS, statements.UNMARKED),
        "clean": engine.delete_slice(OUTHASHES, engine.unused),
        **{
            f"mark {name}": engine.mark_slice(statements.matching(condition))
            for name, condition in matching(MAPPINGS, indexed=False).items()
        },
        **{
            f"delete {name} from {table}": engine.delete_slice(
                table, statements.matching(condition)
            )
            for table in (MAPPINGS, OUTHASHES)
            for name, condition in matching(table, indexed=False).items()
        },
    }


BY_INDEX = list(by_index(STATEMENTS))
BY_SLICE = list(by_slice(STATEMENTS))

WHOLE_TABLE = {"COUNT_MARKED", "ALL_USERS", "split_outputs"}
"""Counting is a scan, in a thread of its own; users are few."""

FRAGMENTS = {"UNMARKED", "WITHOUT_MAPPING", "unused"}

BUILT = {name for name in BY_INDEX if " " in name}
"""Those that a function makes of a condition or a table."""


class Layout(NamedTuple):
    """What a file may be like, and the statements that are for it."""

    created: Sequence[str]
    statements: SqliteStatements


COMPACT_FILE = (*create_tables(SQLITE_TYPES, compact=True), *COMPACT.values())

LAYOUTS = {
    "the reference's": Layout((*create_tables(SQLITE_TYPES), *CREATE_INDEXES.values()), STATEMENTS),
    "compact": Layout(COMPACT_FILE, COMPACT_STATEMENTS),
    "compact, with the reference's indexes": Layout(
        (*COMPACT_FILE, *REFERENCE_INDEXES), COMPACT_STATEMENTS
    ),
}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> Layout:
    """Each layout."""
    return LAYOUTS[request.param]


@pytest.fixture(params=["empty", "analyzed", "analyzed, many methods"])
def database(request: pytest.FixtureRequest, layout: Layout) -> Iterator[sqlite3.Connection]:
    """A database whose planner knows nothing, or what the rows are like."""
    connection = sqlite3.connect(":memory:")
    for statement in layout.created:
        connection.execute(statement)
    if request.param != "empty":
        methods = 1 if request.param == "analyzed" else 500
        numbers = range(3000)
        connection.executemany(
            f"INSERT INTO {MAPPINGS} (method, taskhash, unihash, gc_mark) VALUES (?, ?, ?, '')",
            ((f"m{n % methods}", f"t{n}", f"u{n // 3}") for n in numbers),
        )
        connection.executemany(
            f"INSERT INTO {OUTHASHES} (method, taskhash, outhash, created, PN) "
            "VALUES (?, ?, ?, ?, 'p')",
            ((f"m{n % methods}", f"t{n}", f"o{n // 3}", f"2026-{n:06}") for n in numbers),
        )
        connection.execute("ANALYZE")
    yield connection
    connection.close()


def plan(connection: sqlite3.Connection, statement: str) -> list[str]:
    """Return the steps of SQLite's plan."""
    named = re.findall(r":([a-z_A-Z]+)", statement)
    parameters = dict.fromkeys(named, "1") if named else ["1"] * statement.count("?")
    rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
    return [detail for _, _, _, detail in rows]


def scans(steps: list[str]) -> list[str]:
    """Return the steps that go through a whole table, or a whole index, or a whole method."""
    return [
        step
        for step in steps
        if (step.startswith("SCAN") and not re.match(r"SCAN (k|c|\(subquery|CONSTANT|\d)", step))
        or step.endswith("(method=?)")
        or "AUTOMATIC" in step
    ]


def test_no_statement_is_forgotten() -> None:
    constants = {
        name
        for name, value in vars(statements).items()
        if name.isupper() and "_COLUMNS" not in name
        if isinstance(value, str) and not name.startswith("_")
    } - {"CONFIG", "MAPPINGS", "OUTHASHES", "USERS"}
    own = set(Statements.__annotations__) | set(vars(STATEMENTS))
    assert constants | own == WHOLE_TABLE | FRAGMENTS | set(BY_INDEX) - BUILT


def test_outputs_are_counted_in_one_pass(database: sqlite3.Connection, layout: Layout) -> None:
    steps = plan(database, layout.statements.split_outputs)
    index = layout.statements.by_outhash.removeprefix("INDEXED BY ")
    assert scans(steps) == [f"SCAN o USING INDEX {index}", "SCAN s"]
    # In a compact file those are sorted whose endings have more than one unihash.
    sorts = [step for step in steps if "TEMP B-TREE" in step]
    assert len(sorts) == (layout.statements is COMPACT_STATEMENTS)
    if sorts:
        assert f"SEARCH o USING INDEX {index} (<expr>=?)" in steps


@pytest.mark.parametrize("name", BY_INDEX)
def test_a_statement_finds_its_rows_by_an_index(
    database: sqlite3.Connection, layout: Layout, name: str
) -> None:
    steps = plan(database, by_index(layout.statements)[name])
    assert not scans(steps), steps


@pytest.mark.parametrize("name", BY_SLICE)
def test_a_slice_looks_at_its_own_rows_alone(
    database: sqlite3.Connection, layout: Layout, name: str
) -> None:
    """By method, each slice would go through far more than its slice, again and again."""
    steps = plan(database, by_slice(layout.statements)[name])
    assert "PRIMARY KEY (rowid>? AND rowid<?)" in steps[0], steps
    assert not scans(steps), steps


@pytest.mark.parametrize("table", [MAPPINGS, OUTHASHES])
def test_the_end_of_a_slice_is_found_by_id(database: sqlite3.Connection, table: str) -> None:
    steps = plan(database, statements.slice_end(table))
    assert any("USING INTEGER PRIMARY KEY (rowid>?)" in step for step in steps), steps
    assert not any("B-TREE" in step for step in steps), steps


@pytest.mark.parametrize("statement", [*map(statements.count, TABLES), statements.COUNT_MARKED])
def test_counting_goes_through_a_table_once(database: sqlite3.Connection, statement: str) -> None:
    assert len(plan(database, statement)) == 1
