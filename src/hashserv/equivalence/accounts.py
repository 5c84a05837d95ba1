"""Users: who they are, what they may do, how they log in (PROTOCOL.md §5, §7)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from hashserv.equivalence import tokens
from hashserv.equivalence.login_limits import (
    DEFAULT_FAILED_LOGINS,
    DEFAULT_NEW_TOKENS,
    Failures,
    TokenTurns,
)
from hashserv.errors import InvokeError, StoreError
from hashserv.model import ALL, ALL_PERMISSIONS, NONE, StoredUser, User
from hashserv.store.base import UserTable

logger = logging.getLogger("hashserv.server")

FAILURE_SECONDS: Final = 1.0
"""How long every failed login takes, whatever is wrong with it."""

REFRESH_SECONDS: Final = 0.25
"""How often the users that are logged in are read again, at most, while the database changes: each
report that another server stores may have been a change of users."""

_MOST_WAITING: Final = 64
"""Logins with a password that may wait for each other: some two seconds' worth."""

_MOST_NAME: Final = 255

_Result = TypeVar("_Result")


class Account:
    """A user that is logged in; every connection of that user has the same object.

    What it may do changes while its connections last: an administrator's change counts at once,
    one through another server within `REFRESH_SECONDS`.
    """

    __slots__ = ("__weakref__", "deleted", "permissions", "username")

    def __init__(self, username: str, permissions: frozenset[str]) -> None:
        self.username = username
        self.permissions = permissions
        self.deleted = False
        """Whether the user is gone. Another of the same name is somebody else."""


