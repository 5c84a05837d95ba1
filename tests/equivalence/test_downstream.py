"""What stands between a store and its upstream: misses, and mappings on their way in."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from hashserv.equivalence import backfill, reports
from hashserv.equivalence.backfill import Backfill
from hashserv.equivalence.downstream import DownstreamEquivalences
from hashserv.equivalence.misses import Misses
from hashserv.equivalence.upstream import UNANSWERED, Unanswered, Upstream, UpstreamSummary
from hashserv.errors import StoreError
from hashserv.model import Equivalent, Mapping, MappingKey, Outhash, Report
from hashserv.store.sqlite import SqliteStore
from hashserv.store.transactions import Work

U1, U2 = "1" * 64, "2" * 64
KEY = MappingKey("m", "t")
GUARD_SECONDS = 30

Scenario = Callable[[SqliteStore], Awaitable[None]]


class Told(Upstream):
    """An upstream that answers look-ups when it is told to."""

    available = True

    def __init__(self) -> None:
        self.asked: list[MappingKey] = []
        self.begun = asyncio.Event()
        self.answer: asyncio.Future[str | Unanswered | None] = (
            asyncio.get_running_loop().create_future()
        )

    async def lookup(self, keys: Sequence[MappingKey]) -> list[str | Unanswered | None]:
        self.asked += keys
        self.begun.set()
        answer = await self.answer
        if answer is not UNANSWERED:
            self.listener.looked_up(keys, [answer] * len(keys))
        return [answer for _ in keys]

    async def exist(self, unihashes: Sequence[str]) -> list[bool | Unanswered]:
        return [UNANSWERED for _ in unihashes]

    async def task(self, key: MappingKey) -> Equivalent | Unanswered | None:
        del key
        return UNANSWERED

    async def equivalents(
        self, keys: Sequence[tuple[str, str, str]]
    ) -> list[Equivalent | Unanswered | None]:
        return [UNANSWERED for _ in keys]

    async def outhash(self, key: tuple[str, str, str]) -> Outhash | Unanswered | None:
        del key
        return UNANSWERED

    def summary(self) -> UpstreamSummary:
        return UpstreamSummary(state="closed", in_flight=0, hits=0, misses=0, errors=0, latency=0.0)

    async def close(self) -> None:
        pass


def run(directory: Path, scenario: Scenario) -> None:
    async def with_store() -> None:
        store = SqliteStore(str(directory / "hashserv.db"), durable=False)
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(with_store())


async def further(equivalences: DownstreamEquivalences) -> list[bytes]:
    asking = equivalences.further_lookups([KEY], await equivalences.lookup([KEY]))
    assert asking is not None
    return await asking


def test_misses_are_bounded_and_end() -> None:
    async def check() -> None:
        misses = Misses(ttl=3600, most=3)
        for number in range(5):
            misses.add(number)
        assert [number in misses for number in range(5)] == [False, False, True, True, True]
        misses.add(2)  # it is the youngest now
        misses.add(5)
        assert [number in misses for number in range(6)] == [False, False, True, False, True, True]
        misses.discard(2)
        assert 2 not in misses
        over = Misses(ttl=0)
        over.add(1)
        assert 1 not in over

    asyncio.run(check())


def test_no_answer_is_not_remembered_as_a_miss(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        upstream = Told()
        equivalences = DownstreamEquivalences(store, upstream)
        upstream.answer.set_result(UNANSWERED)
        for _ in range(2):
            assert await further(equivalences) == [b""]
            assert equivalences.known_lookups([b"m t"]) == [None]
        assert len(upstream.asked) == 2
        upstream.answer = asyncio.get_running_loop().create_future()
        upstream.answer.set_result(None)
        assert await further(equivalences) == [b""]
        assert equivalences.known_lookups([b"m t"]) == [b""]
        assert equivalences.further_lookups([KEY], [b""]) is None
        await equivalences.close()

    run(tmp_path, scenario)


def test_what_is_answered_meanwhile_is_not_asked_again(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        upstream = Told()
        upstream.answer.set_result(None)
        equivalences = DownstreamEquivalences(store, upstream)
        both = [equivalences.further_lookups([KEY], [b""]) for _ in range(2)]
        for each in both:
            assert each is not None
            assert await each == [b""]
        assert upstream.asked == [KEY]
        await equivalences.close()

    run(tmp_path, scenario)


def test_a_miss_ends_when_the_task_is_reported(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        upstream = Told()
        upstream.answer.set_result(None)
        equivalences = DownstreamEquivalences(store, upstream)
        assert await further(equivalences) == [b""]
        await equivalences.report([Report("m", "t", "o", U1)])
        assert equivalences.known_lookups([b"m t"]) == [U1.encode()]
        await equivalences.close()

    run(tmp_path, scenario)


def test_what_a_build_reports_meanwhile_counts(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        upstream = Told()
        equivalences = DownstreamEquivalences(store, upstream)
        asking = asyncio.ensure_future(further(equivalences))
        await upstream.begun.wait()
        assert await equivalences.report([Report("m", "t", "o", U1)]) == [U1]
        upstream.answer.set_result(U2)
        assert await asking == [U1.encode()]
        await equivalences.backfill_wait()
        assert await store.lookup([KEY]) == [U1]
        await equivalences.close()

    run(tmp_path, scenario)


class Copying(Told):
    """An upstream all of whose mappings were copied in advance."""

    has_copies = True

    def copied(self, keys: Sequence[MappingKey]) -> list[str | None]:
        return [U2 for _ in keys]


class Overtaken(SqliteStore):
    """Answers look-ups as it found them, though a task is reported in between."""

    def __init__(self, path: str) -> None:
        super().__init__(path, durable=False)
        self.overtake: Callable[[], Awaitable[list[str]]] | None = None
        self.reported = ""

    async def lookup(self, keys: Sequence[MappingKey]) -> list[str | None]:
        answers = await super().lookup(keys)
        if self.overtake is not None:
            overtake, self.overtake = self.overtake, None
            (self.reported,) = await overtake()
        return answers


@pytest.mark.parametrize("cache_bytes", [1 << 20, 0])
@pytest.mark.parametrize("upstream_type", [Told, Copying])
def test_what_a_build_reports_while_the_store_is_read_counts(
    tmp_path: Path, upstream_type: type[Told], cache_bytes: int
) -> None:
    async def check() -> None:
        store = Overtaken(str(tmp_path / "hashserv.db"))
        upstream = upstream_type()
        equivalences = DownstreamEquivalences(store, upstream, cache_bytes=cache_bytes)

        def report() -> Awaitable[list[str]]:
            return equivalences.report([Report("m", "t", "o", U1)])

        if upstream_type is Copying:
            store.overtake = report
            answers = await equivalences.lookup([KEY])
        else:
            asking = asyncio.ensure_future(further(equivalences))
            await upstream.begun.wait()
            store.overtake = report
            upstream.answer.set_result(U2)
            answers = await asking
        assert answers == [store.reported.encode()]
        await equivalences.backfill_wait()
        assert await equivalences.lookup([KEY]) == answers
        await equivalences.close()
        await store.close()

    asyncio.run(check())


class Submitting(SqliteStore):
    """Tells when a report waits for its transaction."""

    def __init__(self, path: str) -> None:
        super().__init__(path, durable=False)
        self.submitted = asyncio.Event()

    def _report(self, reports: Sequence[Report]) -> Awaitable[list[str]]:
        self.submitted.set()
        return super()._report(reports)

    def transact(self, work: Work) -> Awaitable[object]:
        self.submitted.set()
        return super().transact(work)


async def asked(
    equivalences: DownstreamEquivalences, upstream: Told
) -> "asyncio.Future[list[bytes]]":
    """Ask, and give it turns in which it might be answered too early."""
    ask = equivalences.lookup([KEY]) if upstream.has_copies else further(equivalences)
    asking = asyncio.ensure_future(ask)
    for _ in range(50):
        await asyncio.sleep(0)
    return asking


@pytest.mark.parametrize("upstream_type", [Told, Copying])
@pytest.mark.parametrize("whole", [True, False])
def test_who_asks_while_a_report_is_stored_is_answered_as_who_reported(
    tmp_path: Path, upstream_type: type[Told], *, whole: bool
) -> None:
    async def report(equivalences: DownstreamEquivalences) -> str:
        if whole:
            return (await equivalences.report([Report("m", "t", "o", U1)]))[0]
        return await equivalences.report_equivalent(Mapping("m", "t", U1))

    async def check() -> None:
        store = Submitting(str(tmp_path / "hashserv.db"))
        upstream = upstream_type()
        upstream.answer.set_result(U2)
        equivalences = DownstreamEquivalences(store, upstream)
        with closing(sqlite3.connect(tmp_path / "hashserv.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # until it is closed, nothing can be stored
            reporting = asyncio.ensure_future(report(equivalences))
            await store.submitted.wait()
            asking = await asked(equivalences, upstream)
        assert await asking == [(await reporting).encode()]
        await equivalences.backfill_wait()
        assert await equivalences.lookup([KEY]) == await asking
        await equivalences.close()
        await store.close()

    asyncio.run(check())


@pytest.mark.parametrize("upstream_type", [Told, Copying])
@pytest.mark.parametrize("also_alive", [True, False])
def test_a_report_counts_although_its_client_has_gone(
    tmp_path: Path, upstream_type: type[Told], *, also_alive: bool
) -> None:
    """It is in a transaction by then, and that is committed."""
    report = [Report("m", "t", "o", U1)]

    async def check() -> None:
        store = Submitting(str(tmp_path / "hashserv.db"))
        upstream = upstream_type()
        upstream.answer.set_result(U2)
        equivalences = DownstreamEquivalences(store, upstream)
        with closing(sqlite3.connect(tmp_path / "hashserv.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # until it is closed, nothing can be stored
            alive = asyncio.ensure_future(equivalences.report(report))
            await store.submitted.wait()
            if also_alive:
                gone = asyncio.ensure_future(equivalences.report(report))
                for _ in range(10):  # turns until it is on its way, too
                    await asyncio.sleep(0)
            else:
                gone = alive
            gone.cancel()
            await asyncio.wait([gone], timeout=GUARD_SECONDS)
            asking = await asked(equivalences, upstream)
        answers = await asking
        await equivalences.backfill_wait()
        assert await store.lookup([KEY]) == [answers[0].decode()]
        if also_alive:
            assert await alive == [answers[0].decode()]
        await equivalences.close()
        await store.close()

    asyncio.run(check())


def test_reports_of_who_is_gone_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "MOST_UNDER_WAY", 2)

    async def scenario(store: SqliteStore) -> None:
        equivalences = DownstreamEquivalences(store, Told())
        with closing(sqlite3.connect(tmp_path / "hashserv.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # until it is closed, nothing can be stored
            clients = []
            for number in range(5):
                report = Report("m", f"t{number}", f"o{number}", U1)
                clients.append(asyncio.ensure_future(equivalences.report([report])))
                for _ in range(50):  # turns until it is on its way
                    await asyncio.sleep(0)
            for client in clients:
                client.cancel()
            await asyncio.wait(clients, timeout=GUARD_SECONDS)
        keys = [MappingKey("m", f"t{number}") for number in range(5)]
        assert await equivalences.report([Report("m", "t", "o", U1)]) == [U1]
        assert await store.lookup(keys) == [U1, U1, None, None, None]
        await equivalences.close()

    run(tmp_path, scenario)


def test_what_was_answered_holds_for_a_report_that_comes_before_it_is_stored(
    tmp_path: Path,
) -> None:
    async def scenario(store: SqliteStore) -> None:
        upstream = Told()
        upstream.answer.set_result(U2)
        equivalences = DownstreamEquivalences(store, upstream)
        assert await further(equivalences) == [U2.encode()]
        assert await equivalences.report([Report("m", "t", "o", U1)]) == [U2]
        await equivalences.close()

    run(tmp_path, scenario)


def test_what_is_on_its_way_is_known_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "MOST_WAITING", 2)

    async def scenario(store: SqliteStore) -> None:
        filling = Backfill(store)
        filling.add([Mapping("m", f"t{number}", U1) for number in range(4)])
        assert [filling.get(MappingKey("m", f"t{number}")) for number in range(4)] == [
            *(U1, U1, None, None)
        ]
        assert await filling.wait() == 2
        assert len(filling) == 0
        assert filling.stored == 2
        await filling.close()

    run(tmp_path, scenario)


def test_a_store_that_fails_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backfill, "_PAUSE_SECONDS", 0)

    async def scenario(store: SqliteStore) -> None:
        add_mappings = store.add_mappings
        failures = iter([StoreError("it is full"), None])

        async def fail_first(mappings: Sequence[Mapping]) -> list[str]:
            if (failure := next(failures)) is not None:
                raise failure
            return await add_mappings(mappings)

        monkeypatch.setattr(store, "add_mappings", fail_first)
        filling = Backfill(store)
        filling.add([Mapping("m", "t", U1)])
        await filling.wait()
        assert await store.lookup([KEY]) == [U1]
        await filling.close()

    run(tmp_path, scenario)
    assert "it is full" in caplog.text


def test_who_waits_for_one_mapping_waits_for_no_others_that_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(store: SqliteStore) -> None:
        add_mappings = store.add_mappings
        filling = Backfill(store)

        async def add_another(mappings: Sequence[Mapping]) -> list[str]:
            filling.add([Mapping("m", mappings[-1].taskhash + "+", U1)])
            return await add_mappings(mappings)

        monkeypatch.setattr(store, "add_mappings", add_another)
        filling.add([Mapping("m", "t", U1)])
        async with asyncio.timeout(GUARD_SECONDS):
            await filling.wait_for([KEY])
        assert await store.lookup([KEY]) == [U1]
        await filling.close()
        assert len(filling) == 0

    run(tmp_path, scenario)


@pytest.mark.parametrize("begun", [True, False])
def test_who_waits_for_what_can_not_be_stored_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, begun: bool
) -> None:
    async def scenario(store: SqliteStore) -> None:
        async def fail(mappings: Sequence[Mapping]) -> list[str]:
            raise StoreError(f"{len(mappings)} are too many")

        monkeypatch.setattr(store, "add_mappings", fail)
        filling = Backfill(store)
        filling.add([Mapping("m", "t", U1)])
        waiting = asyncio.ensure_future(filling.wait_for([KEY]))
        async with asyncio.timeout(GUARD_SECONDS):
            if begun:
                with pytest.raises(StoreError, match="1 are too many"):
                    await waiting
                waiting = asyncio.ensure_future(filling.wait_for([KEY]))
                await asyncio.sleep(0)
            await filling.close()
            await waiting  # it was dropped
        assert len(filling) == 0

    run(tmp_path, scenario)
