"""Copy a database into another one, whichever their engines, and compare the two.

Rows keep their order and everything but their ids. So what a copy that was interrupted has
already copied is a first part of the source, which needs no note of how far it was: the target
is compared with the source as far as it goes, and filled from there on.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final, NamedTuple

from hashserv.equivalence import whole_tables
from hashserv.equivalence.whole_tables import (
    MAPPINGS,
    OUTHASHES,
    Progress,
    Rows,
    Table,
    batches,
    pour,
)
from hashserv.errors import StoreError
from hashserv.model import Outhash, StoredUser
from hashserv.store.base import Store

USERS: Final = "users"
MARK: Final = "mark of the collection under way"


class Content(NamedTuple):
    """What of a source is to be copied: what is in it at the start."""

    rows: dict[str, int]
    """How many rows of each table, the first by their ids."""

    users: list[StoredUser]
    mark: str | None

    @property
    def total(self) -> int:
        """How many rows that is, without users."""
        return sum(self.rows.values())


class Difference(NamedTuple):
    """Where two databases differ first; its text never shows a token."""

    what: str
    source: str
    target: str

    def __str__(self) -> str:
        """Say it."""
        return f"{self.what}: {self.source} in the source, {self.target} in the target"


class _Walk(NamedTuple):
    """How far two tables were gone through together."""

    rows: int
    source_after: int
    difference: Difference | None


async def content(source: Store) -> Content:
    """Return what there is to be copied."""
    usage = await source.usage()
    return Content(
        {table.name: usage[table.stored_as] for table in (MAPPINGS, OUTHASHES)},
        await source.users.all(),
        (await source.collection()).mark or None,
    )


async def copy(
    source: Store, target: Store, content: Content, progress: Progress
) -> dict[str, int]:
    """Copy content of a source to a target that holds a first part of it, or nothing.

    Args:
        source: Where to read.
        target: Where to insert what is missing.
        content: What to copy; rows that are added meanwhile are left out.
        progress: Is told of each mapping and outhash row that is in the target.

    Returns how many mappings, outhash rows and users were inserted.

    Raises:
        StoreError: The target holds something else, and is left as it was; or one of the two
            can't do what it should.
    """
    walks = {}
    for table in (MAPPINGS, OUTHASHES):
        walks[table] = await _walk(table, source, target, content.rows[table.name], progress)
        _refuse(walks[table].difference)
    users = await target.users.all()
    _refuse(_users_differ(content.users[: len(users)], users))
    mark = (await target.collection()).mark or None
    if mark is not None:
        _refuse(_marks_differ(content.mark, mark))

    inserted = {}
    for table, walk in walks.items():
        most = content.rows[table.name] - walk.rows
        rest = batches(table, source, after=walk.source_after, most=most)
        inserted[table.name] = await pour(table, rest, target, progress)
    rest_of_users = content.users[len(users) :]
    inserted[USERS] = sum([await target.users.add(user) for user in rest_of_users])
    if content.mark is not None:
        await target.mark(content.mark, [])
    return inserted


async def difference(
    source: Store, target: Store, content: Content, progress: Progress
) -> Difference | None:
    """Go through content of a source and all of a target, and return where they differ first.

    Args:
        source: One.
        target: The other.
        content: What of the source the target should hold.
        progress: Is told of each mapping and outhash row that is compared.

    Raises:
        StoreError: One of the two can't be read.
    """
    for table in (MAPPINGS, OUTHASHES):
        most = content.rows[table.name]
        walk = await _walk(table, source, target, most, progress)
        if walk.difference is not None:
            return walk.difference
        if walk.rows < most:
            rest = await table.after(source, walk.source_after, 1)
            if rest:
                return _rows_differ(table, walk.rows, rest, [])
    return _users_differ(content.users, await target.users.all()) or _marks_differ(
        content.mark, (await target.collection()).mark or None
    )


async def _walk(table: Table, source: Store, target: Store, most: int, progress: Progress) -> _Walk:
    """Go through a table of both until the target ends, or they differ."""
    seen = source_after = target_after = 0
    while True:
        ours, theirs = await asyncio.gather(
            table.after(source, source_after, whole_tables.BATCH_ROWS),
            table.after(target, target_after, whole_tables.BATCH_ROWS),
        )
        ours = ours[: most - seen]
        if not theirs:
            return _Walk(seen, source_after, None)
        if not _begins_with(ours, theirs):
            return _Walk(seen, source_after, _rows_differ(table, seen, ours, theirs))
        seen += len(theirs)
        source_after, target_after = ours[len(theirs) - 1].id, theirs[-1].id
        progress(len(theirs))


def _begins_with(ours: Rows, theirs: Rows) -> bool:
    return len(theirs) <= len(ours) and all(map(_are_equal, ours, theirs))


def _are_equal(our: tuple[object, ...], their: tuple[object, ...]) -> bool:
    """Tell whether two rows are equal but for their ids, and for how a time is spelt."""
    if our[1:] == their[1:]:
        return True
    if not isinstance(our, Outhash) or not isinstance(their, Outhash):
        return False
    return our._replace(id=0, created="") == their._replace(id=0, created="") and _moment(
        our.created
    ) == _moment(their.created)


def _moment(created: str | None) -> object:
    """Return when a row was created, whatever its writer's spelling; without a zone it is local."""
    try:
        return datetime.fromisoformat(created or "").astimezone(UTC)
    except ValueError:
        return created


def _rows_differ(table: Table, before: int, ours: Rows, theirs: Rows) -> Difference:
    """Return the first difference of two batches, of which there is one."""
    at = 0
    while at < min(len(ours), len(theirs)) and _are_equal(ours[at], theirs[at]):
        at += 1
    shown = [repr(rows[at][1:]) if at < len(rows) else "nothing" for rows in (ours, theirs)]
    return Difference(f"row {before + at + 1} of the {table.name}", *shown)


def _users_differ(ours: list[StoredUser], theirs: list[StoredUser]) -> Difference | None:
    if ours == theirs:
        return None
    at = 0
    while at < min(len(ours), len(theirs)) and ours[at] == theirs[at]:
        at += 1
    shown = [_shown(users[at]) if at < len(users) else "nobody" for users in (ours, theirs)]
    return Difference(f"number {at + 1} of the {USERS}", *shown)


def _shown(user: StoredUser) -> str:
    return f"{user.username} ({' '.join(user.permissions) or 'no permissions'}; token not shown)"


def _marks_differ(our: str | None, their: str | None) -> Difference | None:
    return None if our == their else Difference(MARK, our or "none", their or "none")


def _refuse(difference: Difference | None) -> None:
    if difference is not None:
        raise StoreError(
            "The target holds something else than a first part of the source. They differ in "
            f"{difference}. Name an empty database as the target, or use: hashserv merge"
        )
