"""What one transaction may take on: bounded slices, and few statements for many reports."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import pytest

from hashserv.model import Report
from hashserv.store import sqlite_file, transactions
from hashserv.store.sqlite import SqliteStore
from hashserv.store.sqlite_statements import COMPACT_STATEMENTS
from hashserv.store.sqlite_transaction import SqliteTransaction
from hashserv.store.times import Clock
from hashserv.store.transactions import set_current_mark, store_reports
from tests.equivalence.model import Model
from tests.store.databases import rows

GROUP = 256
FEW_STATEMENTS = 60

SLICE = 10
MATCHING = 20 * SLICE


def tasks_without_mappings(file: Path, model: Model) -> sqlite3.Connection:
    """Store rows of `GROUP` tasks, three outhashes each, and lose their mappings."""
    random = Random(7)
    reports = [
        Report("m", f"t{n % GROUP}", f"o{random.randrange(GROUP)}", f"u{n % GROUP}")
        for n in range(3 * GROUP)
    ]
    sqlite_file.prepare(str(file), writable=True)
    connection = sqlite_file.connect(str(file), writable=True, busy=1)
    store_reports(SqliteTransaction(connection, COMPACT_STATEMENTS, Clock()), reports)
    model.report(reports)
    connection.execute("DELETE FROM unihashes_v3")
    model.delete_mappings({"method": "m"})
    return connection


@pytest.mark.parametrize("collecting", [False, True])
def test_a_group_that_restores_many_mappings_takes_few_statements(
    tmp_path: Path, collecting: bool
) -> None:
    """What each restores counts for those after it: its rows are older than theirs."""
    model = Model()
    connection = tasks_without_mappings(tmp_path / "db", model)
    if collecting:
        set_current_mark(SqliteTransaction(connection, COMPACT_STATEMENTS, Clock()), "a")
        model.mark("a", [])
    random = Random(8)
    order = random.sample(range(GROUP), GROUP)
    group = [Report("m", f"t{n}", f"o{random.randrange(2 * GROUP)}", f"new{n}") for n in order]
    ran: list[str] = []
    connection.set_trace_callback(ran.append)
    connection.execute("BEGIN")
    committed = store_reports(SqliteTransaction(connection, COMPACT_STATEMENTS, Clock()), group)
    connection.execute("COMMIT")
    connection.set_trace_callback(None)
    assert committed.result == model.report(group)
    # An INSERT is traced again for each row that its trigger looks at.
    assert len(set(ran)) <= FEW_STATEMENTS
    mappings, outhashes = model.tables()
    stored = connection.execute("SELECT method, taskhash, unihash, gc_mark FROM unihashes_v3")
    assert {(m, t): (unihash, mark) for m, t, unihash, mark in stored} == mappings
    stored = connection.execute(
        "SELECT method, taskhash, outhash FROM outhashes_v2 ORDER BY created, id"
    )
    assert stored.fetchall() == outhashes
    told = {(m.method, m.taskhash): m.unihash for m in committed.added}
    assert told == {key: unihash for key, (unihash, _) in mappings.items()}
    connection.close()


class Counted(SqliteStore):
    """A store that counts its transactions."""

    transactions = 0

    def before_transaction(self) -> None:
        super().before_transaction()
        self.transactions += 1


OPERATIONS: dict[str, tuple[Callable[[SqliteStore], Awaitable[object]], object]] = {
    "remove a unihash": (lambda store: store.remove({"unihash": "u"}), MATCHING),
    "remove an outhash": (lambda store: store.remove({"method": "m", "outhash": "o"}), MATCHING),
    "mark a unihash": (lambda store: store.mark("a", [{"unihash": "u"}]), [MATCHING]),
    "mark in a batch": (
        lambda store: store.mark("a", [{"unihash": "v"}, {"unihash": "u"}, {"unihash": "none"}]),
        [1, MATCHING, 0],
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_reports_have_their_turn_while_an_index_leads_to_many_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(transactions, "SLICE_ROWS", SLICE)
    operate, count = OPERATIONS[name]

    async def check() -> None:
        store = Counted(str(tmp_path / "db"), durable=False)
        await store.report([Report("m", f"t{n}", "o", "u") for n in range(MATCHING)])
        await store.report([Report("m", "kept", "p", "v")])
        store.transactions = 0
        operating = asyncio.ensure_future(operate(store))
        for n in range(3):
            assert await store.report([Report("n", f"t{n}", "q", "w")]) == ["w"]
        assert not operating.done(), "three reports have not waited for the whole"
        assert await operating == count
        assert store.transactions >= MATCHING // SLICE
        await store.close()

    asyncio.run(check())
    left = rows(
        tmp_path / "db",
        "SELECT (SELECT count(*) FROM unihashes_v3 WHERE unihash = 'u' AND gc_mark = ''), "
        "(SELECT count(*) FROM unihashes_v3 WHERE unihash = 'v'), "
        "(SELECT count(*) FROM outhashes_v2 WHERE outhash = 'o'), "
        "(SELECT count(*) FROM outhashes_v2 WHERE outhash = 'p')",
    )
    if name == "remove an outhash":
        assert left == [(MATCHING, 1, 0, 1)]
    else:
        assert left == [(0, 1, MATCHING, 1)]
