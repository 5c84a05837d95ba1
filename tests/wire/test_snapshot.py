"""Masked mappings and the lines that carry them."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashserv.errors import ProtocolError
from hashserv.model import MappingKey, is_valid_unihash
from hashserv.wire.snapshot import (
    BEGINNING,
    KEY_BYTES,
    ROW_BYTES,
    Piece,
    Position,
    all_maskable,
    decode_piece,
    digests,
    encode_piece,
    mask,
    position_after,
    unmask,
)

WORDS = st.text(st.characters(exclude_categories=("Cs", "Z", "Cc")), min_size=1, max_size=70)
KEYS = st.builds(MappingKey, WORDS, WORDS)
UNIHASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
MAPPINGS = st.dictionaries(KEYS, UNIHASHES, max_size=20)


def rows_of(data: bytes) -> dict[bytes, bytes]:
    rows = [data[at : at + ROW_BYTES] for at in range(0, len(data), ROW_BYTES)]
    return {row[:KEY_BYTES]: row[KEY_BYTES:] for row in rows}


@given(MAPPINGS)
def test_who_knows_the_key_reads_the_unihash(mappings: dict[MappingKey, str]) -> None:
    rows = rows_of(mask(list(mappings), list(mappings.values())))
    assert len(rows) == len(mappings)
    for digest, unihash in zip(digests(list(mappings)), mappings.values(), strict=True):
        assert unmask(digest, rows[digest[:KEY_BYTES]]) == unihash


@given(st.lists(st.one_of(UNIHASHES, st.text("0123456789abcdefAF g\n", max_size=65)), max_size=4))
def test_only_valid_unihashes_can_be_masked(unihashes: list[str]) -> None:
    assert all_maskable(unihashes) == all(map(is_valid_unihash, unihashes))


@given(KEYS, KEYS, UNIHASHES)
def test_who_does_not_finds_nothing(known: MappingKey, guessed: MappingKey, unihash: str) -> None:
    row = mask([known], [unihash])
    if guessed != known:
        (digest,) = digests([guessed])
        assert digest[:KEY_BYTES] not in rows_of(row)
        assert unmask(digest, row[KEY_BYTES:]) != unihash


def test_a_row_is_what_it_was_in_the_first_release() -> None:
    """Files of downstream servers, and servers of other releases, have such rows."""
    row = mask([MappingKey("method", "taskhash")], ["0123456789abcdef" * 4])
    assert row.hex() == (
        "815c70397e57489ad288004636ded9ed27aa09832ad65822a9b1e94e5b93a608742fc7ceac3aee8f7b27155c4ca32e15"
    )


@given(MAPPINGS, st.integers(1, 2**63 - 1))
def test_a_piece_is_read_as_it_was_written(mappings: dict[MappingKey, str], last: int) -> None:
    rows = mask(list(mappings), list(mappings.values()))
    position = position_after(rows, last) if rows else BEGINNING
    piece = Piece(position, rows)
    line = encode_piece(piece).decode()
    assert line.endswith("\n")
    assert decode_piece(line[:-1], BEGINNING) == piece


def line(last: int, rows: bytes, key: str | None = None) -> str:
    key = rows[-ROW_BYTES:][:KEY_BYTES].hex() if key is None else key
    return f"{last} {key} {b64encode(rows).decode()}"


ROW = bytes(range(ROW_BYTES))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no line of a snapshot"),
        ("ok", "is no line of a snapshot"),
        ("reset", "is no line of a snapshot"),
        (line(-8, ROW), "is no line of a snapshot"),
        (line(8, ROW, "7f"), "is no line of a snapshot"),
        (line(8, ROW) + " x", "wrong base64"),
        (line(2**63, ROW), "is no id"),
        (line(7, ROW), "ids that go backwards, row 7 after row 7"),
        (line(6, ROW), "ids that go backwards, row 6 after row 7"),
        (line(8, ROW)[:-1], "wrong base64"),
        (line(8, ROW) + "é", "wrong base64"),
        (line(8, ROW).replace("A", "-"), "wrong base64"),
        (line(8, ROW + b"x"), "of a wrong length, 49 bytes"),
        (line(8, ROW[1:]), "of a wrong length, 47 bytes"),
        (line(8, ROW, "00" * KEY_BYTES), "after a row with another one"),
        (f"8 {'7f' * KEY_BYTES}", "a sign of life at row 8 after row 7"),
        (f"7 {'80' * KEY_BYTES}", "a sign of life at row 7 after row 7"),
    ],
)
def test_what_is_no_piece(text: str, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        decode_piece(text, Position(7, "7f" * KEY_BYTES))
