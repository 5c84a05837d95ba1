"""One peer: bytes in, replies out, in order.

A batch of look-ups that the cache knows is answered in `Session.data_received` itself: one pass
over the cache, one write. All else goes through a queue that one task works off, as long as there
is something in it; while it does, at most one more read's worth is taken from the peer.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final, cast

from hashserv.errors import InvokeError, ProtocolError, StoreError, loggable
from hashserv.server.conversation import Conversation, Reports
from hashserv.server.handlers import Services
from hashserv.server.peer import Peer
from hashserv.server.replies import Replies
from hashserv.server.settings import Limits
from hashserv.transport.listen import LINGER_SECONDS
from hashserv.wire import commands
from hashserv.wire.handshake import Greeting
from hashserv.wire.server import (
    Event,
    Request,
    ServerWire,
    StreamLines,
    encode_error,
)

logger = logging.getLogger("hashserv.server")

GROUP_REPORTS: Final = 256
"""Reports of one connection that are stored together."""

PIECE_BYTES: Final = 8192
"""How much of what was received is parsed before it is answered."""

TURN_SECONDS: Final = 0.001
"""How long requests of one connection are answered before other connections have their turn."""


class Session(asyncio.Protocol):
    """The connection of one peer.

    Args:
        services: What sessions share.
        limits: The bounds.
        opened: Called with the session when it has a connection.
        closed: Called with the session when it has none any more.
        chunks: Whether lines have a limit of their own, past which messages go in chunks.
        refusal: What to tell the peer instead of listening to it.
    """

    def __init__(
        self,
        services: Services,
        limits: Limits,
        *,
        opened: Callable[["Session"], None],
        closed: Callable[["Session"], None],
        chunks: bool = True,
        refusal: InvokeError | None = None,
    ) -> None:
        self._services = services
        self._limits = limits
        self._opened = opened
        self._closed = closed
        self._refusal = refusal
        self._loop = asyncio.get_running_loop()
        self._wire = ServerWire(
            max_line=limits.max_line if chunks else limits.max_message,
            max_message=limits.max_message,
            chunks=chunks,
        )
        self._unread: deque[bytes] = deque()
        self._queue: deque[Event] = deque()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writable: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._full = False
        self._closing = False
        self._lost = False

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the peer has a while for its handshake."""
        self._transport = cast("asyncio.Transport", transport)
        self._peer = Peer(transport)
        self._replies = Replies(self._transport.write)
        self._conversation = Conversation(
            self._services,
            self._peer,
            self._wire,
            replies=self._replies,
            write=self._transport.write,
            failed=self._fail,
        )
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer)
        self._start_timer(self._limits.handshake_timeout, "it did not finish its handshake")
        self._opened(self)
        if self._refusal is not None:
            self._tell(self._refusal)

    def data_received(self, data: bytes) -> None:
        """Answer what can be answered at once, queue the rest."""
        known = self._conversation.known
        if (
            known is not None
            and self._task is None
            and not self._full
            and self._wire.is_whole(data)
        ):
            start = perf_counter()
            reply = known(data)
            if reply is not None:
                self._transport.write(reply)
                self._services.statistics.add(reply.count(b"\n"), perf_counter() - start)
                return
        if self._wire.closed:  # what a refused peer still sends
            return
        self._unread.append(data)
        if self._task is None:
            if self._wire.greeted and not self._full:  # what was unfinished goes on
                self._stop_timer()
            self._task = self._loop.create_task(self._drain())
        # Where it waits for an upstream, it goes on with this meanwhile.
        elif len(self._unread) > 1 or not self._replies.wake():
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Go on while there is something to answer; then the connection closes."""
        self._closing = True
        if self._task is None:
            self._close()
        # The session closes the transport. TLS has no half of a connection, and asyncio warns
        # where one is wanted.
        return self._transport.get_extra_info("ssl_object") is None

    def pause_writing(self) -> None:
        """Take note that the peer does not read its replies."""
        self._full = True
        self._conversation.pause()
        self._start_timer(self._limits.write_timeout, "it left its replies unread")
        if self._task is None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Take note that the peer has read its replies."""
        self._full = False
        self._conversation.resume()
        if not self._wire.closed:  # a session that ends does so in time, read a little or not
            self._stop_timer()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self._task is None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what is not under way: nobody waits for it."""
        self._stop_timer()
        if exc is not None:
            logger.info("%s: lost: %s", self, exc)
        if self._task is not None:
            self._task.cancel()
        self._conversation.end()
        self._replies.drop()
        self._queue.clear()
        self._unread.clear()
        self._closed(self)
        self._lost = True
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    # What the server calls.

    async def finish(self) -> None:
        """Answer what was received, then close; return when the peer has been sent it all."""
        if self._lost:
            return
        self._closing = True
        self._gone = self._loop.create_future()
        if self._task is None:
            self._close()
        else:
            self._transport.pause_reading()
        await self._gone

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def __str__(self) -> str:
        """Name the peer, for the log."""
        return str(self._peer)

    # Answering.

    async def _drain(self) -> None:
        """Work off the queue, in order."""
        turn = perf_counter()
        try:
            while (event := await self._next()) is not None:
                if isinstance(event, Greeting):
                    self._stop_timer()
                await self._conversation.answer(event)
                if self._full:
                    self._conversation.pause()  # it may only just have something to say
                    self._writable = self._loop.create_future()
                    await self._writable
                if perf_counter() - turn > TURN_SECONDS:
                    await asyncio.sleep(0)
                    turn = perf_counter()
        except Exception as error:  # noqa: BLE001 - whatever it is, the peer or the log is told
            self._fail(error)
        self._task = None
        if self._closing:
            self._close()
        elif not self._transport.is_closing():
            self._transport.resume_reading()
            if self._wire.greeted and self._wire.unfinished and not self._full:
                self._start_timer(self._limits.message_timeout, "it did not finish a message")

    async def _next(self) -> Event | Reports | None:
        """Take the next event off the queue; `None` when there is nothing to do any more.

        While replies are waited for, more lines of a stream mode are answered, but all else has
        its turn when they are sent.
        """
        while not (self._queue or self._parse()):
            if not self._replies.waiting:
                return None
            if not (self._closing or self._transport.is_closing()):
                self._transport.resume_reading()
            await self._replies.progress()
        event = self._queue.popleft()
        if self._replies.waiting and (self._replies.full or not isinstance(event, StreamLines)):
            await self._replies.settled()
        match event:
            case Request(commands.Report() as report):
                return self._with_following(report)
        return event

    def _with_following(self, report: commands.Report) -> Reports:
        """Return a report with those that were received right behind it."""
        group = [report]
        while len(group) < GROUP_REPORTS and (self._queue or self._parse()):
            match self._queue[0]:
                case Request(commands.Report() as following):
                    group.append(following)
                    self._queue.popleft()
                case _:
                    break
        return Reports(group)

    def _parse(self) -> bool:
        """Parse some of what was received, and tell whether there is something to answer."""
        while self._unread and not self._queue:
            data = self._unread.popleft()
            if len(data) > PIECE_BYTES:
                self._unread.appendleft(data[PIECE_BYTES:])
                data = data[:PIECE_BYTES]
            self._queue.extend(self._wire.feed(data))
        return bool(self._queue)

    # Closing.

    def _fail(self, error: Exception) -> None:
        """End the conversation after an error, and tell the peer where it can be told."""
        match error:
            case InvokeError() | StoreError():
                self._refuse(error)
            case ProtocolError():
                self._break(error)
            case _:
                logger.error("%s: closed after an error of the server's own", self, exc_info=error)
                self._close()

    def _refuse(self, error: InvokeError | StoreError) -> None:
        """Tell the peer of an error, then close, as its client expects."""
        level = logging.ERROR if isinstance(error, StoreError) else logging.WARNING
        logger.log(level, "%s: refused: %s", self, loggable(error))
        self._tell(error)

    def _tell(self, error: InvokeError | StoreError) -> None:
        self._conversation.end()
        self._replies.drop()
        self._transport.write(self._wire.encode(encode_error(error)))
        self._wire.close()
        self._queue.clear()
        self._unread.clear()
        if not self._closing:
            self._linger()

    def _break(self, error: ProtocolError) -> None:
        logger.warning("%s: closed: %s", self, loggable(error))
        self._close()

    def _close(self) -> None:
        """Close when the peer has read its replies, or does not in time."""
        self._closing = True
        self._conversation.end()
        self._replies.drop()
        self._wire.close()
        self._queue.clear()
        self._unread.clear()
        self._transport.close()
        self._start_timer(self._limits.write_timeout, "it left its replies unread")

    def _linger(self) -> None:
        """Say no more and take in what still comes, until the peer closes or time is up."""
        self._stop_timer()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._timer = self._loop.call_later(LINGER_SECONDS, self._close)

    def _start_timer(self, seconds: float, why: str) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(seconds, self._time_out, f"{why} within {seconds:g} s")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self, why: str) -> None:
        logger.warning("%s: closed: %s", self, why)
        self._transport.abort()
