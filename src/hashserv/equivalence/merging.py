"""Merge databases into one: what the target lacks goes in, what it holds stays.

An answer that was given must never change, so of two unihashes of a taskhash the one held first
stays: that of the target, else that of the earlier source.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

from hashserv.equivalence.whole_tables import (
    MAPPINGS,
    OUTHASHES,
    Progress,
    Rows,
    batches,
    pour,
)
from hashserv.model import MappingKey, MarkedMapping, StoredUser
from hashserv.store.base import Store


class Database(NamedTuple):
    """A store, and what it is called in reports."""

    name: str
    store: Store


class Conflict(NamedTuple):
    """A mapping of a source that is left out, for there is another of its taskhash."""

    method: str
    taskhash: str
    kept: str
    kept_of: str
    left: str
    left_of: str


class UserConflict(NamedTuple):
    """A user of a source that is left out, for there is another of its name."""

    username: str
    kept_of: str
    left_of: str


class Merged(NamedTuple):
    """What a merge did."""

    mappings: int
    """Mappings that were inserted."""

    outhashes: int
    """Outhash rows that were inserted."""

    users: int
    """Users that were added."""

    conflicts: int
    """Mappings that were left out, each of which was told."""

    user_conflicts: list[UserConflict]

    marks: list[tuple[str, str]]
    """Sources with a collection under way, and its mark, which is not merged."""

    mark: str | None
    """The mark of the target's collection under way, which inserted mappings carry."""

    split_before: int
    """Outputs in the target whose tasks had more than one unihash before the merge."""

    split_after: int
    """The same, after it."""


async def merge(
    target: Database,
    sources: Sequence[Database],
    tell: Callable[[Conflict], object],
    progress: Progress,
) -> Merged:
    """Insert into the target whatever it lacks of the sources, the earlier source first.

    Args:
        target: The one to fill.
        sources: Those to read.
        tell: Is told of each mapping that will be left out, before anything is inserted.
        progress: Is told of each row that was gone through; see `total`.

    Raises:
        StoreError: A database can't do what it should; what was inserted before stays.
    """
    split_before = await target.store.split_outputs()
    conflicts = 0
    for at, source in enumerate(sources):
        async for conflict in _conflicts([target, *sources[:at]], source, progress):
            conflicts += 1
            tell(conflict)
    mark = (await target.store.collection()).mark or None
    mappings = outhashes = 0
    for _, store in sources:
        rows = _marked(batches(MAPPINGS, store), mark or "")
        mappings += await pour(MAPPINGS, rows, target.store, progress)
        outhashes += await pour(OUTHASHES, batches(OUTHASHES, store), target.store, progress)
    users, user_conflicts = await _merge_users(target, sources)
    return Merged(
        mappings,
        outhashes,
        users,
        conflicts,
        user_conflicts,
        [(name, theirs) for name, store in sources if (theirs := (await store.collection()).mark)],
        mark,
        split_before,
        await target.store.split_outputs(),
    )


async def total(sources: Sequence[Database]) -> int:
    """Return how many rows `merge` goes through; mappings it goes through twice."""
    rows = 0
    for _, store in sources:
        usage = await store.usage()
        rows += 2 * usage[MAPPINGS.stored_as] + usage[OUTHASHES.stored_as]
    return rows


async def _conflicts(
    holders: Sequence[Database], source: Database, progress: Progress
) -> AsyncIterator[Conflict]:
    """Yield the mappings of a source that contradict the first holder of their taskhash."""
    async for rows in batches(MAPPINGS, source.store):
        held: dict[MappingKey, tuple[str, str]] = {}
        unknown = [MappingKey(row.method, row.taskhash) for row in rows]
        for name, store in holders:
            answers = zip(unknown, await store.lookup(unknown), strict=True)
            held |= {key: (unihash, name) for key, unihash in answers if unihash is not None}
            unknown = [key for key in unknown if key not in held]
        for row in rows:
            kept, of = held.get(MappingKey(row.method, row.taskhash), (row.unihash, ""))
            if kept != row.unihash:
                yield Conflict(row.method, row.taskhash, kept, of, row.unihash, source.name)
        progress(len(rows))


async def _marked(rows: AsyncIterator[Rows], mark: str) -> AsyncIterator[Rows]:
    """Give mappings a mark, so that the target's sweep does not remove them unseen."""
    async for batch in rows:
        marked: list[MarkedMapping] = [row._replace(gc_mark=mark) for row in batch]
        yield marked


async def _merge_users(
    target: Database, sources: Sequence[Database]
) -> tuple[int, list[UserConflict]]:
    """Add the users whose names are free; return how many, and those whose names were not."""
    held: dict[str, tuple[StoredUser, str]] = {
        user.username: (user, target.name) for user in await target.store.users.all()
    }
    added = 0
    conflicts: list[UserConflict] = []
    for source in sources:
        for user in await source.store.users.all():
            kept, of = held.setdefault(user.username, (user, source.name))
            if kept != user:
                conflicts.append(UserConflict(user.username, of, source.name))
            elif of == source.name:
                added += await target.store.users.add(user)
    return added, conflicts
