"""The rules of mappings: the store against a model of PROTOCOL.md §8 and §9."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashserv.model import Condition, MappingKey, Report
from hashserv.store import transactions
from hashserv.store.sqlite import SqliteStore
from tests.equivalence.conftest import Files
from tests.equivalence.model import Model
from tests.equivalence.operations import (
    CHANGES,
    FOREIGN_CHANGES,
    QUESTIONS,
    REPORTS,
    ForeignProcess,
    Operation,
    answer,
    check_everything,
    expected,
    is_foreign,
)
from tests.equivalence.soak import cases

REOPEN = st.just(Operation("reopen", ()))


async def compare(file: Path, operations: list[Operation]) -> None:
    """Do operations on a store and on the model, and compare each answer and the outcome."""
    model = Model()
    store = SqliteStore(str(file), durable=False)
    other = ForeignProcess(file)
    try:
        for operation in operations:
            if operation.name == "reopen":
                await store.close()
                store = SqliteStore(str(file), durable=False)
            elif is_foreign(operation):
                other.do(operation)
                expected(model, operation)
            else:
                assert await answer(store, operation) == expected(model, operation), operation
        await check_everything(store, model, file)
    finally:
        other.close()
        await store.close()


@pytest.mark.parametrize("slice_rows", [2, 3, transactions.SLICE_ROWS])
def test_a_store_does_what_the_model_does(
    files: Files, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, slice_rows: int
) -> None:
    monkeypatch.setattr(transactions, "SLICE_ROWS", slice_rows)
    one = st.one_of(CHANGES, CHANGES, FOREIGN_CHANGES, st.sampled_from(QUESTIONS), REOPEN)

    @cases(250)
    @given(st.lists(one, min_size=1, max_size=14))
    def check(operations: list[Operation]) -> None:
        runner.run(compare(files.fresh(), operations))

    check()


def test_reports_of_many_callers_are_stored_in_the_order_of_their_arrival(
    files: Files, runner: asyncio.Runner
) -> None:
    async def together(file: Path, calls: list[list[Report]], orphans: list[str]) -> None:
        model = Model()
        store = SqliteStore(str(file), durable=False)
        other = ForeignProcess(file)
        first = Operation("report", (calls[0],))
        assert await answer(store, first) == expected(model, first)
        for taskhash in orphans:
            gone = Operation("delete_mappings", ({"taskhash": taskhash},))
            other.do(gone)
            expected(model, gone)
        answers = await asyncio.gather(*(store.report(call) for call in calls))
        assert answers == [model.report(call) for call in calls]
        await check_everything(store, model, file)
        other.close()
        await store.close()

    @cases(400)
    @given(
        st.lists(st.lists(REPORTS, min_size=1, max_size=4), min_size=1, max_size=6),
        st.lists(st.sampled_from(["t1", "t2", "t3"]), max_size=3, unique=True),
    )
    def check(calls: list[list[Report]], orphans: list[str]) -> None:
        runner.run(together(files.fresh(), calls, orphans))

    check()


def test_a_restored_mapping_counts_for_who_is_reported_after_it_in_the_same_group(
    files: Files, runner: asyncio.Runner
) -> None:
    """Its rows are older than theirs, and become the oldest of their classes with it again."""

    async def check(file: Path) -> None:
        store = SqliteStore(str(file), durable=False)
        assert await store.report([Report("m", "t1", "o1", "u1"), Report("m", "t1", "o2", "u1")])
        assert await store.remove({"unihash": "u1"}) == 1
        assert await store.lookup([MappingKey("m", "t1")]) == [None]
        group = [
            Report("m", "t1", "o2", "u2"),
            Report("m", "t3", "o1", "u3"),
            Report("m", "t4", "o2", "u4"),
        ]
        assert await store.report(group) == ["u2", "u2", "u2"]
        await store.close()

    runner.run(check(files.fresh()))


def test_the_oldest_row_is_told_by_its_time_and_not_by_its_number(
    files: Files, runner: asyncio.Runner
) -> None:
    """Rows that were copied from other tables keep their time, not always their number."""

    async def check(file: Path) -> None:
        store = SqliteStore(str(file), durable=False)
        other = ForeignProcess(file)
        await store.report([Report("m", "t1", "o", "u1"), Report("m", "t2", "x", "u2")])
        await store.report([Report("m", "t2", "o", "u2")])
        other.age("t2")
        other.close()
        assert await store.report([Report("m", "t3", "o", "u3")]) == ["u2"]
        oldest = await store.equivalent("m", "o")
        assert oldest is not None
        assert oldest.outhash.taskhash == "t2"
        await store.close()

    runner.run(check(files.fresh()))


def test_conditions_that_name_a_mark_match_what_has_it_when_their_turn_comes(
    files: Files, runner: asyncio.Runner
) -> None:
    """However the rows are found: marking changes what such a condition matches."""
    one: Condition = {"method": "m", "taskhash": "t1"}
    two: Condition = {"method": "m", "taskhash": "t2"}
    unmarked: Condition = {"gc_mark": ""}

    async def check(file: Path) -> None:
        store = SqliteStore(str(file), durable=False)
        await store.report([Report("m", "t1", "o1", "u1"), Report("m", "t2", "o2", "u2")])
        assert await store.mark("a", [{**one, **unmarked}]) == [1]
        assert await store.mark("b", [{"unihash": "u2", **unmarked}, unmarked]) == [1, 0]
        assert await store.mark("c", [{"gc_mark": "b"}, two]) == [1, 1]
        assert await store.mark("c", [one, {"gc_mark": "a"}]) == [1, 0]
        await store.close()

    runner.run(check(files.fresh()))


def test_ages_of_no_account_remove_nothing(files: Files, runner: asyncio.Runner) -> None:
    async def check(file: Path) -> None:
        store = SqliteStore(str(file), durable=False)
        await store.report([Report("m", "t1", "o1", "u1")])
        await store.remove({"unihash": "u1"})
        for age in (1e12, 1e300, 10**30):
            assert await store.clean_unused(age) == 0
        assert await store.outhash("m", "o1") is not None
        await store.close()

    runner.run(check(files.fresh()))
