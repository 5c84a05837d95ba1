"""WebSockets without I/O: lines to text frames and back (PROTOCOL.md §3), and the client's end.

A line is a text frame without its line feed. A line feed within a frame becomes a space, which
means the same in JSON and in the lines of the stream modes. Binary frames are taken as text, as
the reference's own ends do.
"""

import logging
from collections.abc import Callable
from itertools import takewhile
from typing import Final

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol, Side, State
from websockets.uri import WebSocketURI

from hashserv.address import TcpAddress, TlsAddress, WebSocketAddress
from hashserv.errors import ConnectionClosedError
from hashserv.transport.websocket_frames import (
    frame_end,
    masked_text_frames,
    take_texts,
    text_frames,
)
from hashserv.wire.framing import DEFAULT_MAX_MESSAGE

frames_logger = logging.getLogger("hashserv.websocket")
"""What `websockets` tells: of each connection on the level INFO, which is said elsewhere."""
frames_logger.setLevel(logging.WARNING)

PIECE_BYTES: Final = 4096
"""How much is given to the protocol at once: it may hold hundreds of tiny frames, or, compressed,
become a thousand times as long."""

RUN_BYTES: Final = 16_384
"""How much is taken to text messages at once: 170 look-ups, or 2,700 empty lines."""

_MESSAGES: Final = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})
_HEAD_END: Final = b"\r\n\r\n"


class FrameReader:
    """Makes lines of what arrives at one end of a WebSocket, in pieces.

    Runs of text messages in one frame each are taken in one pass. Any other frame is given to the
    protocol alone, so that it is always known where the next one begins; and everything is, while
    the protocol has not opened, from when it closes, and where an extension is in use.

    Args:
        protocol: Whose end it is.
        max_message: How many bytes a message may have; the protocol's own limit.
        accept: Called with the request that a server gets.
    """

    __slots__ = (
        *("_accept", "_at", "_begun", "_fragments", "_given", "_head_tail", "_masked"),
        *("_max_message", "_protocol", "_received", "_starved", "_text"),
    )

    def __init__(
        self,
        protocol: Protocol,
        *,
        max_message: int,
        accept: Callable[[Request], None] | None = None,
    ) -> None:
        self._protocol = protocol
        self._masked = protocol.side is Side.SERVER
        self._max_message = max_message
        self._accept = accept
        self._received = b""  # what is to be read, from `_at` on
        self._at = 0
        self._starved = True  # nothing can be done with that before more comes
        self._given = 0  # so many bytes of a frame are still to be given to the protocol
        self._head_tail: bytes | None = b""  # the last bytes of an HTTP head that has not ended
        self._begun = False  # whether a message in fragments has
        self._fragments = bytearray()  # the protocol bounds their sum
        self._text = False  # whether the message is, or else binary

    def feed(self, data: bytes) -> None:
        """Take bytes as they arrived."""
        self._received = self._received[self._at :] + data
        self._at = 0
        self._starved = not self._received

    def drop(self) -> None:
        """Forget what was not read."""
        self._received = b""
        self._at = 0
        self._starved = True

    @property
    def ready(self) -> bool:
        """Whether there is something to read."""
        return not self._starved

    @property
    def unread(self) -> int:
        """How many bytes wait to be read."""
        return len(self._received) - self._at

    @property
    def unfinished(self) -> bool:
        """Whether the peer has begun a message and not ended it."""
        return bool(self._begun or self._given or self.unread or self._protocol.reader.buffer)

    def read(self) -> bytes:
        """Read a piece, and return the lines that end in it, each with its line feed.

        What the protocol has to send afterwards, such as a pong, comes before what answers them.
        """
        protocol = self._protocol
        if protocol.state is not State.OPEN or protocol.extensions:
            self._given = 0
            lines = self._give(self._cut_head(self._at + PIECE_BYTES))
        elif self._given:
            lines = self._give_frame()
        else:
            lines = b"" if self._begun else self._run()
            if not lines:
                end = frame_end(self._received, self._at)
                if end is None:
                    self._starved = True
                    return b""
                self._given = end - self._at
                lines = self._give_frame()
        if self._at >= len(self._received):
            self.drop()
        return lines

    def _run(self) -> bytes:
        """Take text messages in one frame each, as long as nothing else comes."""
        end = min(self._at + RUN_BYTES, len(self._received))
        texts, self._at = take_texts(
            self._received, self._at, end, masked=self._masked, longest=self._max_message
        )
        lines = _lines(texts)
        return lines if lines.isascii() else _lines(list(takewhile(self._is_text, texts)))

    def _give_frame(self) -> bytes:
        """Give the protocol what is there of a frame."""
        end = min(self._at + min(self._given, PIECE_BYTES), len(self._received))
        self._given -= end - self._at
        return self._give(end)

    def _cut_head(self, end: int) -> int:
        """Return where to stop: not behind the HTTP head, where the protocol has yet to agree."""
        if self._head_tail is None:
            return end
        seen = self._head_tail + self._received[self._at : end]
        head_end = seen.find(_HEAD_END)
        if head_end < 0:
            self._head_tail = seen[1 - len(_HEAD_END) :]
            return end
        cut = self._at + head_end + len(_HEAD_END) - len(self._head_tail)
        self._head_tail = None
        return cut

    def _give(self, end: int) -> bytes:
        """Give bytes to the protocol, and return the lines that it makes of them."""
        piece = self._received[self._at : end]
        self._at += len(piece)
        self._protocol.receive_data(piece)
        messages: list[bytes] = []
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                message = self._message(event)
                if message is None:
                    continue
                if self._text and not self._is_text(message):
                    break
                messages.append(message)
            elif isinstance(event, Request) and self._accept is not None:
                self._accept(event)
        return _lines(messages)

    def _message(self, frame: Frame) -> bytes | None:
        """Return the message that ends with a frame, if one does."""
        if frame.opcode not in _MESSAGES:
            return None
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
        self._begun = not frame.fin
        if self._begun:
            self._fragments += frame.data
            return None
        message = b"".join([self._fragments, frame.data])
        self._fragments.clear()
        return message

    def _is_text(self, message: bytes) -> bool:
        """Tell whether a text is UTF-8, without which the connection fails (RFC 6455 §8.1)."""
        try:
            if not message.isascii():
                message.decode()
        except UnicodeDecodeError as error:
            self._protocol.fail(CloseCode.INVALID_DATA, "a text is not UTF-8")
            self._protocol.parser_exc = error
            return False
        return True


