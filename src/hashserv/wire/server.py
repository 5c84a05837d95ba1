"""The server's role in the protocol (PROTOCOL.md §3-6): bytes in, events out. No I/O.

The states and what leads from one to the other::

    handshake ── empty line ──> messages ── get-stream, exists-stream, gc-mark-stream ──> stream
                                    ^       snapshot-stream                                 |
                                    └───────────────── END or an empty line ────────────────┘

and from any of them, on what can't be understood, to closed.
"""

from collections import deque
from collections.abc import Iterable
from enum import Enum, auto
from typing import Final, NamedTuple

from hashserv.errors import InvokeError, ProtocolError
from hashserv.wire.commands import Command, ExistsStream, GcMarkStream, GetStream, SnapshotStream
from hashserv.wire.framing import (
    DEFAULT_MAX_LINE,
    DEFAULT_MAX_MESSAGE,
    LineBuffer,
    MessageBuffer,
    encode_message,
    is_chunk_start,
)
from hashserv.wire.handshake import (
    EXTENSIONS,
    SERVER_ID,
    Greeting,
    Handshake,
    encode_headers,
)
from hashserv.wire.requests import decode_request

STREAM_OK: Final = encode_message("ok")
"""What answers a request for a stream mode."""

STREAM_END_OK: Final = b"ok\n"
"""What answers the end of a stream mode."""

END: Final = b"END"
_EMPTY: Final = b""


class Request(NamedTuple):
    """A request; the caller answers it with `ServerWire.encode`."""

    command: Command


class StreamLines(NamedTuple):
    """Lines of a stream mode, as many as there were; each must be answered, in order.

    White space at the end of each is stripped; what they mean is for the mode to tell.
    """

    mode: type[Command]
    lines: list[bytes]


class StreamEnd(NamedTuple):
    """A stream mode has ended, by `END` or an empty line; the caller answers `STREAM_END_OK`."""

    line: bytes


class Refused(NamedTuple):
    """A request that can't be understood; the caller answers the error and closes."""

    error: InvokeError


class Broken(NamedTuple):
    """The peer broke the protocol; the caller closes without an answer."""

    error: ProtocolError


Event = Greeting | Request | StreamLines | StreamEnd | Refused | Broken


class _State(Enum):
    HANDSHAKE = auto()
    MESSAGES = auto()
    CLOSED = auto()


STREAM_MODES: Final = (GetStream, ExistsStream, GcMarkStream, SnapshotStream)


class ServerWire:
    """One connection's protocol state on the server.

    Args:
        max_line: How many bytes a line may have.
        max_message: How many bytes a message may have.
        chunks: Whether long replies may be sent in chunks: not where messages travel whole.
    """

    __slots__ = ("_has_chunks", "_lines", "_message", "_opening", "_state", "mode")

    def __init__(
        self,
        *,
        max_line: int = DEFAULT_MAX_LINE,
        max_message: int = DEFAULT_MAX_MESSAGE,
        chunks: bool = True,
    ) -> None:
        self._lines = LineBuffer(max_line)
        self._message = MessageBuffer(max_message)
        self._state = _State.HANDSHAKE
        self._opening: Handshake | None = Handshake()
        self._has_chunks = chunks
        self.mode: type[Command] | None = None
        """The stream mode that the connection is in, if any."""

    def is_whole(self, data: bytes) -> bool:
        """Tell whether bytes that arrived are whole lines of a stream mode; nothing is taken.

        For the common case: the caller looks whether each is a question that it knows the answer
        to, to the letter (so not `END`). If so, it answers and the bytes are done with; if not, it
        feeds them.
        """
        return self.mode is not None and not self._lines.partial and data.endswith(b"\n")

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes as they arrived and return what they complete, in order.

        After `Refused` or `Broken` nothing follows, whatever is fed.
        """
        if self._state is _State.CLOSED:
            return []
        events = self._read(self._lines.feed(data))
        if self._lines.refused is not None:
            events += self._break(self._lines.refused)
        return events

    @property
    def closed(self) -> bool:
        """Whether nothing more is taken."""
        return self._state is _State.CLOSED

    @property
    def greeted(self) -> bool:
        """Whether the handshake is over."""
        return self._opening is None

    @property
    def unfinished(self) -> bool:
        """Whether the peer has begun a line or a message and not ended it."""
        if self._state is _State.CLOSED:
            return False
        return bool(self._lines.partial) or self._message.collecting

    def close(self) -> None:
        """Take nothing more: whatever is fed from now on is dropped."""
        self._state = _State.CLOSED
        self.mode = None

    def encode(self, reply: object) -> bytes:
        """Return the bytes of a reply to a `Request`, or of an error."""
        return encode_message(reply) if self._has_chunks else encode_message(reply, max_chunk=None)

    def _break(self, error: ProtocolError) -> list[Event]:
        if self._state is _State.CLOSED:  # by something before
            return []
        self.close()
        return [Broken(error)]

    def _read(self, lines: list[bytes]) -> list[Event]:
        events: list[Event] = []
        stripped = list(map(bytes.rstrip, lines))
        # All places where a mode may end are found at once, however often it changes.
        ends = deque(at for at, line in enumerate(stripped) if line in (END, _EMPTY))
        at = 0
        while at < len(lines) and self._state is not _State.CLOSED:
            if self.mode is not None:
                while ends and ends[0] < at:
                    ends.popleft()
                end = ends[0] if ends else len(lines)
                if at < end:
                    events.append(StreamLines(self.mode, stripped[at:end]))
                if ends:
                    self.mode = None
                    events.append(StreamEnd(stripped[end]))
                at = end + 1
            else:
                event = self._read_line(lines[at])
                at += 1
                if event is not None:
                    events.append(event)
        return events

    def _read_line(self, line: bytes) -> Event | None:
        try:
            if self._opening is not None:
                return self._read_handshake(self._opening, line)
            if self._message.collecting:
                text = self._message.add(line)
                return None if text is None else self._read_message(text)
            if is_chunk_start(line):
                self._message.start()
                return None
            return self._read_message(line)
        except InvokeError as error:
            self._state = _State.CLOSED
            return Refused(error)
        except ProtocolError as error:
            self._state = _State.CLOSED
            return Broken(error)

    def _read_handshake(self, opening: Handshake, line: bytes) -> Greeting | None:
        greeting = opening.add(line)
        if greeting is not None:
            self._opening = None
            self._has_chunks = self._has_chunks and greeting.has_chunks
            self._state = _State.MESSAGES
        return greeting

    def _read_message(self, text: bytes) -> Request:
        command = decode_request(text)
        if isinstance(command, STREAM_MODES):
            self.mode = type(command)
        return Request(command)


def encode_server_headers(
    greeting: Greeting, server_id: str, extensions: Iterable[str] = ()
) -> bytes:
    """Return what the server sends after a greeting: nothing, or its header lines.

    Args:
        greeting: The client's.
        server_id: Another text each time the server starts.
        extensions: What the server can do beyond the protocol.
    """
    if not greeting.needs_headers:
        return b""
    headers = {SERVER_ID: server_id}
    if words := " ".join(extensions):
        headers[EXTENSIONS] = words
    return encode_headers(headers)


def encode_error(error: Exception) -> dict[str, dict[str, str]]:
    """Return the message that tells a client of an error (PROTOCOL.md §5)."""
    return {"invoke-error": {"message": str(error)}}
