"""What the rules want of a database, in batches (PROTOCOL.md §8)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping as Dictionary
from collections.abc import Sequence
from enum import Enum, auto
from typing import Protocol

from hashserv.model import (
    CollectionStatus,
    Condition,
    Equivalent,
    Mapping,
    MappingKey,
    MarkedMapping,
    Outhash,
    Report,
    StoredUser,
)


class Freshness(Enum):
    """What a cache of answers is worth; see `Store.freshness`."""

    SAME = auto()
    """Nothing changed but by what the listener was told."""

    UNSURE = auto()
    """A change of our own is being committed: ask the database, keep the cache."""

    CHANGED = auto()
    """Another process changed the database: forget everything."""


class ChangeListener(Protocol):
    """Who is told, in the event loop, of each committed change before it is acknowledged."""

    def mappings_added(self, mappings: Sequence[Mapping]) -> None:
        """Take note of mappings that are new."""

    def mappings_removed(self) -> None:
        """Take note that mappings are gone; which ones is not known."""


class _Nobody:
    """Listens where nobody does."""

    def mappings_added(self, mappings: Sequence[Mapping]) -> None:
        """Do nothing."""

    def mappings_removed(self) -> None:
        """Do nothing."""


class UserTable(ABC):
    """The users in a database. Every method may raise `StoreError`, as those of `Store`."""

    @abstractmethod
    async def find(self, username: str) -> StoredUser | None:
        """Return a user, or `None` where there is none of that name."""

    @abstractmethod
    async def all(self) -> list[StoredUser]:
        """Return all users, the oldest first."""

    def changed(self) -> bool:
        """Tell whether users may have changed, by whomever, since this was asked before. Cheap.

        An engine that can't tell says so each time.
        """
        return True

    @abstractmethod
    async def add(self, user: StoredUser) -> bool:
        """Add a user; `False` where the name is taken."""

    @abstractmethod
    async def set_permissions(self, username: str, permissions: Sequence[str]) -> bool:
        """Replace a user's permissions; `False` where there is no such user."""

    @abstractmethod
    async def set_token(self, username: str, token: str, *, instead_of: str | None = None) -> bool:
        """Replace what a user's token is verified by.

        Args:
            username: The user.
            token: What it is verified by from now on.
            instead_of: Only if it is verified by this until now.

        Returns `False` where there is no such user, or it has another token by now.
        """

    @abstractmethod
    async def remove(self, username: str) -> bool:
        """Remove a user; `False` where there is no such user."""


class Store(ABC):
    """A database of mappings, outhash rows, users and one garbage collection.

    Every method may raise `StoreError`, when the database can't do what was asked. What has
    returned is as durable as the engine was told to be. Look-ups answer in the order of what
    they were asked, and see everything that was acknowledged before.
    """

    listener: ChangeListener = _Nobody()
    """Who is told of changes; whoever caches answers puts itself here."""

    users: UserTable
    """The users."""

    hears_of_additions = True
    """Whether mappings that others add are told of, be it by `freshness`. If not, nobody may
    remember what is *not* there."""

    @abstractmethod
    def freshness(self) -> Freshness:
        """Tell what answers of before are still worth. Cheap; asked for each batch."""

    @abstractmethod
    async def lookup(self, keys: Sequence[MappingKey]) -> list[str | None]:
        """Return the unihash of each key, or `None` where there is no mapping."""

    @abstractmethod
    async def exists(self, unihashes: Sequence[str]) -> list[bool]:
        """Tell of each unihash whether any mapping has it."""

    @abstractmethod
    async def task(self, key: MappingKey) -> Equivalent | None:
        """Return the oldest outhash row of a taskhash that has a mapping, with the mapping."""

    @abstractmethod
    async def equivalent(self, method: str, outhash: str) -> Equivalent | None:
        """Return the oldest row with this outhash that has a mapping, with the mapping."""

    @abstractmethod
    async def outhash(self, method: str, outhash: str) -> Outhash | None:
        """Return the oldest row with this outhash, whether it has a mapping or not."""

    @abstractmethod
    async def report(self, reports: Sequence[Report]) -> list[str]:
        """Store what builds produced, in order, and return the unihash that holds for each.

        The rule is PROTOCOL.md §8.1, with the repairs of §9: row and mapping are one
        transaction, a missing mapping is restored, and a collection under way marks what is
        reported again.
        """

    @abstractmethod
    async def add_mappings(self, mappings: Sequence[Mapping]) -> list[str]:
        """Insert mappings where the taskhash has none; return the unihash that holds for each."""

    @abstractmethod
    async def copy(self, found: Sequence[Equivalent | Outhash]) -> None:
        """Insert outhash rows of another server, and their mappings, where there are none.

        A row keeps its `created`, if that tells its time zone.
        """

    @abstractmethod
    async def remove(self, condition: Condition) -> int:
        """Remove matching rows from each table that has all columns; return how many.

        An empty condition removes nothing.
        """

    @abstractmethod
    async def mark(self, mark: str, conditions: Sequence[Condition]) -> list[int]:
        """Start or go on with the collection of this mark; mark what matches each condition.

        Returns how many mappings each condition matched.
        """

    @abstractmethod
    async def sweep(self, mark: str) -> int | None:
        """Remove mappings without this mark and end the collection; return how many.

        Returns `None`, with nothing (more) removed, when this is not the current mark.
        """

    @abstractmethod
    async def collection(self) -> CollectionStatus:
        """Count what the collection keeps and removes, or would with the empty mark."""

    @abstractmethod
    async def clean_unused(self, max_age: float) -> int:
        """Remove outhash rows older than `max_age` seconds that have no mapping."""

    @abstractmethod
    async def mappings_after(self, after: int, limit: int) -> list[MarkedMapping]:
        """Return mappings whose `id` is greater than `after`, lowest first, `limit` at most.

        Ids are given in the order of insertion; with several servers on one database those of
        the last moments may still appear out of order.
        """

    @abstractmethod
    async def outhashes_after(self, after: int, limit: int) -> list[Outhash]:
        """Return outhash rows whose `id` is greater than `after`, lowest first."""

    @abstractmethod
    async def insert_mappings(self, rows: Sequence[MarkedMapping]) -> int:
        """Insert mappings as they are, but for new ids, where the taskhash has none.

        Returns how many were inserted.
        """

    @abstractmethod
    async def insert_outhashes(self, rows: Sequence[Outhash]) -> int:
        """Insert outhash rows as they are, but for new ids, where there is no such row.

        Returns how many were inserted.
        """

    @abstractmethod
    async def split_outputs(self) -> int:
        """Count outhashes, by method, whose taskhashes have more than one unihash among them."""

    @abstractmethod
    async def usage(self) -> Dictionary[str, int]:
        """Count the rows of each table."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what was begun and release the database. Idempotent."""
