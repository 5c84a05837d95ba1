"""Masked mappings, which only they can read who could ask for them, and their lines. No I/O.

A *row* is 48 bytes: a key of 16, and the unihash's 32 bytes masked. Both key and mask are of one
hash over method and taskhash. Who knows these finds the row and reads it; to everybody else it
is as good as random.
"""

import binascii
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from hashserv.errors import ProtocolError
from hashserv.model import UNIHASH_DIGITS

EXTENSION: Final = "snapshot"
"""The name of the extension in the server's header."""

KEY_BYTES: Final = 16
"""What a row is found by: two of 2**50 mappings share it with a probability of 2**-29."""

MASKED_BYTES: Final = UNIHASH_DIGITS // 2
ROW_BYTES: Final = KEY_BYTES + MASKED_BYTES

MOST_ID: Final = 2**63 - 1
"""The highest id that a database may have given to a mapping."""

RESET: Final = "reset"
"""The line that says that the rows begin anew."""

_PERSON: Final = b"hashserv-snap-1"
_HEX: Final = "0123456789abcdef"
_NO_KEY: Final = "00" * KEY_BYTES
_HEAD: Final = re.compile(rf"([0-9]{{1,19}}) ([0-9a-f]{{{2 * KEY_BYTES}}})(?: |$)")


class Position(NamedTuple):
    """How far a copy is: the id and the key, in hex, of its last row."""

    id: int
    key: str


BEGINNING: Final = Position(0, _NO_KEY)
"""Before the first row."""


class Piece(NamedTuple):
    """Rows, one after the other, and the position after them; no rows are a sign of life."""

    position: Position
    rows: bytes


def digests(keys: Iterable[tuple[str, str]]) -> list[bytes]:
    """Return what mappings are found by and masked with, `ROW_BYTES` each.

    Args:
        keys: Method and taskhash of each.
    """
    return [
        blake2b(f"{method}\0{taskhash}".encode(), digest_size=ROW_BYTES, person=_PERSON).digest()
        for method, taskhash in keys
    ]


def all_maskable(unihashes: Sequence[str]) -> bool:
    """Tell whether unihashes are valid, and so can all be masked: faster than one by one."""
    return {*map(len, unihashes)} <= {UNIHASH_DIGITS} and not "".join(unihashes).strip(_HEX)


def mask(keys: Iterable[tuple[str, str]], unihashes: Sequence[str]) -> bytes:
    """Return the rows of mappings.

    Args:
        keys: Method and taskhash of each.
        unihashes: Their unihashes, each of 64 hex digits; others can't be in a snapshot.
    """
    whole = b"".join(digests(keys))
    # The unihashes stand below the masks, and nothing below the keys; then all is one number.
    below = bytes.fromhex(_NO_KEY.join(["", *unihashes]))
    number = int.from_bytes(whole, "big") ^ int.from_bytes(below, "big")
    return number.to_bytes(len(whole), "big")


def unmask(digest: bytes, masked: bytes) -> str:
    """Return the unihash of a row.

    Args:
        digest: What `digests` returns for the mapping's key.
        masked: The row without its key.
    """
    number = int.from_bytes(digest[KEY_BYTES:], "big") ^ int.from_bytes(masked, "big")
    return number.to_bytes(MASKED_BYTES, "big").hex()


def position_after(rows: bytes, last: int) -> Position:
    """Return the position after rows, the last of which is that of the mapping with this id."""
    return Position(last, rows[-ROW_BYTES:][:KEY_BYTES].hex())


def encode_piece(piece: Piece) -> bytes:
    """Return the line of a piece, with its line feed."""
    last, key = piece.position
    if not piece.rows:
        return f"{last} {key}\n".encode()
    return b"%d %s %s\n" % (last, key.encode(), b64encode(piece.rows))


def decode_piece(line: str, before: Position) -> Piece:
    """Read the line of a piece.

    Args:
        line: The line, without its end.
        before: The position before it.

    Raises:
        ProtocolError: It is none, or none that can follow.
    """
    found = _HEAD.match(line)
    if found is None:
        raise ProtocolError(f"'{line[:80]}' is no line of a snapshot")
    position = Position(int(found[1]), found[2])
    if found.end() == len(line):
        if position != before:
            raise ProtocolError(f"a sign of life at row {position.id} after row {before.id}")
        return Piece(position, b"")
    if position.id > MOST_ID:
        raise ProtocolError(f"{position.id} is no id")
    if position.id <= before.id:
        raise ProtocolError(f"ids that go backwards, row {position.id} after row {before.id}")
    try:
        rows = binascii.a2b_base64(line[found.end() :], strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError(f"rows that are wrong base64: {error}") from None
    if len(rows) % ROW_BYTES:
        raise ProtocolError(f"rows of a wrong length, {len(rows)} bytes")
    if position_after(rows, position.id) != position:
        raise ProtocolError(f"the key {position.key} after a row with another one")
    return Piece(position, rows)
