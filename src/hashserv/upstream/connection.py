"""One connection to an upstream: who we are, then batches of questions (PROTOCOL.md §4-6)."""

import ssl
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from hashserv.address import Address
from hashserv.client.accounts import introduction
from hashserv.client.aio_connection import open_stream
from hashserv.errors import ConnectionClosedError, InvokeError, ProtocolError
from hashserv.transport.async_stream import AsyncStream
from hashserv.upstream.failures import BROKEN, ClosedInHandshakeError, UnusableUpstreamError
from hashserv.wire.client import INCOMPLETE, STREAM_BEGUN, STREAM_END, STREAM_ENDED, ClientWire
from hashserv.wire.handshake import NEEDS_HEADERS, SERVER_ID

if TYPE_CHECKING:
    from hashserv.transport.async_websocket import AsyncWebSocket

MOST_REPLY: Final = 16 * 1024 * 1024
"""Bytes in one reply: an outhash row brings what its task's output was made of, some MB at most."""

MOST_REPLIES: Final = 64 * 1024 * 1024
"""Bytes in the replies to one batch: what an upstream can make us hold for each connection."""

GET_STREAM: Final = "get-stream"


class Login(NamedTuple):
    """Who to log in as."""

    username: str
    token: str


class UpstreamConnection:
    """A connection that is ready for questions; `UpstreamConnection.open` makes one.

    Nothing here has a time limit: the caller has one for all that it does together. After any
    exception, cancellation included, it must be closed.

    Args:
        stream: The stream below; this object closes it.
        most_reply: Bytes that a reply may have.
    """

    __slots__ = ("_stream", "_wire", "headers", "heard", "last_used")

    def __init__(self, stream: "AsyncStream | AsyncWebSocket", most_reply: int) -> None:
        self._stream = stream
        self._wire = ClientWire(
            max_chunk=ClientWire().max_chunk if stream.chunks else None, max_message=most_reply
        )
        self.headers: Mapping[str, str] = {}
        """The header lines that the server sent; names are in lower case."""
        self.heard = 0
        """Bytes that arrived since the last batch was begun."""
        self.last_used = 0.0
        """When the caller used it last, for the caller."""

    @classmethod
    async def open(
        cls,
        address: Address,
        *,
        own_id: str = "",
        login: Login | None = None,
        tls: ssl.SSLContext | None = None,
        most_reply: int | None = None,
    ) -> Self:
        """Connect, greet, log in, and make sure that questions are allowed there.

        Args:
            address: The server's.
            own_id: The `SERVER_ID` that would be our own.
            login: Who to log in as, if at all.
            tls: How to do TLS; `None` for what the environment says.
            most_reply: Bytes that a reply may have, if not `MOST_REPLY`.

        Raises:
            UnusableUpstreamError: It is ourselves, or wants another login.
            AddressError: What the environment says of TLS can't be used.
            ProtocolError: The server sent what it should not.
            InvokeError: The server refused something else.
            ConnectionClosedError: The server closed the connection.
            OSError: Nobody listens there, or the connection broke.
        """
        connection = cls(await open_stream(address, None, tls), most_reply or MOST_REPLY)
        try:
            await connection._introduce(own_id, login)
        except (ConnectionClosedError, ConnectionResetError, BrokenPipeError) as error:
            await connection.close()
            raise ClosedInHandshakeError(str(error)) from error
        except BaseException:
            await connection.close()
            raise
        return connection

    async def ask_lines(self, mode: str, lines: Iterable[bytes], count: int) -> list[str]:
        """Ask questions in a stream mode and return the replies: one round trip for all of them.

        Args:
            mode: The stream mode.
            lines: The questions, in pieces of whole lines.
            count: How many questions that are.

        Raises:
            ProtocolError: The server sent what it should not; too few or too many replies, too.
            InvokeError: The server refused a question.
            ConnectionClosedError: The server closed the connection.
            OSError: The connection broke.
        """
        self.heard = 0
        await self._send(self._wire.request(mode, None))
        for piece in lines:
            await self._send(piece)
        await self._send(STREAM_END)
        await self._begun(mode)
        replies: list[str] = []
        while len(replies) < count:
            arrived = await self._lines(count - len(replies))
            if STREAM_ENDED in arrived:
                fewer = len(replies) + arrived.index(STREAM_ENDED)
                raise ProtocolError(f"too few lines, {fewer} replies to {count} questions")
            replies += arrived
        (end,) = await self._lines(1)
        if end != STREAM_ENDED:
            raise ProtocolError(
                f"too many lines, '{end}' after {count} replies to {count} questions"
            )
        return replies

    async def ask_messages(self, command: str, arguments: Sequence[object]) -> list[object]:
        """Send requests, all at once, and return the replies.

        Args:
            command: The name of all of them.
            arguments: The arguments of each.

        Raises:
            ProtocolError: The server sent what it should not.
            InvokeError: The server refused a request.
            ConnectionClosedError: The server closed the connection.
            OSError: The connection broke.
        """
        self.heard = 0
        await self._send(b"".join(self._wire.request(command, each) for each in arguments))
        return [await self._message() for _ in arguments]

    async def begin_lines(self, mode: str, arguments: object) -> None:
        """Begin a stream mode in which the server sends lines by itself.

        Args:
            mode: The stream mode.
            arguments: Its arguments.

        Raises:
            ProtocolError: The server sent what it should not.
            InvokeError: The server refused it.
            ConnectionClosedError: The server closed the connection.
            OSError: The connection broke.
        """
        self.heard = 0
        await self._send(self._wire.request(mode, arguments))
        await self._begun(mode)

    async def lines(self, most: int) -> list[str]:
        """Return the next lines of such a mode, at least one; raises as `begin_lines`."""
        self.heard = 0
        return await self._lines(most)

    async def close(self) -> None:
        """Close. Idempotent."""
        await self._stream.close()

    async def _introduce(self, own_id: str, login: Login | None) -> None:
        """Say who we are, and find out who the server is and whether we may ask.

        Servers of 2023 and before send no headers, so requests go along, whose replies tell. An
        empty stream is one that every server knows, and that needs the permission to read.
        """
        username, token = login or (None, None)
        introductions = list(introduction(username, token, None))
        await self._send(
            self._wire.greeting({NEEDS_HEADERS: "true"})
            + b"".join(self._wire.request(*each) for each in introductions)
            + self._wire.request(GET_STREAM, None)
            + STREAM_END
        )
        try:
            while (headers := self._wire.server_headers()) is INCOMPLETE:
                await self._receive()
            self.headers = headers
            if own_id and headers.get(SERVER_ID) == own_id:
                raise UnusableUpstreamError("it is this server itself, look at its address")
            for _ in introductions:
                await self._message()
        except InvokeError as error:
            who = f"the login as '{login.username}'" if login else "to be asked"
            raise UnusableUpstreamError(f"it refuses {who}: {error}") from error
        try:
            await self._begun(GET_STREAM)
        except InvokeError as error:
            wanted = "lets its user not read there" if login else "demands a login"
            raise UnusableUpstreamError(f"it {wanted}: {error}") from error
        (end,) = await self._lines(1)
        if end != STREAM_ENDED:
            raise ProtocolError(f"too many lines, '{end}' without a question")

    async def _begun(self, mode: str) -> None:
        reply = await self._message()
        if reply != STREAM_BEGUN:
            raise ProtocolError(f"it began {mode} with '{reply}'")

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.send(data, None)
        except BROKEN:
            # The server may have said why before it closed.
            try:
                while True:
                    await self._receive(0)
            except BROKEN:
                self._wire.check_refusal()
            raise

    async def _receive(self, limit: float | None = None) -> None:
        data = await self._stream.receive(limit)
        self.heard += len(data)
        if self.heard > MOST_REPLIES:
            raise ProtocolError(f"more than {MOST_REPLIES} bytes of replies to one batch")
        self._wire.feed(data)

    async def _message(self) -> object:
        while (reply := self._wire.message()) is INCOMPLETE:
            await self._receive()
        return reply

    async def _lines(self, most: int) -> list[str]:
        while not (lines := self._wire.stream_lines(most)):
            await self._receive()
        return lines