def _lines(messages: list[bytes]) -> bytes:
    """Return each message as a line, with its line feed."""
    if not messages:
        return b""
    data = b"\n".join([*messages, b""])
    if data.count(b"\n") != len(messages):
        data = b"\n".join([*(message.replace(b"\n", b" ") for message in messages), b""])
    return data


def frames_of(protocol: Protocol, data: bytes) -> bytes:
    """Return whole lines as text frames, behind what the protocol has to send already."""
    lines = data.split(b"\n")
    lines.pop()
    if protocol.extensions:
        for line in lines:
            protocol.send_text(line)
        return b"".join(protocol.data_to_send())
    encode = text_frames if protocol.side is Side.SERVER else masked_text_frames
    return b"".join([*protocol.data_to_send(), encode(lines)])


def below(address: WebSocketAddress) -> TcpAddress | TlsAddress:
    """Return the address of the stream that carries a WebSocket."""
    return (TlsAddress if address.secure else TcpAddress)(address.host, address.port)


class ClientWebSocket:
    """A client's WebSocket: what to send, and what was received.

    Args:
        address: The server's.
    """

    __slots__ = ("_address", "_protocol", "_reader", "_received")

    def __init__(self, address: WebSocketAddress) -> None:
        path, _, query = address.path.partition("?")
        host = address.host or "localhost"
        uri = WebSocketURI(address.secure, host, address.port, path, query)
        self._address = address
        self._protocol = ClientProtocol(uri, max_size=DEFAULT_MAX_MESSAGE, logger=frames_logger)
        self._reader = FrameReader(self._protocol, max_message=DEFAULT_MAX_MESSAGE)
        self._received: list[bytes] = []

    def upgrade(self) -> bytes:
        """Return the request that turns HTTP into a WebSocket."""
        self._protocol.send_request(self._protocol.connect())
        return self.answer()

    @property
    def upgraded(self) -> bool:
        """Whether the server has agreed.

        Raises:
            ConnectionError: It has refused; the message says how.
        """
        if self._protocol.handshake_exc is not None:
            raise ConnectionError(self._refusal(self._protocol.handshake_exc))
        return self._protocol.state is not State.CONNECTING

    def encode(self, lines: bytes) -> bytes:
        """Return whole lines as frames.

        Raises:
            ConnectionClosedError: The server has closed.
        """
        if self._protocol.state is not State.OPEN:
            raise ConnectionClosedError(self._farewell())
        return frames_of(self._protocol, lines)

    def feed(self, data: bytes) -> None:
        """Take bytes as they arrived."""
        self._reader.feed(data)
        while self._reader.ready:
            self._received.append(self._reader.read())

    def end(self) -> None:
        """Take note that no more will arrive."""
        self._protocol.receive_eof()

    def answer(self) -> bytes:
        """Return what is to be sent: a pong, the answer to a close frame, or nothing."""
        return b"".join(self._protocol.data_to_send())

    def take(self) -> bytes:
        """Return the lines that were received, or nothing.

        Raises:
            ConnectionClosedError: There are none, and the server has closed.
        """
        lines = b"".join(self._received)
        self._received.clear()
        if not lines and self._protocol.state is not State.OPEN:
            raise ConnectionClosedError(self._farewell())
        return lines

    def close(self) -> bytes:
        """Return the close frame to send, or nothing where it is too late for one."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
        return self.answer()

    def _farewell(self) -> str:
        protocol = self._protocol
        if protocol.close_rcvd is not None:
            return f"Connection closed by the server: {protocol.close_rcvd}"
        if protocol.close_sent is not None and protocol.parser_exc is not None:
            return f"Connection closed, the server sent what it should not: {protocol.parser_exc}"
        return "Connection closed"

    def _refusal(self, error: Exception) -> str:
        if isinstance(error, InvalidStatus):
            response = error.response
            status = f"HTTP {response.status_code} {response.reason_phrase}".rstrip()
            return (
                f"{self._address} refused to become a WebSocket with {status}: look at the "
                "address and its path, and at the proxy if there is one"
            )
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        return (
            f"{self._address} does not speak WebSocket: {error}{cause}; look at the address and "
            "its port"
        )
