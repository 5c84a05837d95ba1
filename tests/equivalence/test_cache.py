"""The cache never contradicts the database, whoever changes it, and keeps within its bound."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashserv.equivalence.cache import ENTRY_BYTES
from hashserv.equivalence.collection import Collection
from hashserv.equivalence.mapping import FALSE, TRUE, Equivalences
from hashserv.model import Condition, Mapping, MappingKey, Report
from hashserv.store.sqlite import SqliteStore
from tests.equivalence.conftest import Files
from tests.equivalence.model import Model
from tests.equivalence.operations import (
    CHANGES,
    FOREIGN_CHANGES,
    METHODS,
    TASKHASHES,
    UNIHASHES,
    ForeignProcess,
    Operation,
    expected,
    is_foreign,
)
from tests.equivalence.soak import cases

KEYS = [MappingKey(method, taskhash) for method in METHODS for taskhash in TASKHASHES]
LOOKUPS = [f"{method} {taskhash}".encode() for method, taskhash in KEYS]
EXISTENCES = [unihash.encode() for unihash in UNIHASHES]

PLENTY = 2**20
FEW = 16 * ENTRY_BYTES


def true_lookups(model: Model) -> list[bytes]:
    return [(unihash or "").encode() for unihash in model.lookup(KEYS)]


def true_existences(model: Model) -> list[bytes]:
    return [TRUE if found else FALSE for found in model.exists(UNIHASHES)]


def check_known(known: list[bytes | None], truth: list[bytes]) -> None:
    assert [answer or b"" for answer in known if answer is not None] == [
        true for answer, true in zip(known, truth, strict=True) if answer is not None
    ]


async def change(equivalences: Equivalences, collection: Collection, operation: Operation) -> None:
    """Do what the server does for an operation."""
    (argument, *more) = operation.arguments
    match operation.name:
        case "report":
            await equivalences.report(argument)
        case "add_mappings":
            for mapping in argument:
                await equivalences.report_equivalent(mapping)
        case "sweep":
            await equivalences.report([])  # a report of nothing changes nothing
            if (await collection.status()).mark == argument:
                await collection.sweep(argument)
        case name:
            await getattr(collection, name)(argument, *more)


async def compare(
    file: Path, operations: list[tuple[Operation, list[bool]]], cache_bytes: int
) -> None:
    """Do operations, look up some keys after each, and never believe a wrong answer."""
    model = Model()
    store = SqliteStore(str(file), durable=False)
    equivalences = Equivalences(store, cache_bytes=cache_bytes)
    collection = Collection(store)
    other = ForeignProcess(file)
    for operation, asked in operations:
        before = true_lookups(model)
        expected(model, operation)
        if is_foreign(operation):
            other.do(operation)
            await asyncio.sleep(0)  # the cache is checked once a turn
        else:
            changing = asyncio.ensure_future(change(equivalences, collection, operation))
            while not changing.done():
                await asyncio.sleep(0)
                if not changing.done() and operation.name in ("report", "add_mappings"):
                    for old, new, known in zip(
                        before,
                        true_lookups(model),
                        equivalences.known_lookups(LOOKUPS),
                        strict=True,
                    ):
                        assert known in (None, old, new)
            await changing
        check_known(equivalences.known_lookups(LOOKUPS), true_lookups(model))
        check_known(equivalences.known_existences(EXISTENCES), true_existences(model))
        keys = [key for key, ask in zip(KEYS, asked, strict=False) if ask]
        answers = [(unihash or "").encode() for unihash in model.lookup(keys)]
        assert await equivalences.lookup(keys) == answers
        assert await equivalences.exist(UNIHASHES[:3]) == true_existences(model)[:3]
    await collection.close()
    other.close()
    await store.close()


@pytest.mark.parametrize("cache_bytes", [PLENTY, FEW, 0])
def test_the_cache_never_contradicts_the_model(
    files: Files, runner: asyncio.Runner, cache_bytes: int
) -> None:
    one = st.tuples(
        st.one_of(CHANGES, FOREIGN_CHANGES),
        st.lists(st.booleans(), min_size=len(KEYS), max_size=len(KEYS)),
    )

    @cases(200)
    @given(st.lists(one, min_size=1, max_size=10))
    def check(operations: list[tuple[Operation, list[bool]]]) -> None:
        runner.run(compare(files.fresh(), operations, cache_bytes))

    check()


def test_the_cache_answers_what_was_asked_or_reported(files: Files, runner: asyncio.Runner) -> None:
    """Without this, a cache that never answers would pass all else."""

    async def check() -> None:
        store = SqliteStore(str(files.fresh()), durable=False)
        equivalences = Equivalences(store, cache_bytes=PLENTY)
        assert equivalences.known_lookups([b"m t1", b"m t2"]) == [None, None]
        assert await equivalences.lookup([MappingKey("m", "t1")]) == [b""]
        assert equivalences.known_lookups([b"m t1", b"m t2"]) == [b"", None]
        await equivalences.report([Report("m", "t1", "o", "u1")])
        assert await equivalences.report_equivalent(Mapping("m", "t2", "u2")) == "u2"
        assert equivalences.known_lookups([b"m t1", b"m t2"]) == [b"u1", b"u2"]
        assert equivalences.known_existences([b"u1", b"u2", b"u3"]) == [TRUE, TRUE, None]
        await asyncio.sleep(0)
        assert equivalences.known_lookups([b"m t1"]) == [b"u1"], "own changes forget nothing"
        await store.close()

    runner.run(check())


def in_another_process(file: Path, statement: str) -> None:
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None)"
    command = [sys.executable, "-c", f"{code}.execute(sys.argv[2])", str(file), statement]
    subprocess.run(command, check=True)


def test_another_process_is_noticed(files: Files, runner: asyncio.Runner) -> None:
    async def check(file: Path) -> None:
        store = SqliteStore(str(file), durable=False)
        equivalences = Equivalences(store)
        await equivalences.report([Report("m", "t1", "o", "u1")])
        await equivalences.lookup(KEYS)
        statements = [
            ("DELETE FROM unihashes_v3", ["", ""]),
            ("INSERT INTO unihashes_v3 VALUES (7, 'm', 't2', 'u2', '')", ["", "u2"]),
            ("UPDATE unihashes_v3 SET unihash = 'u3'", ["", "u3"]),
        ]
        for statement, truth in statements:
            in_another_process(file, statement)
            await asyncio.sleep(0)
            assert equivalences.known_lookups([b"m t1", b"m t2"]) == [None, None]
            answers = await equivalences.lookup([MappingKey("m", "t1"), MappingKey("m", "t2")])
            assert [answer.decode() for answer in answers] == truth
        await store.close()

    runner.run(check(files.fresh()))


def test_what_another_process_does_during_an_own_transaction_is_noticed(
    files: Files, runner: asyncio.Runner
) -> None:
    """The other holds the write lock, so that our report waits for it and commits after it."""

    async def check(file: Path) -> None:
        store = SqliteStore(str(file), durable=False)
        equivalences = Equivalences(store)
        await equivalences.report([Report("m", "t1", "o1", "u1")])
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        reporting = asyncio.ensure_future(equivalences.report([Report("m", "t2", "o2", "u2")]))
        for _ in range(4):  # turns, until its transaction waits in the writer's thread
            await asyncio.sleep(0)
        assert equivalences.known_lookups([b"m t1"]) == [b"u1"]
        other.execute("DELETE FROM unihashes_v3 WHERE taskhash = 't1'")
        other.execute("COMMIT")
        await asyncio.sleep(0)
        assert equivalences.known_lookups([b"m t1"]) == [None]
        await reporting
        assert equivalences.known_lookups([b"m t1"]) == [None]
        assert await equivalences.lookup([MappingKey("m", "t1")]) == [b""]
        other.close()
        await store.close()

    runner.run(check(files.fresh()))


class SlowStore(SqliteStore):
    """Answers look-ups late, as a database on another machine does."""

    def __init__(self, path: str) -> None:
        super().__init__(path, durable=False)
        self._read_batches = asyncio.Semaphore(0)
        self.answered = asyncio.Event()

    async def have_read(self, batches: int) -> None:
        """Wait until so many batches have been read, which are not answered yet."""
        for _ in range(batches):
            await self._read_batches.acquire()

    async def lookup(self, keys: Sequence[MappingKey]) -> list[str | None]:
        answers = await super().lookup(keys)
        self._read_batches.release()
        await self.answered.wait()
        return answers

    async def exists(self, unihashes: Sequence[str]) -> list[bool]:
        answers = await super().exists(unihashes)
        self._read_batches.release()
        await self.answered.wait()
        return answers


def test_an_answer_that_is_overtaken_by_a_report_is_not_remembered(
    files: Files, runner: asyncio.Runner
) -> None:
    async def check() -> None:
        store = SlowStore(str(files.fresh()))
        equivalences = Equivalences(store)
        asking = asyncio.ensure_future(equivalences.lookup([MappingKey("m", "t1")]))
        existing = asyncio.ensure_future(equivalences.exist(["u1"]))
        await store.have_read(2)
        await equivalences.report([Report("m", "t1", "o", "u1")])
        store.answered.set()
        assert (await asking, await existing) == ([b"u1"], [FALSE])
        assert equivalences.known_lookups([b"m t1"]) == [b"u1"]
        assert equivalences.known_existences([b"u1"]) == [TRUE]
        await store.close()

    runner.run(check())


def test_a_mapping_that_is_found_while_others_are_reported_is_remembered(
    files: Files, runner: asyncio.Runner
) -> None:
    """Reports come all the time: if they kept answers out, a build's start would stay slow."""

    async def check() -> None:
        store = SlowStore(str(files.fresh()))
        await store.report([Report("m", "t1", "o", "u1")])
        equivalences = Equivalences(store)
        asking = asyncio.ensure_future(
            equivalences.lookup([MappingKey("m", "t1"), MappingKey("m", "t2")])
        )
        existing = asyncio.ensure_future(equivalences.exist(["u1", "u2"]))
        await store.have_read(2)
        await equivalences.report([Report("m", "t3", "o3", "u3")])
        store.answered.set()
        assert (await asking, await existing) == ([b"u1", b""], [TRUE, FALSE])
        assert equivalences.known_lookups([b"m t1", b"m t2"]) == [b"u1", None]
        assert equivalences.known_existences([b"u1", b"u2"]) == [TRUE, None]
        await store.close()

    runner.run(check())


