"""Generated operations on a store, over so few hashes that they often meet."""

import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from hashserv.model import Condition, Equivalent, Mapping, MappingKey, Outhash, Report
from hashserv.store.base import Store
from tests.equivalence.model import Model

METHODS = ["m", "n"]
TASKHASHES = ["t1", "t2", "t3", "t4"]
OUTHASHES = ["o1", "o2", "o3"]
UNIHASHES = ["u1", "u2", "u3", "u4", "u5"]
MARKS = ["a", "b"]

# One method is by far the commonest, as in life.
_METHOD = st.sampled_from(["m", "m", "m", "n"])
_TASKHASH = st.sampled_from(TASKHASHES)
_OUTHASH = st.sampled_from(OUTHASHES)
_UNIHASH = st.sampled_from(UNIHASHES)
_MARK = st.sampled_from(MARKS)
_OPTIONAL = st.sampled_from([None, "", "p"])

REPORTS = st.builds(
    Report,
    *(_METHOD, _TASKHASH, _OUTHASH, _UNIHASH),
    PN=_OPTIONAL,
    owner=_OPTIONAL,
    known_as=st.none() | _UNIHASH,
)
MAPPINGS = st.builds(Mapping, _METHOD, _TASKHASH, _UNIHASH)

_VALUES: dict[str, st.SearchStrategy[str | None]] = {
    "method": _METHOD,
    "taskhash": _TASKHASH,
    "outhash": _OUTHASH,
    "unihash": _UNIHASH,
    "gc_mark": st.sampled_from(["", *MARKS]),
    "PN": _OPTIONAL,
    "owner": _OPTIONAL,
    "PR": st.none(),
}
CONDITIONS: st.SearchStrategy[Condition] = st.sets(
    st.sampled_from(sorted(_VALUES)), max_size=3
).flatmap(lambda columns: st.fixed_dictionaries({name: _VALUES[name] for name in columns}))


class Operation(NamedTuple):
    """A method that stores and the model have, and what it is called with."""

    name: str
    arguments: tuple[Any, ...]

    @classmethod
    def of(cls, name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy["Operation"]:
        return st.tuples(*arguments).map(lambda drawn: cls(name, drawn))


CHANGES = st.one_of(
    Operation.of("report", st.lists(REPORTS, min_size=1, max_size=6)),
    Operation.of("report", st.lists(REPORTS, min_size=1, max_size=6)),
    Operation.of("add_mappings", st.lists(MAPPINGS, min_size=1, max_size=3)),
    Operation.of("remove", CONDITIONS),
    Operation.of("mark", _MARK, st.lists(CONDITIONS, max_size=3)),
    Operation.of("sweep", _MARK),
    Operation.of("clean_unused", st.just(3600.0)),
)
"""What the server itself does."""

FOREIGN_CHANGES = st.one_of(
    Operation.of("insert_mapping", MAPPINGS),
    Operation.of("delete_mappings", st.fixed_dictionaries({"taskhash": _TASKHASH})),
    Operation.of("age", _TASKHASH),
)
"""What another process does to the same file."""

QUESTIONS = (
    Operation("lookup", ([MappingKey(m, t) for m in METHODS for t in TASKHASHES],)),
    Operation("exists", ([*UNIHASHES, "u?", UNIHASHES[0]],)),
    *(Operation("task", (MappingKey("m", taskhash),)) for taskhash in TASKHASHES),
    *(Operation("equivalent", ("m", outhash)) for outhash in OUTHASHES),
    *(Operation("outhash", ("m", outhash)) for outhash in OUTHASHES),
    Operation("collection", ()),
    Operation("usage", ()),
)
"""All that can be asked of a store."""


async def answer(store: object, operation: Operation) -> Any:
    """Ask a store; ids and times, which the model has not, are left out of the answer."""
    method: Callable[..., Coroutine[Any, Any, Any]] = getattr(store, operation.name)
    result = await method(*operation.arguments)
    if isinstance(result, Equivalent):
        return result._replace(outhash=_timeless(result.outhash))
    return _timeless(result) if isinstance(result, Outhash) else result


def expected(model: Model, operation: Operation) -> Any:
    """Ask the model."""
    return getattr(model, operation.name)(*operation.arguments)


async def check_everything(store: Store, model: Model, file: Path) -> None:
    """Compare all that can be asked, and the tables themselves."""
    for question in QUESTIONS:
        assert await answer(store, question) == expected(model, question), question
    assert tables(file) == model.tables()


def tables(
    file: Path,
) -> tuple[dict[tuple[str, str], tuple[str, str]], list[tuple[str, ...]]]:
    """Return the mappings and, oldest first, the outhash rows of a file."""
    connection = sqlite3.connect(file)
    rows = connection.execute("SELECT method, taskhash, unihash, gc_mark FROM unihashes_v3")
    mappings = {(method, taskhash): (unihash, mark) for method, taskhash, unihash, mark in rows}
    outhashes = connection.execute(
        "SELECT method, taskhash, outhash FROM outhashes_v2 ORDER BY created, id"
    ).fetchall()
    connection.close()
    return mappings, outhashes


class ForeignProcess:
    """Another process that writes the same file; a connection of its own is enough for SQLite."""

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(file, isolation_level=None)
        self._connection.execute("PRAGMA synchronous = OFF")
        self._aged = 0

    def insert_mapping(self, mapping: Mapping) -> None:
        self._connection.execute(
            "INSERT OR IGNORE INTO unihashes_v3 (method, taskhash, unihash, gc_mark) "
            "VALUES (?, ?, ?, '')",
            mapping,
        )

    def delete_mappings(self, condition: Condition) -> None:
        self._connection.execute("DELETE FROM unihashes_v3 WHERE taskhash = :taskhash", condition)

    def age(self, taskhash: str) -> None:
        rows = self._connection.execute(
            "SELECT id FROM outhashes_v2 WHERE taskhash = ? AND created NOT LIKE '2001%' "
            "ORDER BY created, id",
            (taskhash,),
        ).fetchall()
        for (row,) in rows:
            self._aged += 1
            created = f"2001-01-01T00:00:00.{self._aged:06}+00:00"
            self._connection.execute(
                "UPDATE outhashes_v2 SET created = ? WHERE id = ?", (created, row)
            )

    def do(self, operation: Operation) -> None:
        getattr(self, operation.name)(*operation.arguments)

    def close(self) -> None:
        self._connection.close()


def _timeless(row: Outhash) -> Outhash:
    return row._replace(id=0, created=None)


def is_foreign(operation: Operation) -> bool:
    """Tell whether it is another process that does this."""
    return hasattr(ForeignProcess, operation.name)


def describe(operations: Sequence[Operation]) -> str:
    """Return operations as text, for a failure's message."""
    return "\n".join(f"{name}{arguments}" for name, arguments in operations)
