"""What every engine does: the rules of PROTOCOL.md §8 and §9, one by one."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hashserv.errors import StoreError
from hashserv.model import Equivalent, Mapping, MappingKey, MarkedMapping, Outhash, Report
from hashserv.store.base import Freshness, Store
from hashserv.store.sqlite import SqliteStore
from tests.contract.conftest import Run


def key(taskhash: str) -> MappingKey:
    return MappingKey("m", taskhash)


def time_of(created: str | None) -> datetime:
    """Return what time a row's `created` means: without a zone it is local."""
    assert created is not None
    return datetime.fromisoformat(created).astimezone()


def report(taskhash: str, outhash: str, unihash: str) -> Report:
    return Report("m", taskhash, outhash, unihash)


async def unihashes(store: Store, *taskhashes: str) -> list[str | None]:
    return await store.lookup([key(taskhash) for taskhash in taskhashes])


def test_what_is_not_there_is_none(run: Run) -> None:
    async def scenario(store: Store) -> None:
        assert await store.lookup([]) == []
        assert await store.lookup([key("t"), key("t")]) == [None, None]
        assert await store.exists([]) == []
        assert await store.exists(["u", ""]) == [False, False]
        assert await store.task(key("t")) is None
        assert await store.equivalent("m", "o") is None
        assert await store.outhash("m", "o") is None
        assert await store.collection() == (0, 0, None)
        assert await store.sweep("a") is None
        assert await store.report([]) == []
        assert await store.add_mappings([]) == []
        assert set((await store.usage()).values()) == {0}

    run(scenario)


def test_a_report_is_stored_whole(run: Run) -> None:
    full = Report("m", "t", "o", "u", "me", "é", "", "r0", "do_x", 'a\n"b"\t\N{SNAKE}')

    async def scenario(store: Store) -> None:
        before = datetime.now(UTC)
        assert await store.report([full]) == ["u"]
        row = await store.outhash("m", "o")
        assert row is not None
        assert row.created is not None
        assert row == Outhash(row.id, "m", "t", "o", row.created, *full[4:10])
        assert before <= time_of(row.created) <= datetime.now(UTC)
        assert await store.equivalent("m", "o") == Equivalent(row, "u", "")
        assert await store.task(key("t")) == Equivalent(row, "u", "")

    run(scenario)


