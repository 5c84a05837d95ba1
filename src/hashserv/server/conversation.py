"""What is said on one connection: from what a peer asks to the bytes that answer it."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Final, NamedTuple

from hashserv import model
from hashserv.errors import InvokeError
from hashserv.server import account_handlers, handlers
from hashserv.server.handlers import HANDLERS, Services
from hashserv.server.peer import Peer
from hashserv.server.replies import Replies
from hashserv.server.snapshot_feed import SnapshotFeed
from hashserv.server.streams import KnownReply, answer_lines, known_reply
from hashserv.wire import commands
from hashserv.wire.handshake import Greeting
from hashserv.wire.server import (
    STREAM_END_OK,
    STREAM_MODES,
    STREAM_OK,
    Broken,
    Event,
    Refused,
    Request,
    ServerWire,
    StreamEnd,
    StreamLines,
)

SLICE_LINES: Final = 128
"""Lines of a stream mode that are answered, if the database must be asked, before other connections
have their turn: about half a millisecond."""


class Reports(NamedTuple):
    """Reports that came one after the other, and are stored together."""

    commands: list[commands.Report]


class Conversation:
    """Answers one peer.

    Args:
        services: What conversations share.
        peer: Who it is.
        wire: Encodes replies.
        replies: Takes those of stream modes, which may have to wait.
        write: Sends all others.
        failed: Called with what went wrong where nobody waits for an answer.
    """

    __slots__ = ("_failed", "_feed", "_peer", "_replies", "_services", "_wire", "_write", "known")

    def __init__(
        self,
        services: Services,
        peer: Peer,
        wire: ServerWire,
        *,
        replies: Replies,
        write: Callable[[bytes], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._services = services
        self._peer = peer
        self._wire = wire
        self._replies = replies
        self._write = write
        self._failed = failed
        self._feed: SnapshotFeed | None = None
        self.known: KnownReply | None = None
        """Answers lines out of the cache, in a stream mode that it helps with."""

    async def answer(self, event: Event | Reports) -> None:
        """Answer what a peer said.

        Raises:
            InvokeError: It is refused: the peer is to be told, and the conversation is over.
            StoreError: The database can't answer it; likewise.
            ProtocolError: It is nothing that a peer says: the conversation is over.
        """
        match event:
            case StreamLines():
                await self._answer_lines(event)
            case Reports():
                await self._answer_reports(event.commands)
            case Request(command):
                await self._answer_request(command)
            case StreamEnd():
                self.end()
                self._write(STREAM_END_OK)
                if event.line:  # the reference counts an END, but not an empty line
                    self._services.statistics.add(1, 0.0)
            case Greeting():
                self._peer.locate()
                self._write(self._services.headers(event))
            case Refused():
                self._services.statistics.add(1, 0.0)
                raise event.error
            case Broken():
                raise event.error

    def pause(self) -> None:
        """Say nothing unasked: the peer does not read."""
        if self._feed is not None:
            self._feed.pause()

    def resume(self) -> None:
        """Go on with what is said unasked."""
        if self._feed is not None:
            self._feed.resume()

    def end(self) -> None:
        """End a stream mode, also with the conversation. Idempotent."""
        self.known = None
        if self._feed is not None:
            self._feed.stop()
            self._feed = None

    async def _answer_request(self, command: commands.Command) -> None:
        if isinstance(command, STREAM_MODES):  # not counted, as in the reference
            self._services.access.check(command, self._peer)
            if isinstance(command, commands.SnapshotStream):
                self._begin_feed(command)
            self.known = known_reply(self._services, type(command))
            self._write(STREAM_OK)
            return
        start = perf_counter()
        try:
            if isinstance(command, commands.AccountCommand):
                reply = await account_handlers.answer(self._services, self._peer, command)
            else:
                self._services.access.check(command, self._peer)
                reply = await HANDLERS[type(command)](self._services, command)
        finally:
            self._services.statistics.add(1, perf_counter() - start)
        self._write(self._wire.encode(reply))

    def _begin_feed(self, command: commands.SnapshotStream) -> None:
        self._feed = self._services.snapshots.begin(
            command,
            write=self._write,
            # It goes on for days: a change of permissions must count meanwhile.
            check=partial(self._services.access.check, command, self._peer),
            failed=self._failed,
        )

    async def _answer_reports(self, group: list[commands.Report]) -> None:
        start = perf_counter()
        account = self._peer.account
        reports: list[model.Report] = []
        refusal: InvokeError | None = None
        try:
            self._services.access.check(group[0], self._peer)
            for command in group:  # not all at once: those before a wrong one are good
                reports += [handlers.checked_report(self._services, account, command)]
        except InvokeError as error:
            refusal = error
        if reports:
            try:
                replies = await handlers.report(self._services, account, reports)
            finally:
                self._services.statistics.add(len(reports), perf_counter() - start)
            self._write(b"".join(map(self._wire.encode, replies)))
        if refusal is not None:
            self._services.statistics.add(1, 0.0)
            raise refusal

    async def _answer_lines(self, event: StreamLines) -> None:
        for at in range(0, len(event.lines), SLICE_LINES):
            if at:
                await asyncio.sleep(0)  # the others' turn
            start = perf_counter()
            lines = event.lines[at : at + SLICE_LINES]
            replies, error = await answer_lines(self._services, event.mode, lines)
            if isinstance(replies, bytes):
                self._services.statistics.add(len(lines), perf_counter() - start)
                self._replies.send(replies)
            else:
                self._replies.send_later(self._counted(replies, len(lines), start), len(lines))
            if error is not None:
                await self._replies.settled()
                raise error

    async def _counted(self, replies: Awaitable[bytes], lines: int, start: float) -> bytes:
        try:
            return await replies
        finally:
            self._services.statistics.add(lines, perf_counter() - start)
