"""Bytes to lines and messages: any split of the bytes gives the same."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashserv.errors import InvokeError
from hashserv.wire.client import INCOMPLETE, ClientWire
from hashserv.wire.framing import (
    CHUNK_START,
    DEFAULT_MAX_CHUNK,
    DEFAULT_MAX_LINE,
    LineBuffer,
    MessageBuffer,
    encode_message,
    is_chunk_start,
)
from tests.equivalence.soak import cases
from tests.wire.pieces import bytewise, cut, splits

# What JSON and framing may stumble over: spaces, line ends, NUL, text outside ASCII and outside
# the first plane, and what looks like framing.
TEXTS = st.one_of(
    st.text(alphabet=' aé\n\r\t\0\u2028😀\\"', max_size=40),
    st.sampled_from(["", "END", '{"chunk-stream": null}', " " * 30, "a" * 60]),
)
MESSAGES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)
CHUNKS = st.one_of(st.none(), st.integers(2, 40), st.just(DEFAULT_MAX_CHUNK))


def lines_of(pieces: Iterable[bytes], *, max_line: int) -> list[bytes]:
    buffer = LineBuffer(max_line)
    return [line for piece in pieces for line in buffer.feed(piece)]


def messages_of(pieces: Iterable[bytes], *, max_message: int = 2**20) -> list[object]:
    wire = ClientWire(max_message=max_message)
    messages = []
    for piece in pieces:
        wire.feed(piece)
        while (message := wire.message()) is not INCOMPLETE:
            messages.append(message)
    return messages


# Lines.


@cases(2000)
@given(
    st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=8),
    st.data(),
)
def test_lines_are_the_same_however_they_arrive(lines: list[bytes], data: st.DataObject) -> None:
    sent = b"".join(line + b"\n" for line in lines)
    assert lines_of([sent], max_line=12) == lines
    assert lines_of(bytewise(sent), max_line=12) == lines
    assert lines_of(data.draw(splits(sent)), max_line=12) == lines


@cases(1000)
@given(st.lists(st.integers(0, 9), max_size=5), st.integers(0, 3), st.booleans(), st.data())
def test_a_line_over_the_limit_is_refused_however_it_arrives(
    before: list[int], over: int, ended: bool, data: st.DataObject
) -> None:
    sent = b"".join(b"x" * size + b"\n" for size in before) + b"y" * (9 + over)
    sent += b"\n" if ended else b""
    for pieces in ([sent], bytewise(sent), data.draw(splits(sent))):
        buffer = LineBuffer(9)
        lines = [line for piece in pieces for line in buffer.feed(piece)]
        if over:
            assert str(buffer.refused) == "a line is longer than 9 bytes"
            assert len(lines) == len(before)
        else:
            assert buffer.refused is None
            assert len(lines) == len(before) + ended


def test_what_is_held_of_a_line_never_exceeds_the_limit_by_more_than_a_read() -> None:
    buffer = LineBuffer(100)
    for size in range(1, 101):
        assert buffer.feed(b"x") == []
        assert len(buffer.partial) == size
    assert buffer.feed(b"x") == []
    assert buffer.refused is not None
    assert len(buffer.partial) == 0
    assert buffer.feed(b"\nx\n") == []


# Messages.


@cases(1000)
@given(st.lists(MESSAGES, max_size=5), CHUNKS, st.data())
def test_messages_come_back_however_they_arrive(
    messages: list[object], max_chunk: int | None, data: st.DataObject
) -> None:
    # A reply with this key is an error, and one that begins with the other is framing.
    sent = b"".join(encode_message([message], max_chunk=max_chunk) for message in messages)
    expected = [[message] for message in messages]
    assert messages_of([sent]) == expected
    assert messages_of(bytewise(sent)) == expected
    assert messages_of(data.draw(splits(sent))) == expected


@cases(1000)
@given(MESSAGES, st.lists(st.integers(0, 400), max_size=8).map(sorted), st.booleans(), st.data())
def test_chunks_of_other_writers_come_back_however_they_are_cut(
    message: object, cuts: list[int], windows: bool, data: st.DataObject
) -> None:
    """Others cut anywhere, spaces at the ends of pieces included, and may end lines with CR LF."""
    text = json.dumps([message]).encode()
    end = b"\r\n" if windows else b"\n"
    pieces = [piece for piece in cut(text, [place for place in cuts if place < len(text)]) if piece]
    sent = end.join([CHUNK_START, *pieces, b"", b""])
    assert messages_of([sent]) == [[message]]
    assert messages_of(data.draw(splits(sent))) == [[message]]


@cases(1000)
@given(MESSAGES, st.integers(3, 60))
def test_chunks_are_as_the_reference_reads_them(message: object, max_chunk: int) -> None:
    """It strips white space off the end of each line, and ends at an empty one."""
    sent = encode_message([message], max_chunk=max_chunk)
    if not sent.startswith(CHUNK_START):
        assert len(sent.removesuffix(b"\n")) < max_chunk - 1
        return
    _, *pieces = [line.rstrip() for line in sent.decode("ascii").split("\n")]
    assert max(map(len, pieces)) <= max_chunk - 1
    if (" " * (max_chunk - 1)) in json.dumps([message]):
        return  # nothing but spaces in a piece: can't be cut better
    assert pieces.index("") == len(pieces) - 2
    assert json.loads("".join(pieces)) == [message]


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_messages_are_chunked_from_one_below_max_chunk_on(over: int) -> None:
    message = "x" * (DEFAULT_MAX_CHUNK - 1 - len('""') + over)
    sent = encode_message(message)
    assert sent.startswith(CHUNK_START) == (over >= 0)
    assert encode_message(message, max_chunk=None).count(b"\n") == 1
    assert messages_of([sent]) == [message]


def test_chunks_fit_the_default_line_limit_and_the_reference_reader() -> None:
    message = "é😀\0" * 60_000
    sent = encode_message(message)
    assert max(map(len, sent.split(b"\n"))) <= min(DEFAULT_MAX_LINE, 65_535)
    assert messages_of([sent], max_message=2**22) == [message]


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
def test_a_message_of_exactly_the_limit_is_taken_and_one_byte_more_refused(size: int) -> None:
    text = b"x" * 1000

    def collect(data: bytes) -> bytes | None:
        message = MessageBuffer(1000)
        message.start()
        for at in range(0, len(data), size):
            whole = message.add(data[at : at + size])
            assert whole is None
        return message.add(b"")

    assert collect(text) == text
    with pytest.raises(InvokeError, match="The message is longer than 1000 bytes"):
        collect(text + b"x")


def test_a_message_buffer_starts_anew_after_each_message() -> None:
    message = MessageBuffer(4)
    for _ in range(3):
        message.start()
        assert message.add(b"abcd") is None
        assert message.add(b"") == b"abcd"
    assert not message.collecting


def test_a_piece_before_the_start_is_a_mistake_of_ours() -> None:
    with pytest.raises(RuntimeError):
        MessageBuffer().add(b"x")


@pytest.mark.parametrize(
    ("line", "starts"),
    [
        (b'{"chunk-stream": null}', True),
        (b'{"chunk-stream":null}', True),
        (b' { "chunk-stream" : null } \r', True),
        (b'{"chunk-stream": {}}', True),
        (b'["chunk-stream"]', False),
        (b'"chunk-stream"', False),
        (b'{"ping": {}, "chunk-stream": null}', False),
        (b'{"chunk-stream": ', False),
        (b'{"chunk-stream": "\xff"}', False),
        (b'{"get": {"method": "chunk-stream", "taskhash": "t"}}', False),
        (b"", False),
    ],
)
def test_the_start_of_chunks_is_told_in_any_spelling(line: bytes, starts: bool) -> None:
    assert is_chunk_start(line) is starts