def test_the_first_report_of_a_row_stays(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await store.report([report("t", "o", "u")._replace(PN="first")])
        assert await store.report([report("t", "o", "other")._replace(PN="second")]) == ["u"]
        row = await store.outhash("m", "o")
        assert row is not None
        assert row.PN == "first"
        assert (await store.usage())["outhashes_v2"] == 1

    run(scenario)


def test_tasks_with_one_outhash_are_equivalent_within_a_method(run: Run) -> None:
    async def scenario(store: Store) -> None:
        assert await store.report([report("t1", "o", "u1")]) == ["u1"]
        assert await store.report([report("t2", "o", "u2")]) == ["u1"]
        assert await store.report([Report("n", "t3", "o", "u3")]) == ["u3"]
        assert await unihashes(store, "t1", "t2", "t3") == ["u1", "u1", None]
        assert await store.exists(["u1", "u2", "u3"]) == [True, False, True]

    run(scenario)


def test_reports_of_one_call_see_those_before_them(run: Run) -> None:
    async def scenario(store: Store) -> None:
        reports = [report("t1", "o1", "u1"), report("t2", "o1", "u2"), report("t2", "o2", "u3")]
        assert await store.report([*reports, report("t3", "o2", "u4")]) == ["u1"] * 4

    run(scenario)


def test_a_mapping_is_never_overwritten(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await store.report([report("t1", "o1", "u1"), report("t2", "o2", "u2")])
        assert await store.report([report("t2", "o1", "u3")]) == ["u2"]
        assert await store.add_mappings([Mapping("m", "t1", "u4")]) == ["u1"]
        assert await unihashes(store, "t1", "t2") == ["u1", "u2"]

    run(scenario)


def test_the_oldest_row_with_a_mapping_gives_the_unihash(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await store.report([report("t1", "o1", "u1"), report("t2", "o2", "u2")])
        await store.report([report("t2", "o1", "u2")])
        assert await store.report([report("t3", "o1", "u3")]) == ["u1"]
        await store.remove({"unihash": "u1"})
        assert await store.report([report("t4", "o1", "u4")]) == ["u2"]
        oldest = await store.outhash("m", "o1")
        joined = await store.equivalent("m", "o1")
        assert oldest is not None
        assert joined is not None
        assert (oldest.taskhash, joined.outhash.taskhash) == ("t1", "t2")

    run(scenario)


def test_mappings_alone_make_no_outhash_rows(run: Run) -> None:
    async def scenario(store: Store) -> None:
        mappings = [Mapping("m", "t", "u1"), Mapping("m", "t", "u2"), Mapping("n", "t", "u3")]
        assert await store.add_mappings(mappings) == ["u1", "u1", "u3"]
        assert await store.task(key("t")) is None
        assert await store.report([report("t", "o", "u4")]) == ["u1"]

    run(scenario)


def test_reporting_again_restores_a_missing_mapping(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await store.report([report("t1", "o", "u1"), report("t2", "o", "u2")])
        assert await store.remove({"unihash": "u1"}) == 2
        assert await store.report([report("t2", "o", "u3")]) == ["u3"]
        assert await store.report([report("t1", "o", "u4")]) == ["u3"]

    run(scenario)


def test_a_condition_applies_to_tables_that_have_all_its_columns(run: Run) -> None:
    async def scenario(store: Store) -> None:
        first = report("t1", "o1", "u1")._replace(PN="p")
        await store.report([first, report("t2", "o2", "u2")])
        assert await store.remove({}) == 0
        assert await store.remove({"PN": None}) == 0, "NULL equals nothing"
        assert await store.remove({"unihash": "u1", "PN": "p"}) == 0, "no table has both"
        assert await store.remove({"method": "m", "PN": "PN"}) == 0, "it is no text of SQL's"
        assert await store.remove({"method": "m", "PN": "p"}) == 1
        assert await unihashes(store, "t1", "t2") == ["u1", "u2"]
        assert await store.remove({"method": "m", "unihash": "u1"}) == 1
        assert await store.remove({"method": "m", "taskhash": "t2"}) == 2
        assert await unihashes(store, "t1", "t2") == [None, None]
        assert set((await store.usage()).values()) == {0}

    run(scenario)


def test_a_collection_keeps_what_is_marked_new_or_reported_again(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await store.report([report(f"t{n}", f"o{n}", f"u{n}") for n in range(6)])
        assert await store.mark("a", [{"unihash": "u0"}, {"unihash": "no"}, {}]) == [1, 0, 0]
        assert await store.report([report("t1", "o1", "x")]) == ["u1"]
        assert await store.add_mappings([Mapping("m", "t2", "x")]) == ["u2"]
        assert await store.report([report("new", "o9", "u9")]) == ["u9"]
        assert await store.collection() == (4, 3, "a")
        assert await store.sweep("b") is None
        assert await store.sweep("a") == 3
        assert await store.collection() == (0, 4, None), "marks stay on their rows"
        assert await unihashes(store, "t0", "t1", "t2", "t3", "new") == [
            *("u0", "u1", "u2", None, "u9")
        ]
        assert await store.sweep("a") is None

    run(scenario)


def test_another_mark_starts_another_collection(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await store.report([report(f"t{n}", f"o{n}", f"u{n}") for n in range(3)])
        await store.mark("a", [{"taskhash": "t0"}])
        assert await store.mark("b", [{"taskhash": "t1", "gc_mark": ""}]) == [1]
        assert await store.collection() == (1, 2, "b")
        await store.mark("a", [])
        assert await store.collection() == (1, 2, "a"), "t0 still carries the mark"
        assert await store.sweep("a") == 2
        assert await unihashes(store, "t0", "t1", "t2") == ["u0", None, None]

    run(scenario)


def test_only_rows_without_a_mapping_that_are_old_are_cleaned(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await store.report([report("t1", "o1", "u1"), report("t2", "o2", "u2")])
        await store.remove({"unihash": "u1"})
        assert await store.clean_unused(3600) == 0, "it is not that old"
        while await store.clean_unused(0) == 0:  # until a millisecond has passed
            assert await store.outhash("m", "o1") is not None
        assert await store.outhash("m", "o1") is None
        assert await store.outhash("m", "o2") is not None

    run(scenario)


class Listener:
    def __init__(self) -> None:
        self.told: list[Sequence[Mapping] | str] = []

    def mappings_added(self, mappings: Sequence[Mapping]) -> None:
        self.told.append(list(mappings))

    def mappings_removed(self) -> None:
        self.told.append("removed")


def test_who_listens_is_told_of_each_change_before_it_is_acknowledged(run: Run) -> None:
    async def scenario(store: Store) -> None:
        listener = store.listener = Listener()
        await store.report([report("t1", "o", "u1"), report("t2", "o", "u2")])
        assert listener.told == [[Mapping("m", "t1", "u1"), Mapping("m", "t2", "u1")]]
        await store.report([report("t1", "o2", "u1")])
        await store.add_mappings([Mapping("m", "t3", "u3"), Mapping("m", "t3", "u4")])
        assert listener.told[1:] == [[Mapping("m", "t3", "u3")]]
        await store.remove({"unihash": "u3"})
        assert listener.told[2:] == ["removed"]
        await store.mark("a", [{"method": "m"}])
        assert listener.told[3:] == []
        await store.mark("b", [])
        await store.sweep("b")
        assert "removed" in listener.told[3:]
        assert store.freshness() is Freshness.SAME

    run(scenario)


def test_what_was_stored_is_there_after_opening_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        for expected in (None, "u"):
            store = SqliteStore(str(tmp_path / "db"))
            assert await unihashes(store, "t") == [expected]
            await store.report([report("t", "o", "u")])
            await store.mark("a", [])
            await store.close()
            await store.close()
        store = SqliteStore(str(tmp_path / "db"), writable=False)
        assert await store.collection() == (1, 0, "a")
        with pytest.raises(StoreError, match="reading only"):
            await store.report([report("t", "o", "u")])
        await store.close()

    asyncio.run(scenario())


def test_whole_tables_are_read_in_pieces(run: Run) -> None:
    async def scenario(store: Store) -> None:
        assert await store.mappings_after(0, 10) == []
        assert await store.outhashes_after(0, 10) == []
        await store.report([report(f"t{n}", f"o{n}", f"u{n}") for n in range(5)])
        first = await store.mappings_after(0, 2)
        rest = await store.mappings_after(first[-1].id, 10)
        assert [row[1:] for row in first + rest] == [("m", f"t{n}", f"u{n}", "") for n in range(5)]
        rows = await store.outhashes_after(0, 10)
        assert [row.outhash for row in rows] == [f"o{n}" for n in range(5)]
        assert await store.outhashes_after(rows[2].id, 10) == rows[3:]

    run(scenario)


def test_rows_are_inserted_as_they_are_where_there_are_none(run: Run) -> None:
    created = "2024-01-02T03:04:05.000006+00:00"

    async def scenario(store: Store) -> None:
        await store.report([report("t1", "o1", "u1")])
        marked = [MarkedMapping(7, "m", f"t{n}", "v", "mark") for n in (1, 2)]
        assert await store.insert_mappings(marked) == 1
        assert await unihashes(store, "t1", "t2") == ["u1", "v"]
        assert [row.gc_mark for row in await store.mappings_after(0, 10)] == ["", "mark"]
        rows = [
            Outhash(7, "m", f"t{n}", f"o{n}", created, "me", "é", "", None, "do_x", "s")
            for n in (1, 2)
        ]
        assert await store.insert_outhashes(rows) == 1
        assert await store.insert_outhashes(rows) == 0
        held = await store.outhash("m", "o2")
        assert held is not None
        assert time_of(held.created) == time_of(created)
        assert held._replace(id=7, created=created) == rows[1]

    run(scenario)


def test_outputs_with_more_than_one_unihash_are_counted(run: Run) -> None:
    async def scenario(store: Store) -> None:
        assert await store.split_outputs() == 0
        await store.report([report("t1", "o1", "u1"), report("t2", "o1", "u2")])
        assert await store.split_outputs() == 0  # the second got the unihash of the first
        await store.add_mappings([Mapping("m", "t3", "u3"), Mapping("m", "t4", "u4")])
        await store.report([report("t3", "o1", "u1"), report("t3", "o2", "u1")])
        await store.report([report("t4", "o1", "u1"), Report("n", "t4", "o2", "v")])
        assert await store.split_outputs() == 1  # o1 has u1, u3 and u4; o2 one in each method
        await store.report([report("t1", "o2", "u1")])
        assert await store.split_outputs() == 2

    run(scenario)


def test_hashes_that_begin_and_end_alike_are_told_apart(run: Run) -> None:
    """An index may hold a part of them alone, and whoever reports may have invented them."""
    alike = "0123456789abcdef"
    t1, t2, o1, o2, u1, u2 = (f"{alike}{n}{alike}" for n in ("t1", "t2", "o1", "o2", "u1", "u2"))

    async def scenario(store: Store) -> None:
        assert await store.report([report(t1, o1, u1)]) == [u1]
        assert await unihashes(store, t1, t2, alike) == [u1, None, None]
        assert await store.exists([u1, u2, alike]) == [True, False, False]
        assert await store.equivalent("m", o2) is None
        assert await store.outhash("m", o2) is None
        assert await store.task(key(t2)) is None
        assert await store.report([report(t2, o2, u2), report(t2, o2, u1)]) == [u2, u2]
        assert await store.split_outputs() == 0
        assert (await store.usage())["outhashes_v2"] == 2
        found = await store.equivalent("m", o2), await store.task(key(t1))
        assert [each and each.unihash for each in found] == [u2, u1]
        assert await store.mark("a", [{"unihash": u1}, {"method": "m", "taskhash": t2}]) == [1, 1]
        assert await store.remove({"unihash": u2}) == 1
        assert await store.remove({"method": "m", "outhash": o2}) == 1
        assert await store.remove({"method": "m", "taskhash": t1, "outhash": o2}) == 0
        assert await unihashes(store, t1, t2) == [u1, None]
        assert await store.outhash("m", o1) is not None
        assert await store.remove({"method": "m", "taskhash": t1}) == 2

    run(scenario)


def test_many_rows_that_end_alike_are_removed_by_slices(run: Run) -> None:
    rows = [Outhash(0, "m", f"t{n}", f"{n % 3}{0:063}", None, *[None] * 6) for n in range(2500)]

    async def scenario(store: Store) -> None:
        assert await store.insert_outhashes(rows) == 2500
        assert await store.remove({"method": "m", "outhash": f"{0:064}"}) == 834
        assert (await store.usage())["outhashes_v2"] == 1666

    run(scenario)