class Accounts:
    """The users of a server.

    Args:
        users: Where they are stored.
        writable: Whether anything can be stored there.
        failed_logins: How often a peer may fail to log in within a minute.
        new_tokens: How many tokens the server makes a second.
    """

    def __init__(
        self,
        users: UserTable,
        *,
        writable: bool = True,
        failed_logins: int = DEFAULT_FAILED_LOGINS,
        new_tokens: float = DEFAULT_NEW_TOKENS,
    ) -> None:
        self._users = users
        self._writable = writable
        self._loop = asyncio.get_running_loop()
        self._failed = Failures(failed_logins)
        self._turns = TokenTurns(new_tokens)
        self._accounts: WeakValueDictionary[str, Account] = WeakValueDictionary()
        self._passwords = ThreadPoolExecutor(1, "hashserv-passwords")
        self._password = asyncio.Lock()
        self._waiting = 0
        self._changes = 0
        self._following: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Wait for what is being verified. Idempotent."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        await self._loop.run_in_executor(None, self._passwords.shutdown)

    # Logging in.

    async def log_in(self, username: str, token: str, *, peer: str) -> tuple[Account, User]:
        """Return the account of a user, and its permissions as they are stored.

        Args:
            username: Who it says it is.
            token: What it proves that by.
            peer: Where it comes from; failures are counted for each.

        Raises:
            InvokeError: There is no such user, or its token is another, which takes the same
                time and has the same text; or the peer failed too often.
        """
        start = self._loop.time()
        self._check_failures(peer)
        stored = await self._verified(username, token, peer)
        if stored is None:
            await asyncio.sleep(start + FAILURE_SECONDS - self._loop.time())
            raise InvokeError(f"Unable to authenticate as {username}")
        return self._account(stored), User(stored.username, stored.permissions)

    async def become(self, username: str) -> Account:
        """Return the account of a user that an administrator acts as from now on.

        Raises:
            InvokeError: There is no such user.
        """
        stored = await self._users.find(username)
        if stored is None:
            raise InvokeError(f"User {username} doesn't exist")
        return self._account(stored)

    async def _verified(self, username: str, token: str, peer: str) -> StoredUser | None:
        """Return the user whose token this is, as it is stored now; count a failure."""
        if not tokens.is_random(token):
            # Nothing here depends on the name: whether it exists must not show.
            return await self._verified_slowly(username, token, peer)
        stored = await self._users.find(username)
        if stored is not None and tokens.verifies_fast(stored.token, token):
            return stored
        self._failed.add(peer)
        return None

    def _check_failures(self, peer: str) -> None:
        wait = self._failed.wait(peer)
        if wait:
            raise InvokeError(
                f"Too many failed logins from your address: try again in {wait:.0f} seconds"
            )

    async def _verified_slowly(self, username: str, token: str, peer: str) -> StoredUser | None:
        if self._waiting >= _MOST_WAITING:
            raise InvokeError("Too many logins at once: try again in a while")
        self._waiting += 1
        try:
            async with self._password:  # one after the other: each failure counts for the next
                self._check_failures(peer)
                stored = await self._users.find(username)
                held = "" if stored is None else stored.token
                verified = await self._in_thread(partial(tokens.verifies_slowly, held, token))
                if stored is None or not verified:
                    self._failed.add(peer)
                    return None
                held = await self._upgrade(stored, token)
        finally:
            self._waiting -= 1
        current = await self._users.find(username)  # it may have been changed or deleted meanwhile
        return current if current is not None and current.token == held else None

    async def _upgrade(self, stored: StoredUser, token: str) -> str:
        """Store a password as passwords are stored today, if that can be; return what is stored."""
        if not self._writable or not tokens.needs_upgrade(stored.token, token):
            return stored.token
        new = await self._in_thread(partial(tokens.stored_form, token))
        done = await self._users.set_token(stored.username, new, instead_of=stored.token)
        return new if done else stored.token

    # Asking.

    async def find(self, username: str) -> User | None:
        """Return a user, or `None`."""
        stored = await self._users.find(username)
        return None if stored is None else _shown(stored.username, stored.permissions)

    async def all(self) -> list[User]:
        """Return all users, the oldest first."""
        return [_shown(user.username, user.permissions) for user in await self._users.all()]

    # Changing.

    async def create(self, username: str, permissions: object) -> tuple[User, str]:
        """Create a user, and return it with its token.

        Raises:
            InvokeError: The name is taken or can't be one, a permission is unknown, or too many
                tokens are being made.
        """
        check_username(username)
        granted = checked_permissions(permissions)
        await self._turns.take()
        token = tokens.new_token()
        if not await self._users.add(StoredUser(username, tokens.stored_form(token), granted)):
            raise InvokeError(f"Cannot create new user '{username}'")
        return _shown(username, granted), token

    async def set_permissions(self, username: str, permissions: object) -> User:
        """Replace a user's permissions, for connections that it has, too.

        Raises:
            InvokeError: There is no such user, or a permission is unknown.
        """
        granted = checked_permissions(permissions)
        _check_found(username, found=await self._users.set_permissions(username, granted))
        self._take_over(username, granted)
        return _shown(username, granted)

    async def refresh_token(self, username: str) -> str:
        """Replace a user's token, and return the new one. Connections that it has go on.

        Raises:
            InvokeError: There is no such user, or too many tokens are being made.
        """
        await self._turns.take()
        token = tokens.new_token()
        stored = tokens.stored_form(token)
        _check_found(username, found=await self._users.set_token(username, stored))
        return token

    async def delete(self, username: str) -> None:
        """Remove a user; connections that it has may do no more than anonymous ones.

        Raises:
            InvokeError: There is no such user.
        """
        _check_found(username, found=await self._users.remove(username))
        self._take_over(username, None)

    async def ensure_administrator(self, username: str, password: str) -> None:
        """Give a user all permissions and this password, creating it if need be."""
        stored = await self._users.find(username)
        if stored is None or not await self._in_thread(
            partial(tokens.verifies_slowly, stored.token, password)
        ):
            token = await self._in_thread(partial(tokens.stored_form, password))
            if stored is None and await self._users.add(StoredUser(username, token, [ALL])):
                return
            await self._users.set_token(username, token)
        else:
            await self._upgrade(stored, password)
        await self._users.set_permissions(username, [ALL])

    # Connections that last.

    def _account(self, stored: StoredUser) -> Account:
        account = self._accounts.get(stored.username)
        if account is None:
            account = self._accounts[stored.username] = Account(stored.username, frozenset())
        self._take_over(stored.username, stored.permissions)
        if self._following is None or self._following.done():
            self._following = self._loop.create_task(self._follow())
        return account

    def _take_over(self, username: str, permissions: list[str] | None) -> None:
        """Have what a user may do count for its connections; `None` where the user is gone."""
        self._changes += 1
        account = self._accounts.get(username)
        if account is None:
            return
        account.permissions = frozenset(permissions or [])
        if permissions is None:
            account.deleted = True
            del self._accounts[username]

    async def _follow(self) -> None:
        """Take over what other servers change, as long as anybody is logged in."""
        due = failed = False
        while self._accounts:
            await asyncio.sleep(REFRESH_SECONDS)
            due = self._users.changed() or due
            if not due:
                continue
            try:
                due = not await self._read_again()
                failed = False
            except StoreError as error:
                if not failed:
                    logger.warning("Changes of users can't be read, trying again: %s", error)
                failed = True

    async def _read_again(self) -> bool:
        """Read all users that are logged in; `False` where others were changed meanwhile."""
        changes = self._changes
        permissions = {user.username: user.permissions for user in await self._users.all()}
        if changes != self._changes:  # what was read may be older than that
            return False
        for username in list(self._accounts):
            self._take_over(username, permissions.get(username))
        return True

    def _in_thread(self, work: Callable[[], _Result]) -> Awaitable[_Result]:
        return self._loop.run_in_executor(self._passwords, work)


def checked_permissions(permissions: object) -> list[str]:
    """Return a list of permissions as it is stored: sorted, each once, without ``@none``.

    Raises:
        InvokeError: It is no list of permissions.
    """
    if not isinstance(permissions, list) or not all(isinstance(name, str) for name in permissions):
        raise InvokeError("Unexpected type for permissions")
    granted = set(permissions) - {NONE}
    unknown = sorted(granted - ALL_PERMISSIONS)
    if unknown:
        raise InvokeError(f"Unknown permissions {', '.join(unknown)}")
    return sorted(granted)


def check_username(username: str) -> None:
    """Refuse what would be misread where names stand in a line.

    Raises:
        InvokeError: The name is empty or too long, or holds white space or control characters.
    """
    if not 1 <= len(username) <= _MOST_NAME:
        raise InvokeError(f"A username has 1 to {_MOST_NAME} characters")
    if not username.isprintable() or " " in username:
        raise InvokeError("A username can't hold white space or control characters")


def _check_found(username: str, *, found: bool) -> None:
    if not found:
        raise InvokeError(f"No user named '{username}' exists")


def _shown(username: str, permissions: list[str]) -> User:
    """Return a user as replies show it: ``@all`` as all five names."""
    return User(username, sorted(ALL_PERMISSIONS if ALL in permissions else permissions))
