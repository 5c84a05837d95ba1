"""The client's role in the protocol (PROTOCOL.md §3-6): what to send, what came back. No I/O.

The client knows what it asked for, so it says what it expects next: header lines, a message, or
lines of a stream mode. `INCOMPLETE` means: feed more bytes and ask again.
"""

from collections import deque
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

import msgspec

from hashserv.errors import InvokeError, ProtocolError
from hashserv.wire.framing import (
    DEFAULT_MAX_CHUNK,
    DEFAULT_MAX_LINE,
    DEFAULT_MAX_MESSAGE,
    LineBuffer,
    MessageBuffer,
    encode_message,
    is_chunk_start,
)
from hashserv.wire.handshake import NEEDS_HEADERS, encode_greeting

STREAM_END: Final = b"END\n"


class _Marker(Enum):
    INCOMPLETE = auto()


INCOMPLETE: Final = _Marker.INCOMPLETE
"""The bytes so far do not hold the whole of what was asked for."""

Incomplete = _Marker


class ClientWire:
    """One connection's protocol state on the client.

    Args:
        max_chunk: From `max_chunk - 1` characters on, requests are sent in chunks; `None` never.
        max_message: How many bytes a reply may have.
    """

    __slots__ = ("_lines", "_message", "_received", "max_chunk")

    def __init__(
        self,
        *,
        max_chunk: int | None = DEFAULT_MAX_CHUNK,
        max_message: int = DEFAULT_MAX_MESSAGE,
    ) -> None:
        self.max_chunk = max_chunk
        self._lines = LineBuffer(max(DEFAULT_MAX_LINE, max_message))
        self._message = MessageBuffer(max_message)
        self._received: deque[bytes] = deque()

    def greeting(self, headers: Mapping[str, str]) -> bytes:
        """Return the handshake to send, with header lines of the caller's."""
        return encode_greeting({NEEDS_HEADERS: "false", **headers})

    def request(self, command: str, arguments: object) -> bytes:
        """Return the bytes of a request."""
        return encode_message({command: arguments}, max_chunk=self.max_chunk)

    def feed(self, data: bytes) -> None:
        """Take bytes as they arrived.

        Raises:
            ProtocolError: The server sent a line over the limit.
        """
        self._received.extend(self._lines.feed(data))

    def message(self) -> object:
        """Take the next message off what was received, or `INCOMPLETE`.

        Raises:
            ProtocolError: What came is no JSON, or a message over the limit.
            InvokeError: The server refused the request; it closes the connection.
        """
        while self._received:
            line = self._received.popleft()
            text: bytes | None = line
            if self._message.collecting:
                text = self._message.add(line)
            elif is_chunk_start(line):
                self._message.start()
                text = None
            if text is not None:
                return check_reply(_decode(text))
        return INCOMPLETE

    def stream_lines(self, most: int) -> list[str]:
        """Take at most `most` replies of a stream mode off what was received.

        Raises:
            InvokeError: The server refused a line, and said so in place of the reply.
            ProtocolError: A reply is no UTF-8.
        """
        take = min(most, len(self._received))
        lines = [self._received.popleft() for _ in range(take)]
        try:
            replies = b"\n".join(lines).decode()
        except UnicodeDecodeError:
            raise ProtocolError("the server's reply is no UTF-8") from None
        if "invoke-error" in replies:
            for line in lines:
                if b"invoke-error" in line:
                    check_reply(_decode(line))
        return [reply.rstrip() for reply in replies.split("\n")] if lines else []


def check_reply(reply: object) -> object:
    """Return a decoded reply as it is, or raise the error that it carries.

    Raises:
        InvokeError: The reply is an error; its text is the server's.
    """
    if isinstance(reply, dict) and "invoke-error" in reply:
        detail = reply["invoke-error"]
        raise InvokeError(detail.get("message", "") if isinstance(detail, dict) else str(detail))
    return reply


def _decode(text: bytes) -> object:
    try:
        reply: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the server's reply is no JSON: {error}") from None
    return reply
