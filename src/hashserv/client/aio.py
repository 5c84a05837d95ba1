"""The client of a hash equivalence server, for callers in an event loop (INTERFACES.md §1)."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Any

import msgspec

from hashserv.client.accounts import about
from hashserv.client.aio_caller import AsyncCaller
from hashserv.client.batch import Window, encode_existences, encode_lookups, mark_encoder


class AsyncClient(AsyncCaller):
    """A client; it connects on first use, and again when a connection breaks.

    Calls on a broken connection are repeated up to three times on new ones, then they raise
    `ConnectionError`. What the server refuses raises `InvokeError` with its words, and is not
    repeated. One call at a time: a client is for one task or thread.

    A reply may take `timeout` seconds, negative or `None` for any time; but commands that read or
    change whole tables (`remove`, `clean_unused`, `gc_mark`, `gc_mark_stream`, `gc_sweep`,
    `gc_status`, `get_db_usage`) and `backfill_wait` take as long as they need, and TCP keep-alive
    finds a server that is gone.

    Each new connection logs in before its first call, and becomes the user again that this client
    had become. A login that is refused raises `InvokeError` from that call, and is not repeated. A
    change of accounts whose reply was lost may fail when it is repeated, because it is done.

    Args:
        username: Who to log in as, once connected.
        password: That user's token.
        tls: How to do TLS (``tls://``, ``wss://``), in place of what the environment says.
    """

    # Looking up.

    async def get_unihash(self, method: str, taskhash: str) -> str | None:
        """Return the unihash of a taskhash, `None` when unknown."""
        (unihash,) = await self.get_unihash_batch([(method, taskhash)])
        return unihash

    async def get_unihash_batch(self, args: Iterable[tuple[str, str]]) -> list[str | None]:
        """Return the unihashes of many methods and taskhashes, in order, `None` when unknown."""
        unihashes: list[str | None] = []
        async for replies in self._stream("get-stream", Window(args, encode_lookups)):
            unihashes += [reply or None for reply in replies]
        return unihashes

    async def get_unihash_stream(
        self, args: Iterable[tuple[str, str]]
    ) -> AsyncIterator[str | None]:
        """Yield the unihashes of methods and taskhashes, in order, `None` when unknown.

        Nothing is held but what is in flight, so there may be any number of them.
        """
        async for replies in self._stream("get-stream", Window(args, encode_lookups)):
            for reply in replies:
                yield reply or None

    async def unihash_exists(self, unihash: str) -> bool:
        """Tell whether any mapping has a unihash."""
        (existence,) = await self.unihash_exists_batch([unihash])
        return existence

    async def unihash_exists_batch(self, unihashes: Iterable[str]) -> list[bool]:
        """Tell of many unihashes, in order, whether any mapping has them."""
        existences: list[bool] = []
        async for replies in self._stream("exists-stream", Window(unihashes, encode_existences)):
            existences += [reply == "true" for reply in replies]
        return existences

    async def get_taskhash(
        self,
        method: str,
        taskhash: str,
        all_properties: bool = False,  # noqa: FBT001, FBT002 - the reference's signature
    ) -> dict[str, Any] | None:
        """Return the mapping of a taskhash, `None` when unknown.

        Args:
            method: Its method.
            taskhash: The taskhash.
            all_properties: Whether to return all columns of its outhash row, too.
        """
        arguments = {"taskhash": taskhash, "method": method, "all": all_properties}
        return await self._invoke("get", arguments)

    async def get_outhash(
        self,
        method: str,
        outhash: str,
        taskhash: str,
        with_unihash: bool = True,  # noqa: FBT001, FBT002 - the reference's signature
    ) -> dict[str, Any] | None:
        """Return the oldest row of an outhash, `None` when there is none.

        Args:
            method: Its method.
            outhash: The outhash.
            taskhash: What an upstream server is told when it is asked.
            with_unihash: Whether only a row that has a mapping counts, which is returned too.
        """
        arguments = {
            "outhash": outhash,
            "taskhash": taskhash,
            "method": method,
            "with_unihash": with_unihash,
        }
        return await self._invoke("get-outhash", arguments)

    # Reporting.

    async def report_unihash(
        self,
        taskhash: str,
        method: str,
        outhash: str,
        unihash: str,
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Report what a task produced, and return the mapping that now holds (PROTOCOL.md §8.1).

        Args:
            taskhash: The task.
            method: How its outhash was made.
            outhash: What it produced.
            unihash: The name proposed for that.
            extra: Other columns: owner, PN, PV, PR, task, outhash_siginfo.
        """
        report = {**(extra or {}), "taskhash": taskhash, "method": method}
        return await self._invoke("report", {**report, "outhash": outhash, "unihash": unihash})

    async def report_unihash_equiv(
        self,
        taskhash: str,
        method: str,
        unihash: str,
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Report that a task has a unihash that is known, and return the mapping that now holds.

        Args:
            taskhash: The task.
            method: How its outhash was made.
            unihash: The unihash.
            extra: More arguments, which servers ignore today.
        """
        report = {**(extra or {}), "taskhash": taskhash, "method": method, "unihash": unihash}
        return await self._invoke("report-equiv", report)

    # The server.

    async def ping(self) -> dict[str, Any]:
        """Ask whether the server is alive."""
        return await self._invoke("ping", {})

    async def get_stats(self) -> dict[str, Any]:
        """Return the request statistics; times are in seconds."""
        return await self._invoke("get-stats", None)

    async def reset_stats(self) -> dict[str, Any]:
        """Return the request statistics and start them anew."""
        return await self._invoke("reset-stats", None)

    async def backfill_wait(self) -> int:
        """Wait until all copies from the upstream are stored, and return how many were queued."""
        reply = await self._invoke("backfill-wait", None, patient=True)
        tasks: int = reply["tasks"]
        return tasks

    # The database.

    async def remove(self, where: Mapping[str, str | None]) -> dict[str, Any]:
        """Remove the rows that match a condition, and return their ``count``."""
        return await self._invoke("remove", {"where": where}, patient=True)

    async def clean_unused(self, max_age: float) -> dict[str, Any]:
        """Remove outhash rows older than `max_age` seconds with no mapping; return ``count``."""
        return await self._invoke("clean-unused", {"max_age_seconds": max_age}, patient=True)

    async def get_db_usage(self) -> dict[str, dict[str, int]]:
        """Return how many ``rows`` each table has."""
        reply = await self._invoke("get-db-usage", {}, patient=True)
        usage: dict[str, dict[str, int]] = reply["usage"]
        return usage

    async def get_db_query_columns(self) -> list[str]:
        """Return the columns that a condition may name."""
        reply = await self._invoke("get-db-query-columns", {})
        columns: list[str] = reply["columns"]
        return columns

    async def gc_status(self) -> dict[str, Any]:
        """Return how many mappings a collection would ``keep`` and ``remove``, and its ``mark``."""
        return await self._invoke("gc-status", {}, patient=True)

    async def gc_mark(self, mark: str, where: Mapping[str, str | None]) -> dict[str, Any]:
        """Mark the mappings that match a condition to be kept, and return their ``count``."""
        return await self._invoke("gc-mark", {"mark": mark, "where": where}, patient=True)

    async def gc_mark_stream(self, mark: str, rows: Iterable[str]) -> dict[str, Any]:
        """Mark mappings to be kept, many conditions at once, and return ``count`` of all.

        Args:
            mark: The collection's mark.
            rows: Conditions as lines of text, ``column value column value …``.

        Raises:
            ClientError: A row is not made of columns and values.
        """
        count = 0
        window = Window(rows, mark_encoder(mark))
        async for replies in self._stream("gc-mark-stream", window, patient=True):
            count += sum(msgspec.json.decode(reply)["count"] for reply in replies)
        return {"count": count}

    async def gc_sweep(self, mark: str) -> dict[str, Any]:
        """Remove what the collection has not marked, and end it; return ``count``."""
        return await self._invoke("gc-sweep", {"mark": mark}, patient=True)

    # Accounts (PROTOCOL.md §7).

    async def auth(self, username: str, token: str) -> dict[str, Any]:
        """Log in, now and on each new connection, and return the user.

        Raises:
            InvokeError: The token is wrong; the client stays who it was.
        """
        login = {"username": username, "token": token}
        reply = await self._invoke("auth", login, introduced=False)
        self.username, self.password = username, token
        self._became = None
        self._introduced = True
        return reply

    async def become_user(self, username: str) -> dict[str, Any]:
        """Act as another user, now and on each new connection, and return that user."""
        reply = await self._invoke("become-user", {"username": username})
        self._became = username
        return reply

    async def get_user(self, username: str | None = None) -> dict[str, Any] | None:
        """Return a user, by default the own one; `None` when unknown."""
        return await self._invoke("get-user", about(username))

    async def get_all_users(self) -> list[dict[str, Any]]:
        """Return all users."""
        reply = await self._invoke("get-all-users", {})
        users: list[dict[str, Any]] = reply["users"]
        return users

    async def new_user(self, username: str, permissions: Collection[str]) -> dict[str, Any]:
        """Add a user, and return it with its ``token``, which nobody can look up later."""
        user = {"username": username, "permissions": permissions}
        return await self._invoke("new-user", user)

    async def set_user_perms(self, username: str, permissions: Collection[str]) -> dict[str, Any]:
        """Give a user these permissions in place of its own, and return it."""
        user = {"username": username, "permissions": permissions}
        return await self._invoke("set-user-perms", user)

    async def refresh_token(self, username: str | None = None) -> dict[str, Any]:
        """Make a new ``token`` for a user, by default the own one; the old one is void."""
        reply = await self._invoke("refresh-token", about(username))
        if reply["username"] == self.username:
            self.password = reply["token"]
        return reply

    async def delete_user(self, username: str | None = None) -> dict[str, Any]:
        """Delete a user, by default the own one.

        Where that is who this client became, it is its login again; where that is its login,
        it is nobody.
        """
        reply = await self._invoke("delete-user", about(username))
        deleted = reply["username"]
        if deleted in (self.username, self._became):
            if deleted == self.username:
                self.username = self.password = None
            self._became = None
            await self.disconnect()
        return reply
