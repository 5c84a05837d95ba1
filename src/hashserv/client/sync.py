# Made of aio.py by tools/generate_sync.py: change it there, then `make generate`.
"""The client of a hash equivalence server, for callers that block (INTERFACES.md §1)."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from hashserv.address import Address, TcpAddress, UnixAddress, WebSocketAddress, parse_address
from hashserv.client.batch import Window, encode_existences, encode_lookups, mark_encoder
from hashserv.client.sync_connection import Connection
from hashserv.errors import AddressError, ClientError, ConnectionClosedError, ProtocolError
from hashserv.wire.framing import DEFAULT_MAX_CHUNK

logger = logging.getLogger("hashserv.client")

DEFAULT_TIMEOUT: Final = 30.0
"""Seconds that a reply may take."""

REPEATS: Final = 3
"""How often a call is repeated without progress before it fails (PROTOCOL.md §10)."""

CONNECT_UNIX_AT_ONCE: Final[bool] = True
"""Whether `connect_unix` connects, so that BitBake learns early of a server that isn't there."""

_BROKEN: Final = (OSError, ConnectionClosedError, ProtocolError)


class Client:
    """A client; it connects on first use, and again when a connection breaks.

    Calls on a broken connection are repeated up to three times on new ones, then they raise
    `ConnectionError`. What the server refuses raises `InvokeError` with its words, and is not
    repeated. One call at a time: a client is for one task or thread.

    A reply may take `timeout` seconds, negative or `None` for any time; but commands that read or
    change whole tables (`remove`, `clean_unused`, `gc_mark`, `gc_mark_stream`, `gc_sweep`,
    `gc_status`, `get_db_usage`) and `backfill_wait` take as long as they need, and TCP keep-alive
    finds a server that is gone.

    Args:
        username: Who to log in as, once connected.
        password: That user's token.
    """

    def __init__(self, username: str | None = None, password: str | None = None) -> None:
        self.username = username
        self.password = password
        self.max_chunk = DEFAULT_MAX_CHUNK
        self.timeout: float | None = DEFAULT_TIMEOUT
        self._address: Address | None = None
        self._connection: Connection | None = None

    @classmethod
    def open(cls, address: str, username: str | None = None, password: str | None = None) -> Self:
        """Return a client for an address as people write it (PROTOCOL.md §2).

        Raises:
            AddressError: It can't be understood.
            OSError: A Unix socket that is connected to at once, and nobody listens there.
        """
        client = cls(username, password)
        match parse_address(address):
            case UnixAddress(path):
                client.connect_unix(path)
            case TcpAddress(host, port):
                client.connect_tcp(host, port)
            case WebSocketAddress(uri):
                client.connect_websocket(uri)
        return client

    # Connecting.

    def connect_tcp(self, host: str, port: int) -> None:
        """Use a TCP server from now on."""
        self.disconnect()
        self._address = TcpAddress(host, port)

    def connect_unix(self, path: str) -> None:
        """Use a server at a Unix socket from now on; the path may be relative, and long.

        Raises:
            OSError: The client connects at once, and nobody listens there.
        """
        self.disconnect()
        self._address = _lasting(path)
        if CONNECT_UNIX_AT_ONCE:
            self._connected()

    def connect_websocket(self, uri: str) -> None:
        """Use a WebSocket server from now on.

        Raises:
            AddressError: Always; there is no WebSocket end yet.
        """
        raise AddressError(f"Connecting to {uri} is not supported: use HOST:PORT or unix://PATH")

    def disconnect(self) -> None:
        """Close the connection; the next call makes a new one. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Looking up.

    def get_unihash(self, method: str, taskhash: str) -> str | None:
        """Return the unihash of a taskhash, `None` when unknown."""
        (unihash,) = self.get_unihash_batch([(method, taskhash)])
        return unihash

    def get_unihash_batch(self, args: Iterable[tuple[str, str]]) -> list[str | None]:
        """Return the unihashes of many methods and taskhashes, in order, `None` when unknown."""
        unihashes: list[str | None] = []
        for replies in self._stream("get-stream", Window(args, encode_lookups)):
            unihashes += [reply or None for reply in replies]
        return unihashes

    def get_unihash_stream(self, args: Iterable[tuple[str, str]]) -> Iterator[str | None]:
        """Yield the unihashes of methods and taskhashes, in order, `None` when unknown.

        Nothing is held but what is in flight, so there may be any number of them.
        """
        for replies in self._stream("get-stream", Window(args, encode_lookups)):
            for reply in replies:
                yield reply or None

    def unihash_exists(self, unihash: str) -> bool:
        """Tell whether any mapping has a unihash."""
        (existence,) = self.unihash_exists_batch([unihash])
        return existence

    def unihash_exists_batch(self, unihashes: Iterable[str]) -> list[bool]:
        """Tell of many unihashes, in order, whether any mapping has them."""
        existences: list[bool] = []
        for replies in self._stream("exists-stream", Window(unihashes, encode_existences)):
            existences += [reply == "true" for reply in replies]
        return existences

    def get_taskhash(
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
        return self._invoke("get", arguments)

    def get_outhash(
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
        return self._invoke("get-outhash", arguments)

    # Reporting.

    def report_unihash(
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
        return self._invoke("report", {**report, "outhash": outhash, "unihash": unihash})

    def report_unihash_equiv(
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
        return self._invoke("report-equiv", report)

    # The server.

    def ping(self) -> dict[str, Any]:
        """Ask whether the server is alive."""
        return self._invoke("ping", {})

    def get_stats(self) -> dict[str, Any]:
        """Return the request statistics; times are in seconds."""
        return self._invoke("get-stats", None)

    def reset_stats(self) -> dict[str, Any]:
        """Return the request statistics and start them anew."""
        return self._invoke("reset-stats", None)

    def backfill_wait(self) -> int:
        """Wait until all copies from the upstream are stored, and return how many were queued."""
        reply = self._invoke("backfill-wait", None, patient=True)
        tasks: int = reply["tasks"]
        return tasks

    # The database.

    def remove(self, where: Mapping[str, str | None]) -> dict[str, Any]:
        """Remove the rows that match a condition, and return their ``count``."""
        return self._invoke("remove", {"where": where}, patient=True)

    def clean_unused(self, max_age: float) -> dict[str, Any]:
        """Remove outhash rows older than `max_age` seconds with no mapping; return ``count``."""
        return self._invoke("clean-unused", {"max_age_seconds": max_age}, patient=True)

    def get_db_usage(self) -> dict[str, dict[str, int]]:
        """Return how many ``rows`` each table has."""
        reply = self._invoke("get-db-usage", {}, patient=True)
        usage: dict[str, dict[str, int]] = reply["usage"]
        return usage

    def get_db_query_columns(self) -> list[str]:
        """Return the columns that a condition may name."""
        reply = self._invoke("get-db-query-columns", {})
        columns: list[str] = reply["columns"]
        return columns

    def gc_status(self) -> dict[str, Any]:
        """Return how many mappings a collection would ``keep`` and ``remove``, and its ``mark``."""
        return self._invoke("gc-status", {}, patient=True)

    def gc_mark(self, mark: str, where: Mapping[str, str | None]) -> dict[str, Any]:
        """Mark the mappings that match a condition to be kept, and return their ``count``."""
        return self._invoke("gc-mark", {"mark": mark, "where": where}, patient=True)

    def gc_mark_stream(self, mark: str, rows: Iterable[str]) -> dict[str, Any]:
        """Mark mappings to be kept, many conditions at once, and return ``count`` of all.

        Args:
            mark: The collection's mark.
            rows: Conditions as lines of text, ``column value column value …``.

        Raises:
            ClientError: A row is not made of columns and values.
        """
        count = 0
        window = Window(rows, mark_encoder(mark))
        for replies in self._stream("gc-mark-stream", window, patient=True):
            count += sum(msgspec.json.decode(reply)["count"] for reply in replies)
        return {"count": count}

    def gc_sweep(self, mark: str) -> dict[str, Any]:
        """Remove what the collection has not marked, and end it; return ``count``."""
        return self._invoke("gc-sweep", {"mark": mark}, patient=True)

    # What all calls have in common.

    def _invoke(self, command: str, arguments: object, *, patient: bool = False) -> dict[str, Any]:
        """Send a request, as often as it takes, and return its reply; `get` may find nothing."""
        failures = 0
        while True:
            try:
                connection = self._connected()
                reply: dict[str, Any] = connection.request(
                    command,
                    arguments,
                    max_chunk=self.max_chunk,
                    limit=None if patient else self._limit,
                )
                return reply
            except _BROKEN as error:
                failures += 1
                self._recover(error, failures)
            except BaseException:  # a reply may still come, to nobody
                self.disconnect()
                raise

    def _stream(
        self, mode: str, window: Window[Any], *, patient: bool = False
    ) -> Iterator[list[str]]:
        """Ask what a window holds, on as many connections as it takes, and yield the replies."""
        failures = 0
        while window.fill():  # an error of the caller's own iterator is not the connection's
            try:
                connection = self._connected(window)
                replies = connection.advance(mode, window, None if patient else self._limit)
            except _BROKEN as error:
                failures += 1
                self._recover(error, failures)
            except BaseException:
                self.disconnect()
                raise
            else:
                if replies:
                    failures = 0
                    yield replies

    def _connected(self, window: Window[Any] | None = None) -> Connection:
        """Return a connection on which no replies are to come but those of `window`."""
        connection = self._connection
        if connection is not None and connection.in_flight not in (None, window):
            # Someone left a batch before its end, or will go on with it after this call.
            self.disconnect()
        if self._connection is None:
            if self._address is None:
                raise ClientError("connect_tcp or connect_unix comes first")
            self._connection = Connection.open(self._address, self._limit)
        return self._connection

    def _recover(self, error: Exception, failures: int) -> None:
        """Leave a broken connection.

        Raises:
            ConnectionError: It broke too often.
        """
        logger.warning("Error talking to server: %s", error)
        self.disconnect()
        if failures > REPEATS:
            if isinstance(error, ConnectionError):
                raise error
            raise ConnectionError(str(error)) from error

    @property
    def _limit(self) -> float | None:
        return None if self.timeout is None or self.timeout < 0 else self.timeout


def _lasting(path: str) -> UnixAddress:
    """Return the address of a socket file that means the same after a change of directory."""
    return UnixAddress(os.path.abspath(path))
