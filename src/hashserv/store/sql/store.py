"""The store of SQL servers: several servers of ours may share one database."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping as Dictionary
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import URL, Connection

from hashserv.errors import StoreError
from hashserv.model import (
    CollectionStatus,
    Equivalent,
    MappingKey,
    MarkedMapping,
    Outhash,
    Report,
)
from hashserv.store import statements, transactions
from hashserv.store.base import Freshness
from hashserv.store.questions import Questions
from hashserv.store.schema import MAPPINGS, OUTHASHES, TABLES
from hashserv.store.sql.committing import SqlCommitter
from hashserv.store.sql.database import Database
from hashserv.store.sql.migrations import migrate
from hashserv.store.sql.replica import Replica
from hashserv.store.sql.statements import (
    ADVANCE,
    LOCK,
    READ_STATE,
    MysqlStatements,
    PostgresStatements,
    SqlStatements,
)
from hashserv.store.sql.transaction import SqlTransaction
from hashserv.store.times import Clock
from hashserv.store.transactional import TransactionalStore
from hashserv.store.transactions import Committed, Work
from hashserv.store.users import TransactionalUsers

logger = logging.getLogger("hashserv.store")

MOST_ROWS: Final = 4000
"""Rows of a copy that one transaction takes: builds wait for it."""

WATCH_SECONDS: Final = 0.5
"""How often it is asked whether other servers removed mappings or changed users."""


class SqlStore(TransactionalStore):
    """A store on an SQL server, which servers of ours, and the reference, may share.

    Transactions that write lock one row, so that those of all servers come one after the other:
    two of them can't give one taskhash, or one outhash, two unihashes. What is removed counts up
    a number in that row, by which the others' caches learn of it within `WATCH_SECONDS`. Mappings
    that others add are not heard of, so what is not there must not be remembered.

    `SqlStore.open` makes one.
    """

    hears_of_additions = False

    def __init__(
        self, database: Database, engine_statements: SqlStatements, replica: Database | None
    ) -> None:
        clock = Clock(local=True)
        super().__init__(engine_statements, clock)
        self._sql = engine_statements
        self._database = database
        database.returned = self._database_returned
        self._replica = None if replica is None else Replica(replica, self._on)
        self._lookups = Questions(self._look_up, at_once=database.readers)
        self._existences = Questions(self._exist, at_once=database.readers)
        self._committer = SqlCommitter(database.name, self._transact)
        self._removals = 0
        self._user_changes: int | None = None
        self._watching: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self.users = TransactionalUsers(self._read, self.transact, lambda: self._user_changes)

    @classmethod
    async def open(
        cls,
        url: URL,
        *,
        replica: URL | None = None,
        durable: bool = True,
        writable: bool = True,
        connections: int,
        patience: float,
    ) -> "SqlStore":
        """Connect to a database and bring its tables up to date.

        Args:
            url: With driver and login.
            replica: One that follows it, to be asked first for mappings.
            durable: Whether what was acknowledged survives a loss of power of the SQL server.
            writable: Whether tables may be created that are missing.
            connections: How many there may be at most.
            patience: For how many seconds requests wait for a server that can't be reached.

        Raises:
            SettingsError: The driver is not installed.
            StoreError: The database can't be used; the message says why and what to do.
        """
        database = Database(url, durable=durable, connections=connections, patience=patience)
        try:
            engine_statements = await database.once(
                lambda connection: _statements_of(connection.dialect)
            )
            if writable:
                await database.once(
                    lambda connection: migrate(connection, engine_statements, database.name)
                )
            following = None
            if replica is not None:
                following = Database(replica, durable=True, connections=connections, patience=0)
            store = cls(database, engine_statements, following)
            await store._start()
        except BaseException:
            await database.close()
            raise
        return store

    def freshness(self) -> Freshness:
        return Freshness.SAME  # the watcher tells the listener

    # Looking up.

    async def lookup(self, keys: Sequence[MappingKey]) -> list[str | None]:
        if not keys:
            return []
        return list(await self._database.queued(lambda: self._lookups.answers(keys)))

    async def exists(self, unihashes: Sequence[str]) -> list[bool]:
        if not unihashes:
            return []
        return list(await self._database.queued(lambda: self._existences.answers(unihashes)))

    async def task(self, key: MappingKey) -> Equivalent | None:
        return await self._equivalent(self._sql.task, key._asdict())

    async def equivalent(self, method: str, outhash: str) -> Equivalent | None:
        return await self._equivalent(self._sql.equivalent, {"method": method, "outhash": outhash})

    async def outhash(self, method: str, outhash: str) -> Outhash | None:
        rows = await self._read(self._sql.outhash, {"method": method, "outhash": outhash})
        return Outhash(*rows[0]) if rows else None

    async def collection(self) -> CollectionStatus:
        def count(connection: Connection) -> CollectionStatus:
            transaction = self._on(connection)
            mark = transactions.current_mark(transaction)
            kept, total = transaction.rows(statements.COUNT_MARKED, {"mark": mark or ""})[0]
            kept = int(kept or 0)  # MySQL's sums are decimals
            return CollectionStatus(kept, total - kept, mark)

        return await self._database.count(count)

    async def usage(self) -> Dictionary[str, int]:
        def count(connection: Connection) -> dict[str, int]:
            transaction = self._on(connection)
            return {table: transaction.rows(statements.count(table))[0][0] for table in TABLES}

        return await self._database.count(count)

    async def split_outputs(self) -> int:
        def count(connection: Connection) -> int:
            return int(self._on(connection).rows(self._sql.split_outputs)[0][0])

        return await self._database.count(count)

    async def mappings_after(self, after: int, limit: int) -> list[MarkedMapping]:
        rows = await self._read(statements.rows_after(MAPPINGS), {"after": after, "rows": limit})
        return list(map(MarkedMapping._make, rows))

    async def outhashes_after(self, after: int, limit: int) -> list[Outhash]:
        rows = await self._read(statements.rows_after(OUTHASHES), {"after": after, "rows": limit})
        return list(map(Outhash._make, rows))

    async def _look_up(self, keys: Sequence[MappingKey]) -> list[str | None]:
        def look_up(transaction: SqlTransaction) -> list[str | None]:
            return transaction.unihashes(keys)

        found: list[str | None] | None = None
        if self._replica is not None:
            found = await self._replica.ask(look_up, self._removals)
        if found is None:
            return await self._database.read(lambda connection: look_up(self._on(connection)))
        missing = [at for at, unihash in enumerate(found) if unihash is None]
        if missing:  # it may have been added a moment ago
            rest = [keys[at] for at in missing]
            unihashes = await self._database.read(
                lambda connection: self._on(connection).unihashes(rest)
            )
            for at, unihash in zip(missing, unihashes, strict=True):
                found[at] = unihash
        return found

    async def _exist(self, unihashes: Sequence[str]) -> list[bool]:
        possible = [unihash for unihash in dict.fromkeys(unihashes) if self._sql.can_have(unihash)]
        if not possible:
            return [False] * len(unihashes)
        parameters = {"hashes": self._sql.hashes(possible)}
        there = {unihash for (unihash,) in await self._read(self._sql.exists, parameters)}
        return [unihash in there for unihash in unihashes]

    async def _equivalent(
        self, statement: str, parameters: Dictionary[str, str]
    ) -> Equivalent | None:
        rows = await self._read(statement, parameters)
        return Equivalent(Outhash(*rows[0][:-2]), *rows[0][-2:]) if rows else None

    async def _read(
        self, statement: str, parameters: Dictionary[str, Any]
    ) -> list[tuple[Any, ...]]:
        return await self._database.read(
            lambda connection: self._on(connection).rows(statement, parameters)
        )

    # Writing.

    async def transact(self, work: Work) -> Any:
        return await self._database.queued(lambda: self._committer.run(work))

    async def _report(self, reports: Sequence[Report]) -> list[str]:
        return await self._database.queued(lambda: self._committer.report(reports))

    async def insert_mappings(self, rows: Sequence[MarkedMapping]) -> int:
        inserted = 0
        for at in range(0, len(rows), MOST_ROWS):
            inserted += await super().insert_mappings(rows[at : at + MOST_ROWS])
        return inserted

    async def insert_outhashes(self, rows: Sequence[Outhash]) -> int:
        inserted = 0
        for at in range(0, len(rows), MOST_ROWS):
            inserted += await super().insert_outhashes(rows[at : at + MOST_ROWS])
        return inserted

    async def _transact(self, work: Work) -> Committed:
        """Run work in a transaction that no other server's overlaps, and tell the listener."""

        def locked(connection: Connection) -> tuple[Committed, int]:
            transaction = self._on(connection)
            (removals, _) = transaction.rows(LOCK)[0]
            committed = work(transaction)
            if committed.removed or committed.users:
                changes = {"removals": int(committed.removed), "users": int(committed.users)}
                transaction.run(ADVANCE, changes)
            return committed, removals

        committed, removals = await self._database.write(locked)
        # More than was known of: others removed something, or an earlier try of this work did.
        if committed.removed or removals > self._removals:
            self._removals = max(removals + int(committed.removed), self._removals)
            self.listener.mappings_removed()
        # What was removed after our commit may be told before it: then it is not ours to say.
        elif committed.added and removals == self._removals:
            self.listener.mappings_added(committed.added)
        return committed

    # Watching for what other servers do.

    async def _start(self) -> None:
        self._removals, self._user_changes = await self._state()
        self._watching = asyncio.create_task(self._watch())

    async def _state(self) -> tuple[int, int]:
        ((removals, users),) = await self._database.watch(
            lambda connection: self._on(connection).rows(READ_STATE)
        )
        return removals, users

    def _database_returned(self) -> None:
        # A standby that was promoted may lack what the former primary held.
        self.listener.mappings_removed()
        self._user_changes = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                removals, users = await self._state()
            except StoreError as error:
                # Nobody can have removed anything where nobody gets through.
                logger.debug("Can't tell whether other servers removed anything: %s", error)
                continue
            if removals != self._removals:
                self._removals = removals
                self.listener.mappings_removed()
            self._user_changes = users

    # Closing.

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._database.hurry()
        await self._committer.close()
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        if self._replica is not None:
            await self._replica.close()
        await self._database.close()

    def _on(self, connection: Connection) -> SqlTransaction:
        return SqlTransaction(connection, self._sql, self._clock)


def _statements_of(dialect: Any) -> SqlStatements:
    if dialect.name == "postgresql":
        return PostgresStatements()
    return MysqlStatements("utf8mb4_nopad_bin" if dialect.is_mariadb else "utf8mb4_0900_bin")
