"""A read replica, which may say what there is, but never that something is not there."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy import Connection

from hashserv.errors import StoreError
from hashserv.store.sql.database import Database
from hashserv.store.sql.statements import READ_STATE
from hashserv.store.sql.transaction import SqlTransaction

logger = logging.getLogger("hashserv.store")

ANSWER_SECONDS: Final = 1.0
"""How long a replica may take; then the primary is asked."""

REST_SECONDS: Final = 5.0
"""For how long a replica that failed is left alone."""

_Result = TypeVar("_Result")


class Replica:
    """A database that follows the primary, some way behind.

    What it has was there a moment ago. Whether it is still there shows by the count of removals,
    which travels with them: as long as that is the primary's, nothing that was removed since can
    be read here.

    Args:
        database: Its connections; work is not tried again there.
        on: Makes a transaction of a connection.
    """

    def __init__(self, database: Database, on: Callable[[Connection], SqlTransaction]) -> None:
        self._database = database
        self._on = on
        self._rests_until = 0.0
        self._troubled = False

    async def ask(self, work: Callable[[SqlTransaction], _Result], removals: int) -> _Result | None:
        """Return what work finds, or `None` where the replica can't tell.

        Args:
            work: Reads.
            removals: How many there were at the primary.
        """

        def read(connection: Connection) -> _Result | None:
            transaction = self._on(connection)
            # First: what is read after it is as new, or newer.
            ((seen, _),) = transaction.rows(READ_STATE)
            return work(transaction) if seen >= removals else None

        loop = asyncio.get_running_loop()
        if loop.time() < self._rests_until:
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found = await self._database.read(read)
        except (StoreError, TimeoutError) as error:
            self._rests_until = loop.time() + REST_SECONDS
            level = logging.DEBUG if self._troubled else logging.WARNING
            self._troubled = True
            logger.log(
                level,
                "The replica %s does not answer, look-ups go to the primary: %s",
                self._database.name,
                str(error) or "it takes too long",
            )
            return None
        self._troubled = False
        return found

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()
