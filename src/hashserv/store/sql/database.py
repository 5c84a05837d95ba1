"""Running work on an SQL server, through restarts and promotions of it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from sqlalchemy import URL, Connection

from hashserv.errors import StoreError
from hashserv.store.sql.connecting import connect_engine
from hashserv.store.sql.problems import Problem, problem_of

logger = logging.getLogger("hashserv.store")

PAUSE_SECONDS: Final = 0.1
"""Between two tries."""

TRY_SECONDS: Final = 8.0
"""How long one try of something quick may take: a server that hangs is left for another."""

_Result = TypeVar("_Result")


class Database:
    """The connections to one SQL server, or to a cluster of which one host takes what is written.

    Args:
        url: With driver and login.
        durable: Whether commits wait for the disk.
        connections: How many there may be at most.
        patience: For how many seconds work is tried again while the server can't be reached.
    """

    def __init__(self, url: URL, *, durable: bool, connections: int, patience: float) -> None:
        self.name = url.set(query={}).render_as_string(hide_password=True)
        self._engine = connect_engine(url, durable=durable, connections=connections)
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._patience = patience
        self._troubled = False

    async def read(self, work: Callable[[Connection], _Result], *, quick: bool = True) -> _Result:
        """Run work that only reads, each statement for itself.

        Args:
            work: What to do with a connection.
            quick: Whether it is to take less than `TRY_SECONDS`.

        Raises:
            StoreError: It failed.
        """

        async def attempt() -> _Result:
            async with self._reading.connect() as connection:
                return await connection.run_sync(work)

        return await self._persist(attempt, quick=quick)

    async def write(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run work in a transaction, and commit it. It may be run again after a failure.

        Raises:
            StoreError: It failed; whether it was committed is not known if the connection broke
                at its very end, so it should be work that may be done twice.
        """

        async def attempt() -> _Result:
            async with self._engine.begin() as connection:
                return await connection.run_sync(work)

        return await self._persist(attempt, quick=True)

    async def once(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run work in a transaction, as long as it takes, and don't try again.

        Raises:
            StoreError: It failed.
        """
        try:
            async with self._engine.begin() as connection:
                return await connection.run_sync(work)
        except Exception as error:
            raise self._problem(error).error from error

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()

    async def _persist(self, attempt: Callable[[], Awaitable[_Result]], *, quick: bool) -> _Result:
        """Try until it works, or the patience is at its end."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while True:
            try:
                async with asyncio.timeout(TRY_SECONDS if quick else None):
                    result = await attempt()
            except StoreError:
                raise
            except Exception as error:
                problem = self._problem(error)
                if not problem.passing or loop.time() >= deadline:
                    raise problem.error from error
                self._note(problem)
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                if self._troubled:
                    self._troubled = False
                    logger.warning("%s is back", self.name)
                return result

    def _problem(self, error: Exception) -> Problem:
        return problem_of(error, self.name)

    def _note(self, problem: Problem) -> None:
        if not self._troubled:
            self._troubled = True
            logger.warning("Trying again for %g s: %s", self._patience, problem.error)
