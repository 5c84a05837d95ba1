"""WebSockets without I/O: lines to text frames and back (PROTOCOL.md §3), and the client's end.

A line is a text frame without its line feed. A line feed within a frame becomes a space, which
means the same in JSON and in the lines of the stream modes. Binary frames are taken as text, as
the reference's own ends do.
"""

import logging
from collections.abc import Iterable
from typing import Final

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Protocol, State
from websockets.uri import WebSocketURI

from hashserv.address import TcpAddress, TlsAddress, WebSocketAddress
from hashserv.errors import ConnectionClosedError
from hashserv.wire.framing import DEFAULT_MAX_MESSAGE

frames_logger = logging.getLogger("hashserv.websocket")
"""What `websockets` tells: of each connection on the level INFO, which is said elsewhere."""
frames_logger.setLevel(logging.WARNING)

_MESSAGES: Final = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})


class FrameLines:
    """The lines that frames carry."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = bytearray()  # fragments; the protocol bounds their sum

    @property
    def begun(self) -> bool:
        """Whether a message in fragments has begun and not ended."""
        return bool(self._begun)

    def take(self, events: Iterable[Frame | Request | Response]) -> bytes:
        """Return the lines that end with these frames, each with its line feed."""
        lines: list[bytes | bytearray | memoryview] = []
        for frame in events:
            if not isinstance(frame, Frame) or frame.opcode not in _MESSAGES:
                continue
            if not frame.fin:
                self._begun += frame.data
            elif frame.opcode is Opcode.CONT:
                lines.append(self._begun + frame.data)
                self._begun = bytearray()
            else:
                lines.append(frame.data)
        if not lines:
            return b""
        data = b"\n".join([*lines, b""])
        if data.count(b"\n") != len(lines):
            data = b"\n".join([*(bytes(line).replace(b"\n", b" ") for line in lines), b""])
        return data


def send_lines(protocol: Protocol, data: bytes) -> None:
    """Have each of some whole lines sent as a text frame."""
    lines = data.split(b"\n")
    lines.pop()
    for line in lines:
        protocol.send_text(line)


def below(address: WebSocketAddress) -> TcpAddress | TlsAddress:
    """Return the address of the stream that carries a WebSocket."""
    return (TlsAddress if address.secure else TcpAddress)(address.host, address.port)


class ClientWebSocket:
    """A client's WebSocket: what to send, and what was received.

    Args:
        address: The server's.
    """

    __slots__ = ("_address", "_frames", "_lines", "_protocol", "_received")

    def __init__(self, address: WebSocketAddress) -> None:
        path, _, query = address.path.partition("?")
        host = address.host or "localhost"
        uri = WebSocketURI(address.secure, host, address.port, path, query)
        self._address = address
        self._protocol = ClientProtocol(uri, max_size=DEFAULT_MAX_MESSAGE, logger=frames_logger)
        self._frames = FrameLines()
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
        send_lines(self._protocol, lines)
        return self.answer()

    def feed(self, data: bytes) -> None:
        """Take bytes as they arrived."""
        self._protocol.receive_data(data)
        if lines := self._frames.take(self._protocol.events_received()):
            self._received.append(lines)

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
