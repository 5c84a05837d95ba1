"""Look-ups of several callers at once, which threads answer."""

import asyncio
import random
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Self

import pytest

from hashserv.errors import StoreError
from hashserv.model import Mapping, MappingKey
from hashserv.store import sqlite_file
from hashserv.store.base import Freshness
from hashserv.store.readers import THREADS, TOGETHER, Readers
from hashserv.store.sqlite import SqliteStore
from hashserv.store.sqlite_statements import COMPACT_STATEMENTS

METHODS = ("m", "n")
MAPPINGS = [
    Mapping(method, f"t{number}", f"u{number}-{method}")
    for number in range(500)
    for method in METHODS
]
HELD = {(method, taskhash): unihash for method, taskhash, unihash in MAPPINGS}
UNIHASHES = set(HELD.values())
GUARD_SECONDS = 30


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with the mappings."""
    file = tmp_path / "db"

    async def fill() -> None:
        store = SqliteStore(str(file), durable=False)
        await store.add_mappings(MAPPINGS)
        await store.close()

    asyncio.run(fill())
    return file


class Reading:
    """Readers of a file, and the threads that read.

    Args:
        file: The file.
        pause: What to do in a thread while it reads.
    """

    def __init__(self, file: Path, pause: Callable[[], object] = lambda: None) -> None:
        self._file = file
        self._pause = pause
        self.threads: set[int] = set()
        self._own = self._open()
        self.readers = Readers(self._own, self._connect, COMPACT_STATEMENTS)

    def _open(self) -> sqlite3.Connection:
        return sqlite_file.connect(str(self._file), writable=True, busy=5)

    def _connect(self) -> sqlite3.Connection:
        connection = self._open()
        connection.set_progress_handler(self._step, 1)
        return connection

    def _step(self) -> None:
        self.threads.add(threading.get_ident())
        self._pause()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.readers.close()
        self._own.close()


def some_keys(chance: random.Random) -> list[MappingKey]:
    """Return as many as a caller may have, every tenth of them unknown."""
    count = chance.choice((0, 1, 2, 64, TOGETHER, TOGETHER + 1))
    return [MappingKey(chance.choice(METHODS), f"t{chance.randrange(550)}") for _ in range(count)]


@pytest.mark.parametrize("seed", range(3))
def test_each_of_many_callers_gets_its_own_answers(file: Path, seed: int) -> None:
    chance = random.Random(seed)

    async def look_up(readers: Readers) -> None:
        for keys in [some_keys(chance) for _ in range(5)]:
            assert await readers.lookup(keys) == [HELD.get(key) for key in keys]
            unihashes = [f"u{chance.randrange(550)}-m" for _ in keys]
            found = await readers.exists(unihashes)
            assert found == [unihash in UNIHASHES for unihash in unihashes]

    async def check() -> None:
        async with Reading(file) as reading:
            await asyncio.gather(*(look_up(reading.readers) for _ in range(50)))
            assert 0 < len(reading.threads) <= THREADS

    asyncio.run(check())


def test_who_is_alone_waits_for_no_thread(file: Path) -> None:
    keys = [MappingKey("m", f"t{number}") for number in range(TOGETHER)]

    async def check() -> None:
        async with Reading(file) as reading:
            for _ in range(3):
                assert await reading.readers.lookup(keys) == [HELD[key] for key in keys]
            # Single questions of many callers are one batch, and it is alone.
            each = await asyncio.gather(*(reading.readers.lookup([key]) for key in keys))
            assert each == [[HELD[key]] for key in keys]
            assert not reading.threads

    asyncio.run(check())


def test_the_loop_goes_on_while_threads_wait_for_the_disk(file: Path) -> None:
    go_on = threading.Event()
    keys = [MappingKey("m", f"t{number}") for number in range(TOGETHER)]

    async def check() -> None:
        async with Reading(file, lambda: go_on.wait(GUARD_SECONDS)) as reading:
            callers = [asyncio.ensure_future(reading.readers.lookup(keys)) for _ in range(8)]
            callers[5].cancel()
            await asyncio.sleep(0)
            existing = await reading.readers.exists(["u1-m"])  # which nothing else waits for
            assert existing == [True]
            assert not any(caller.done() for caller in callers if caller is not callers[5])
            go_on.set()
            for caller in callers:
                if caller is not callers[5]:
                    assert await caller == [HELD[key] for key in keys]

    asyncio.run(check())


def test_all_callers_are_told_what_went_wrong_and_then_it_goes_on(file: Path) -> None:
    keys = [MappingKey("m", f"t{number}") for number in range(TOGETHER)]

    async def check() -> None:
        store = SqliteStore(str(file))
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("ALTER TABLE unihashes_v3 RENAME TO away")
            failed = await asyncio.gather(
                *(store.lookup(keys) for _ in range(8)), return_exceptions=True
            )
            assert [type(error) for error in failed] == [StoreError] * 8
            with pytest.raises(StoreError, match="no such table"):
                await store.lookup(keys)
            other.execute("ALTER TABLE away RENAME TO unihashes_v3")
        found = await asyncio.gather(*(store.lookup(keys) for _ in range(8)))
        assert found == [[HELD[key] for key in keys]] * 8
        await store.close()

    asyncio.run(check())


def test_threads_read_the_file_that_was_opened_wherever_it_is_now(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [MappingKey("m", f"t{number}") for number in range(TOGETHER)]
    elsewhere = file.parent / "elsewhere"
    elsewhere.mkdir()

    def move() -> None:
        file.rename(file.with_name("moved"))
        monkeypatch.chdir(elsewhere)

    async def check() -> None:
        monkeypatch.chdir(file.parent)
        store = SqliteStore(file.name)
        await store.add_mappings([Mapping("m", "t1000", "u1000")])
        move()
        found = await asyncio.gather(*(store.lookup(keys) for _ in range(8)))
        assert found == [[HELD[key] for key in keys]] * 8
        await store.close()

    asyncio.run(check())
    assert not file.exists()
    assert not list(elsewhere.iterdir())


def test_threads_are_there_from_the_start_or_opening_fails(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [MappingKey("m", f"t{number}") for number in range(TOGETHER)]
    start = threading.Thread.start
    allowed = 0

    def refuse(thread: threading.Thread) -> None:
        nonlocal allowed
        if not allowed:
            raise RuntimeError("can't start new thread")
        allowed -= 1
        start(thread)

    async def check() -> None:
        async with Reading(file) as reading, asyncio.timeout(GUARD_SECONDS):
            monkeypatch.setattr(threading.Thread, "start", refuse)
            found = await asyncio.gather(*(reading.readers.lookup(keys) for _ in range(8)))
            assert found == [[HELD[key] for key in keys]] * 8

    asyncio.run(check())
    for number in range(THREADS):
        allowed = number
        with pytest.raises(StoreError, match="no further threads"):
            Reading(file)


def test_who_asks_for_nothing_waits_for_nobody(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [MappingKey("m", f"t{number}") for number in range(TOGETHER)]
    go_on = threading.Event()
    connect = sqlite_file.connect

    def wait() -> None:
        if threading.current_thread() is not threading.main_thread():
            go_on.wait(GUARD_SECONDS)

    def connect_slowly(
        path: str, *, writable: bool, busy: float, page_cache: int = sqlite_file.LEAST_PAGE_CACHE
    ) -> sqlite3.Connection:
        connection = connect(path, writable=writable, busy=busy, page_cache=page_cache)
        connection.set_progress_handler(wait, 1)
        return connection

    monkeypatch.setattr(sqlite_file, "connect", connect_slowly)

    async def check() -> None:
        store = SqliteStore(str(file), writable=False)
        callers = [asyncio.ensure_future(store.lookup(keys)) for _ in range(8)]
        await asyncio.sleep(0)
        assert await store.lookup([]) == []
        assert await store.exists([]) == []
        assert not any(caller.done() for caller in callers)
        go_on.set()
        assert await asyncio.gather(*callers) == [[HELD[key] for key in keys]] * 8
        await store.close()

    asyncio.run(check())


@pytest.mark.parametrize("writable", [True, False])
def test_what_was_asked_before_closing_is_answered_and_what_comes_then_is_refused(
    file: Path, *, writable: bool
) -> None:
    keys = [MappingKey("m", f"t{number}") for number in range(TOGETHER)]

    async def check() -> None:
        store = SqliteStore(str(file), writable=writable)
        callers = [asyncio.ensure_future(store.lookup(keys)) for _ in range(20)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(store.close())
        while not closing.done():
            await asyncio.sleep(0)
            for late in (store.lookup(keys), store.equivalent("m", "o")):
                with pytest.raises(StoreError, match="is being closed"):
                    await late
            assert store.freshness() is not Freshness.CHANGED
        assert await asyncio.gather(*callers) == [[HELD[key] for key in keys]] * 20
        await closing

    asyncio.run(check())
