"""Replies on their way to a peer, in the order of its requests, though some take longer to find."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

MOST_LINES: Final = 16_384
"""Lines whose replies may wait at once, found or not, so that a build's burst goes on upstream
whole, and what stands behind an unknown line does not pile up."""


class Replies:
    """Writes replies in order; behind one that is waited for, the others wait, too.

    Args:
        write: Sends bytes to the peer.
    """

    __slots__ = ("_changed", "_lines", "_waiting", "_write")

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._waiting: deque[tuple[asyncio.Future[bytes] | bytes, int]] = deque()
        self._lines = 0
        self._changed: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> bool:
        """Whether a reply is waited for."""
        return bool(self._waiting)

    @property
    def full(self) -> bool:
        """Whether no more may be waited for."""
        return self._lines >= MOST_LINES

    def send(self, data: bytes) -> None:
        """Send replies, behind those before them."""
        if self._waiting:
            lines = data.count(b"\n")  # they count, too: a peer may send no end of known questions
            self._waiting.append((data, lines))
            self._lines += lines
        else:
            self._write(data)

    def send_later(self, replies: Awaitable[bytes], lines: int) -> None:
        """Send replies when they are found; whatever is sent after this waits for them."""
        future = asyncio.ensure_future(replies)
        self._waiting.append((future, lines))
        self._lines += lines
        future.add_done_callback(self._flush)

    async def progress(self) -> None:
        """Wait until a reply was found, or `wake` is called.

        Raises:
            Exception: What became of the reply that is next instead.
        """
        head = self._waiting[0][0] if self._waiting else None
        if isinstance(head, asyncio.Future) and head.done():
            head.result()  # it failed: what was found is not at the head any more
        self._changed = asyncio.get_running_loop().create_future()
        try:
            await self._changed
        finally:
            self._changed = None

    async def settled(self) -> None:
        """Wait until nothing is waited for.

        Raises:
            Exception: What became of a reply instead.
        """
        while self._waiting:
            await self.progress()

    def wake(self) -> bool:
        """End a `progress` that is under way, and tell whether one was."""
        if self._changed is None:
            return False
        if not self._changed.done():
            self._changed.set_result(None)
        return True

    def drop(self) -> None:
        """Wait for nothing any more: the peer is gone."""
        for reply, _ in self._waiting:
            if isinstance(reply, asyncio.Future):
                reply.remove_done_callback(self._flush)
                reply.cancel()
        self._waiting.clear()

    def _flush(self, _: asyncio.Future[bytes]) -> None:
        found: list[bytes] = []
        while self._waiting:
            reply, lines = self._waiting[0]
            if isinstance(reply, asyncio.Future):
                if not reply.done() or reply.cancelled() or reply.exception() is not None:
                    break
                reply = reply.result()
            found.append(reply)
            self._lines -= lines
            self._waiting.popleft()
        if found:
            self._write(b"".join(found))
        self.wake()
