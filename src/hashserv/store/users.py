"""The users in a database."""

from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Mapping as Dictionary
from functools import partial
from typing import Any, Final

from hashserv.model import StoredUser
from hashserv.store import statements
from hashserv.store.base import UserTable
from hashserv.store.transactions import Work, change_users

_SEPARATOR: Final = " "
"""Between the permissions of a user, which are one text, as in the reference."""

Rows = list[tuple[Any, ...]]


class TransactionalUsers(UserTable):
    """The table of users.

    Args:
        read: Runs a statement that reads.
        transact: Runs work in a transaction.
        version: Returns a number that changes when users may have, or `None` where it can't be had.
    """

    def __init__(
        self,
        read: Callable[[str, Dictionary[str, Any]], Awaitable[Rows]],
        transact: Callable[[Work], Awaitable[Any]],
        version: Callable[[], int | None],
    ) -> None:
        self._read = read
        self._transact = transact
        self._version = version
        self._seen: int | None = None

    async def find(self, username: str) -> StoredUser | None:
        rows = await self._read(statements.FIND_USER, {"username": username})
        return _user(rows[0]) if rows else None

    async def all(self) -> list[StoredUser]:
        return list(map(_user, await self._read(statements.ALL_USERS, {})))

    def changed(self) -> bool:
        before, self._seen = self._seen, self._version()
        return self._seen is None or self._seen != before

    async def add(self, user: StoredUser) -> bool:
        permissions = _SEPARATOR.join(user.permissions)
        return await self._change(
            statements.ADD_USER, {**user._asdict(), "permissions": permissions}
        )

    async def set_permissions(self, username: str, permissions: Sequence[str]) -> bool:
        parameters = {"username": username, "permissions": _SEPARATOR.join(permissions)}
        return await self._change(statements.SET_PERMISSIONS, parameters)

    async def set_token(self, username: str, token: str, *, instead_of: str | None = None) -> bool:
        parameters = {"username": username, "token": token, "instead_of": instead_of}
        return await self._change(statements.SET_TOKEN, parameters)

    async def remove(self, username: str) -> bool:
        return await self._change(statements.REMOVE_USER, {"username": username})

    async def _change(self, statement: str, parameters: Dictionary[str, Any]) -> bool:
        work = partial(change_users, statement=statement, parameters=parameters)
        changed: bool = await self._transact(work)
        return changed


def _user(row: tuple[Any, ...]) -> StoredUser:
    username, token, permissions = row
    return StoredUser(username, token, permissions.split())
