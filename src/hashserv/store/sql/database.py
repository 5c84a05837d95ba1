"""Running work on an SQL server, through restarts and promotions of it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from hashserv.errors import DatabaseBusy, DatabaseReadOnly, DatabaseUnreachable, StoreError
from hashserv.store.sql.connecting import (
    CONNECT_SECONDS,
    connect_engine,
    cut,
    longest_connecting,
)
from hashserv.store.sql.outage import PAUSE_SECONDS, Outage
from hashserv.store.sql.problems import problem_of

logger = logging.getLogger("hashserv.store")

TRY_SECONDS: Final = 6.0
"""How long one try of something quick may take: a server that hangs is left for another."""

COUNT_SECONDS: Final = 120.0
"""The same for counting rows. One count runs at a time."""

OWN_CONNECTIONS: Final = 3
"""One to write, one to watch the server and what others do there, one to count."""

_Result = TypeVar("_Result")


class Database:
    """The connections to one SQL server, or to a cluster of which one host takes what is written.

    While the server can't be reached, whatever is asked of it waits, each for as long as the
    patience lasts since it came, and one probe tries it; see `Outage`.

    What has begun on a connection is never cancelled, though nobody may wait for it any more:
    drivers would have the server cancel a commit that waits for a standby, which makes it visible
    before it is safe. What takes too long has its connection cut.

    `returned` is called when the server can be reached again, which may lack what it held before.

    Args:
        url: With driver and login.
        durable: Whether commits wait for the disk.
        connections: How many there may be at most.
        patience: For how many seconds work waits while the server can't be reached.
    """

    def __init__(
        self,
        url: URL,
        *,
        durable: bool,
        connections: int,
        patience: float,
    ) -> None:
        self.name = url.set(query={}).render_as_string(hide_password=True)
        self.returned: Callable[[], None] = _do_nothing
        self.readers = max(1, connections - OWN_CONNECTIONS)
        """How many look-ups run at once."""
        self._engine = connect_engine(url, durable=durable, connections=connections)
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._connecting = longest_connecting(url)
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._outage = Outage(self.name, patience=patience, probe=self._probe, over=self._return)
        self._look_ups = asyncio.Semaphore(self.readers)
        self._counts = asyncio.Semaphore(1)
        self._watches = asyncio.Semaphore(1)
        self._writes = asyncio.Semaphore(1)
        self._running: set[asyncio.Task[Any]] = set()
        self._in_use: set[Any] = set()

    async def queued(self, ask: Callable[[], Awaitable[_Result]]) -> _Result:
        """Wait for work that waits for other work before it is begun, but not without end.

        While the server can't be reached, nothing is queued.

        Args:
            ask: Puts the work into its queue, and waits for it.

        Raises:
            StoreError: It failed, or took too long.
        """
        if self._outage.under_way:
            await self._outage.end(self._loop.time() + self._patience)
        end = self._loop.time() + self._patience + TRY_SECONDS
        try:
            async with asyncio.timeout_at(end):
                return await ask()
        except TimeoutError:
            await self._outage.end(end)
            raise DatabaseBusy(
                f"{self.name} is too slow for what is asked of it: look whether it waits for a "
                "lock or its disk"
            ) from None

    async def read(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run work that only reads, and quickly, each statement for itself.

        Raises:
            StoreError: It failed.
        """
        return await self._persist(self._reading, work, self._look_ups, TRY_SECONDS)

    async def count(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run work that only reads, and may take its time.

        Raises:
            StoreError: It failed.
        """
        return await self._persist(self._reading, work, self._counts, COUNT_SECONDS)

    async def watch(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run work that only reads and must not wait for other readers.

        Raises:
            StoreError: It failed.
        """
        return await self._persist(self._reading, work, self._watches, TRY_SECONDS)

    async def write(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run work in a transaction, and commit it. It may be run again after a failure.

        Raises:
            StoreError: It failed; whether it was committed is not known if the connection broke
                at its very end, so it should be work that may be done twice.
        """
        return await self._persist(self._engine, work, self._writes, TRY_SECONDS)

    async def once(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run work in a transaction, as long as it takes, and don't try again.

        Raises:
            StoreError: It failed.
        """
        try:
            async with self._connection(self._engine) as connection:
                result = await connection.run_sync(work)
                await connection.commit()
                return result
        except Exception as error:
            raise problem_of(error, self.name).error from error

    async def hurry(self) -> None:
        """Wait for nothing any more, but for what has begun."""
        self._patience = 0
        await self._outage.close()

    async def close(self) -> None:
        """Close the connections, those that are in use as well."""
        await self.hurry()
        for connection in self._in_use:
            cut(connection)
        if self._running:
            await asyncio.wait(self._running, timeout=CONNECT_SECONDS)
        # There may be nobody to say goodbye to.
        with contextlib.suppress(TimeoutError, OSError, SQLAlchemyError):
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._engine.dispose()

    async def _persist(
        self,
        engine: AsyncEngine,
        work: Callable[[Connection], _Result],
        turns: asyncio.Semaphore,
        seconds: float,
    ) -> _Result:
        """Try until it works, or the patience is at its end.

        Args:
            engine: Reading or writing.
            work: What to do with a connection.
            turns: As many as there are connections for such work.
            seconds: How long a try may take.
        """
        deadline = self._loop.time() + self._patience
        while True:
            await self._outage.end(deadline)
            await self._take(turns, deadline)
            if self._outage.under_way:
                turns.release()
                continue
            task = self._loop.create_task(self._attempt(engine, work, seconds))
            self._running.add(task)
            task.add_done_callback(partial(self._end_attempt, turns))
            try:
                result = await asyncio.shield(task)
            except Exception as error:
                problem = problem_of(error, self.name)
                if not problem.passing or self._loop.time() >= deadline:
                    raise problem.error from error
                await self._pause(problem.error)
            else:
                return result

    def _end_attempt(self, turns: asyncio.Semaphore, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        turns.release()
        if not task.cancelled():
            task.exception()  # nobody may wait for it any more

    async def _take(self, turns: asyncio.Semaphore, deadline: float) -> None:
        """Wait for one of the connections that are for some work."""
        if not turns.locked():
            await turns.acquire()
            return
        try:
            async with asyncio.timeout_at(deadline):
                await turns.acquire()
        except TimeoutError:
            raise DatabaseBusy(
                f"{self.name} is busy: all connections to it are in use; raise --database-pool"
            ) from None

    async def _pause(self, error: StoreError) -> None:
        """Wait before the next try: where it would be in vain, all wait for the probe."""
        if isinstance(error, DatabaseUnreachable):
            self._outage.begin(error)
        else:
            logger.debug("Trying again: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _attempt(
        self, engine: AsyncEngine, work: Callable[[Connection], _Result], seconds: float
    ) -> _Result:
        async with self._connection(engine) as connection:
            in_use = (await connection.get_raw_connection()).driver_connection
            self._in_use.add(in_use)
            cutting = self._loop.call_later(seconds, cut, in_use)
            end = self._loop.time() + seconds
            try:
                result = await connection.run_sync(work)
                if engine is self._engine:
                    await connection.commit()
            except Exception as error:
                if self._loop.time() >= end:
                    raise TimeoutError(f"no answer within {seconds:g} s") from error
                if isinstance(problem_of(error, self.name).error, DatabaseReadOnly):
                    await connection.invalidate()  # another may lead to one that can be written
                raise
            finally:
                cutting.cancel()
                self._in_use.discard(in_use)
            return result

    @contextlib.asynccontextmanager
    async def _connection(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        connection = engine.connect()
        async with asyncio.timeout(self._connecting):
            await connection.start()
        try:
            yield connection
        finally:
            await connection.close()

    def _return(self) -> None:
        self.returned()

    async def _probe(self) -> bool:
        try:
            await self._attempt(self._reading, _ask_anything, TRY_SECONDS)
        except Exception as error:  # noqa: BLE001 - drivers raise what they like
            self._outage.begin(problem_of(error, self.name).error)
            return False
        return True


def _ask_anything(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))


def _do_nothing() -> None:
    pass
