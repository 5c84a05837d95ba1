"""Sending a copy of all mappings to a peer, and then what is new (PROTOCOL.md §4, extension).

What is sent is masked (`hashserv.wire.snapshot`), so that who may only read can't see by it more
than by asking.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from hashserv.errors import InvokeError
from hashserv.model import MarkedMapping, is_valid_unihash
from hashserv.store.base import Store
from hashserv.wire.commands import SnapshotStream
from hashserv.wire.snapshot import (
    BEGINNING,
    EXTENSION,
    RESET,
    Piece,
    Position,
    all_maskable,
    encode_piece,
    mask,
    position_after,
)

SLICE_ROWS: Final = 256
"""Mappings in a line, which are read and masked before other connections have their turn: less
than a millisecond."""

POLL_SECONDS: Final = 1.0
"""How often it is looked for new mappings."""

SIGN_SECONDS: Final = 15.0
"""How often a peer that has everything is sent a sign of life."""

Failed = Callable[[Exception], None]


class SnapshotFeed:
    """Sends mappings to one peer until it is stopped; `SnapshotFeeds.begin` makes one.

    Args:
        store: Whose mappings.
        after: What the peer has already.
        write: Sends bytes to the peer.
        check: Called now and then, and raises `InvokeError` when the peer may not read any more.
        failed: Called with what ended the feed before it was stopped.
    """

    def __init__(
        self,
        store: Store,
        after: Position,
        *,
        write: Callable[[bytes], None],
        check: Callable[[], None],
        failed: Failed,
    ) -> None:
        self._store = store
        self._position = after
        self._write = write
        self._check = check
        self._failed = failed
        self._writable = asyncio.Event()
        self._writable.set()
        self.task = asyncio.get_running_loop().create_task(self._run())
        """Done when the feed has ended."""

    def pause(self) -> None:
        """Send nothing for now: the peer does not read."""
        self._writable.clear()

    def resume(self) -> None:
        """Go on."""
        self._writable.set()

    def stop(self) -> None:
        """Send nothing any more. Idempotent."""
        self.task.cancel()

    async def _run(self) -> None:
        try:
            await self._send_all()
        except Exception as error:  # noqa: BLE001 - the session tells the peer, or the log
            self._failed(error)

    async def _send_all(self) -> None:
        if not await self._is_there(self._position):
            self._position = BEGINNING
            self._write(f"{RESET}\n".encode())
        after = self._position.id
        newest = 0  # the last id that was there at the poll before
        told = -SIGN_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            await self._writable.wait()
            self._check()
            rows = await self._store.mappings_after(after, SLICE_ROWS)
            if len(rows) == SLICE_ROWS:
                after = self._send(rows)
                await asyncio.sleep(0)  # the others' turn
                continue
            # Where several servers write to one database, ids of the last moment may still
            # appear out of order: what is new is sent one poll later, in case some come between.
            settled = [row for row in rows if row.id <= newest]
            newest = rows[-1].id if rows else after
            if settled:
                after = self._send(settled)
            if settled or (not rows and loop.time() - told >= SIGN_SECONDS):
                self._write(encode_piece(Piece(self._position, b"")))
                told = loop.time()
            await asyncio.sleep(POLL_SECONDS)

    def _send(self, rows: list[MarkedMapping]) -> int:
        """Send rows, and return the id of the last of them."""
        last = rows[-1].id
        fit = rows
        if not all_maskable([row.unihash for row in rows]):
            fit = [row for row in rows if is_valid_unihash(row.unihash)]
        if fit:
            masked = mask(
                [(method, taskhash) for _, method, taskhash, _, _ in fit],
                [row.unihash for row in fit],
            )
            self._position = position_after(masked, fit[-1].id)
            self._write(encode_piece(Piece(self._position, masked)))
        return last

    async def _is_there(self, position: Position) -> bool:
        """Tell whether there is such a row; if not, what the peer has is of another database."""
        if position.id == BEGINNING.id:
            return True
        rows = await self._store.mappings_after(position.id - 1, 1)
        if not rows or rows[0].id != position.id or not is_valid_unihash(rows[0].unihash):
            return False
        row = mask([(rows[0].method, rows[0].taskhash)], [rows[0].unihash])
        return position_after(row, position.id) == position


class SnapshotFeeds:
    """The feeds of a server, of which there may be so many at once.

    Args:
        store: Whose mappings they send.
        most: How many; with 0 the server does without.
    """

    def __init__(self, store: Store, most: int) -> None:
        self._store = store
        self._most = most
        self._count = 0
        self.extensions = (EXTENSION,) if most else ()
        """What the server's header says of it."""

    def begin(
        self,
        command: SnapshotStream,
        *,
        write: Callable[[bytes], None],
        check: Callable[[], None],
        failed: Failed,
    ) -> SnapshotFeed:
        """Begin to send to a peer, from the next turn of the event loop on.

        Args:
            command: What the peer asked for.
            write: As of `SnapshotFeed`.
            check: As of `SnapshotFeed`.
            failed: As of `SnapshotFeed`.

        Raises:
            InvokeError: There are as many as there may be.
        """
        if self._count >= self._most:
            raise InvokeError("Too many snapshots are being copied: try again in a while")
        after = Position(command.after, command.key) if command.after else BEGINNING
        self._count += 1
        feed = SnapshotFeed(self._store, after, write=write, check=check, failed=failed)
        feed.task.add_done_callback(self._ended)
        return feed

    def _ended(self, _: object) -> None:
        self._count -= 1
