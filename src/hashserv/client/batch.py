"""Many questions on one connection: which are in flight, and what goes out next. No I/O.

`Window` serves the stream modes of PROTOCOL.md §6, where a question is a line and so is its
reply. It keeps what a batch has in flight bounded, whatever its size, and knows what to ask again
on a new connection.
"""

from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import Final, Generic, TypeVar

import msgspec

from hashserv.errors import ClientError

WINDOW_LINES: Final = 8192
"""Lines in flight at most: about 700 KB out and 500 KB back, and enough to keep a server busy over
50 ms of network."""

PIECE_LINES: Final = 512
"""Lines sent at once: as many as the server answers in one go."""

END: Final = "END"
"""What would end the mode instead of asking."""

K = TypeVar("K")


class Window(Generic[K]):
    """The questions of a batch that are in flight.

    In turns: `fill` takes keys from their iterator, `take_unsent` gives bytes to send until
    `wants_more` says that replies are due, `answered` takes note of those. After a reconnect
    `rewind` comes first.

    Args:
        keys: What to ask about; consumed as there is room.
        encode: Gives the lines for some keys.
    """

    __slots__ = (
        *("_answered", "_encode", "_exhausted", "_held", "_keys", "_pieces", "_unsent"),
        "unanswered",
    )

    def __init__(self, keys: Iterable[K], encode: Callable[[list[K]], bytes]) -> None:
        self._keys = iter(keys)
        self._encode = encode
        self._pieces: deque[list[K]] = deque()  # sent ones, but for the last `_unsent`
        self._exhausted = False
        self._unsent = 0
        self._answered = 0  # keys of the first piece that are answered
        self._held = 0  # keys in pieces that are not answered
        self.unanswered = 0
        """Lines that are sent and not answered."""

    def fill(self) -> bool:
        """Take a piece of keys if there is room, and tell whether anything is left to do.

        An error of the keys' iterator passes through; nothing is lost then.
        """
        if self._takes_more:
            piece = list(islice(self._keys, PIECE_LINES))
            self._exhausted = len(piece) < PIECE_LINES
            if piece:
                self._pieces.append(piece)
                self._unsent += 1
                self._held += len(piece)
        return self._held > 0

    def take_unsent(self) -> bytes:
        """Return the lines of the next piece, which count as sent now; nothing if there is none.

        Raises:
            ClientError: A key can't be asked about.
        """
        if not self._unsent:
            return b""
        piece = self._pieces[-self._unsent]
        lines = self._encode(piece)
        self._unsent -= 1
        self.unanswered += len(piece)
        return lines

    @property
    def wants_more(self) -> bool:
        """Whether there may be something to send before replies are waited for."""
        return self._unsent > 0 or self._takes_more

    def answered(self, count: int) -> None:
        """Take note of the next `count` replies."""
        self.unanswered -= count
        self._held -= count
        self._answered += count
        while self._pieces and self._answered >= len(self._pieces[0]):
            self._answered -= len(self._pieces.popleft())

    def rewind(self) -> None:
        """Count what is unanswered as unsent: the connection is a new one."""
        if self._answered:
            del self._pieces[0][: self._answered]
            self._answered = 0
        self._unsent = len(self._pieces)
        self.unanswered = 0

    @property
    def _takes_more(self) -> bool:
        return not self._exhausted and self._held + PIECE_LINES <= WINDOW_LINES


def encode_lookups(keys: list[tuple[str, str]]) -> bytes:
    """Return the lines of get-stream for methods and taskhashes.

    Raises:
        ClientError: White space in one of them, which would make it another question.
    """
    text = "\n".join(map(" ".join, keys))
    words = text.split()
    if len(words) != 2 * len(keys) or words != list(chain.from_iterable(keys)):
        wrong = next(
            key for key in keys if len(words := " ".join(key).split()) != 2 or words != list(key)
        )
        raise ClientError(f"{wrong!r} is not a method and a taskhash, both without white space")
    return (text + "\n").encode()


def encode_existences(unihashes: list[str]) -> bytes:
    """Return the lines of exists-stream for unihashes.

    Raises:
        ClientError: One of them is empty, or holds white space, or means something else.
    """
    text = "\n".join(unihashes)
    if text.split() != unihashes or END in unihashes:
        wrong = next(
            unihash for unihash in unihashes if [unihash] != unihash.split() or unihash == END
        )
        raise ClientError(f"{wrong!r} is not a unihash")
    return (text + "\n").encode()


def mark_encoder(mark: str) -> Callable[[list[str]], bytes]:
    """Return what makes lines of gc-mark-stream of rows ``column value column value …``."""

    def encode(rows: list[str]) -> bytes:
        lines: list[bytes] = []
        for row in rows:
            words = row.split()
            if len(words) % 2:
                raise ClientError(f"'{row.strip()}' is not made of columns and values")
            where = dict(zip(words[::2], words[1::2], strict=True))
            lines += [msgspec.json.encode({"mark": mark, "where": where}), b"\n"]
        return b"".join(lines)

    return encode
