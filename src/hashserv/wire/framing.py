"""Bytes to lines and messages, and back (PROTOCOL.md §3). No I/O.

A *line* ends with a line feed. A *message* is JSON text: one line, or, where the text is long,
the line ``{"chunk-stream": null}``, pieces of the text as lines, and an empty line.
"""

import json
from collections.abc import Iterator
from typing import Final

import msgspec

from hashserv.errors import InvokeError, ProtocolError

DEFAULT_MAX_CHUNK: Final = 32768
"""From `DEFAULT_MAX_CHUNK - 1` characters on, a message is sent in chunks."""

DEFAULT_MAX_LINE: Final = 262_144
"""Bytes in a line. A chunk of 32,767 characters has at most 131,068 in UTF-8, so this leaves room;
the reference gives up at 65,536."""

DEFAULT_MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Bytes in a message, all its chunks together."""

CHUNK_START: Final = b'{"chunk-stream": null}'


class LineBuffer:
    """Cut incoming bytes into lines, whatever pieces they arrive in.

    Args:
        max_line: How many bytes a line may have without its line feed.
    """

    __slots__ = ("_max_line", "partial", "refused")

    def __init__(self, max_line: int = DEFAULT_MAX_LINE) -> None:
        self._max_line = max_line
        self.partial = bytearray()
        """An incomplete line, as far as it came."""
        self.refused: ProtocolError | None = None
        """Says of a line that it is too long, complete or not; nothing after it is returned."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they arrived and return the lines now complete, without line feeds.

        The caller looks at `refused` when it is done with them.
        """
        if self.refused is not None:
            return []
        if self.partial:
            self.partial += data
            if b"\n" not in data:
                self._check(self.partial)
                return []
            data = bytes(self.partial)
            self.partial.clear()
        lines = data.split(b"\n")
        rest = lines.pop()
        # Nothing in so few bytes can be too long, so the common case looks at no line.
        if len(data) > self._max_line:
            for at, line in enumerate(lines):
                if not self._check(line):
                    return lines[:at]
        if rest:
            self.partial += rest
            self._check(rest)
        return lines

    def _check(self, line: bytes | bytearray) -> bool:
        if len(line) <= self._max_line:
            return True
        self.refused = ProtocolError(f"a line is longer than {self._max_line} bytes")
        self.partial.clear()
        return False


class MessageBuffer:
    """Put the chunks of a message together.

    Args:
        max_message: How many bytes the whole message may have.
    """

    __slots__ = ("_max_message", "_text")

    def __init__(self, max_message: int = DEFAULT_MAX_MESSAGE) -> None:
        self._max_message = max_message
        self._text: bytearray | None = None

    @property
    def collecting(self) -> bool:
        """Whether a chunked message has begun and not ended."""
        return self._text is not None

    def start(self) -> None:
        """Begin a chunked message: the peer sent `CHUNK_START`."""
        self._text = bytearray()

    def add(self, piece: bytes) -> bytes | None:
        """Take the next line of a chunked message and return the whole text if it was the last.

        Only a carriage return is stripped from a piece: white space at the end of a piece is
        part of the message.

        Raises:
            InvokeError: The message is longer than the limit.
        """
        if self._text is None:
            raise RuntimeError("start() comes first")
        piece = piece.removesuffix(b"\r")
        if not piece:
            text = bytes(self._text)
            self._text = None
            return text
        self._text += piece
        if len(self._text) > self._max_message:
            raise InvokeError(f"The message is longer than {self._max_message} bytes")
        return None


def is_chunk_start(line: bytes) -> bool:
    """Tell whether a line announces a chunked message, in any JSON spelling."""
    if line == CHUNK_START:
        return True
    if b"chunk-stream" not in line or len(line) > 2 * len(CHUNK_START):
        return False
    try:
        message = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(message, dict) and next(iter(message), None) == "chunk-stream"


def encode_message(message: object, *, max_chunk: int | None = DEFAULT_MAX_CHUNK) -> bytes:
    """Return the bytes of a message: one line, or chunks if its text is long.

    Args:
        message: What JSON can hold.
        max_chunk: From `max_chunk - 1` characters on, chunks are sent; `None` (protocol 1.0,
            WebSocket) never sends chunks.
    """
    text = msgspec.json.encode(message)
    if max_chunk is None or len(text) < max_chunk - 1:
        return text + b"\n"
    # Chunks are ASCII, as the reference sends them: its reader gives up at 64 KiB a line, and
    # 32,767 characters of UTF-8 may be twice that.
    ascii_text = json.dumps(message, separators=(",", ":")).encode()
    return b"\n".join([CHUNK_START, *_pieces(ascii_text, max_chunk - 1), b"\n"])


def _pieces(text: bytes, size: int) -> Iterator[bytes]:
    """Cut ASCII JSON into pieces of at most `size`, none with a space at its end.

    The reference strips white space off the end of each piece, and what is empty then ends the
    message. So the text gets no run of spaces as long as a piece. All spaces are in strings.
    """
    run = max(1, size // 2)
    text = text.replace(b" " * run, b" " * (run - 1) + b"\\u0020")
    start = 0
    while start < len(text):
        piece = text[start : start + size].rstrip(b" ")
        yield piece
        start += len(piece)