def test_an_answer_that_is_overtaken_by_a_removal_is_not_remembered(
    files: Files, runner: asyncio.Runner
) -> None:
    async def check() -> None:
        store = SlowStore(str(files.fresh()))
        await store.report([Report("m", "t1", "o", "u1")])
        equivalences = Equivalences(store)
        asking = asyncio.ensure_future(equivalences.lookup([MappingKey("m", "t1")]))
        existing = asyncio.ensure_future(equivalences.exist(["u1"]))
        await store.have_read(2)
        assert await Collection(store).remove({"method": "m"}) == 2
        store.answered.set()
        assert (await asking, await existing) == ([b"u1"], [TRUE])
        assert equivalences.known_lookups([b"m t1"]) == [None]
        assert equivalences.known_existences([b"u1"]) == [None]
        await store.close()

    runner.run(check())


def test_conditions_on_unknown_columns_change_nothing(files: Files, runner: asyncio.Runner) -> None:
    async def check() -> None:
        store = SqliteStore(str(files.fresh()), durable=False)
        equivalences, collection = Equivalences(store), Collection(store)
        await equivalences.report([Report("m", "t1", "o1", "u1")])
        conditions: list[Condition] = [{"method": "m", "typo": "x"}, {"created": "x"}, {"id": "1"}]
        for condition in conditions:
            unknown = next(name for name in ("typo", "created", "id") if name in condition)
            for refused in (collection.remove(condition), collection.mark("a", [{}, condition])):
                with pytest.raises(Exception, match=f"Unknown column {unknown}"):
                    await refused
        assert await store.collection() == (1, 0, None)
        await store.close()

    runner.run(check())
