"""Frames read and made in runs, with the parser of `websockets` as the model."""

import itertools
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from hashserv.transport.websocket import RUN_BYTES, FrameReader, frames_of
from hashserv.transport.websocket_frames import (
    frame_end,
    masked_text_frames,
    take_texts,
    text_frames,
)

MAX_MESSAGE = 300
LENGTHS = [0, 1, 125, 126, 127, 1023, 1024, 65535, 65536, 100_000]


def server() -> Protocol:
    return ServerProtocol(state=State.OPEN, max_size=MAX_MESSAGE)


def client() -> Protocol:
    return ClientProtocol(parse_uri("ws://h/"), state=State.OPEN, max_size=MAX_MESSAGE)


ENDS: list[Callable[[], Protocol]] = [server, client]

payloads = st.one_of(
    st.text(max_size=40).map(str.encode),
    st.text(st.characters(max_codepoint=127), max_size=140).map(str.encode),
    st.binary(max_size=20),
    st.just(b"x" * MAX_MESSAGE),
    st.just(b"x" * (MAX_MESSAGE + 1)),
)


@st.composite
def good_frames(draw: st.DrawFn, *, masked: bool) -> bytes:
    """Return frames of one message, such as peers send."""
    pieces = draw(st.lists(payloads, min_size=1, max_size=3)) if draw(st.booleans()) else [b"line"]
    opcode = draw(st.sampled_from([Opcode.TEXT, Opcode.TEXT, Opcode.TEXT, Opcode.BINARY]))
    frames: list[bytes] = []
    for at, piece in enumerate(pieces):
        if draw(st.integers(0, 9)) == 0:
            control = draw(st.sampled_from([Opcode.PING, Opcode.PONG]))
            frames.append(Frame(control, piece[:125]).serialize(mask=masked))
        frame = Frame(opcode if at == 0 else Opcode.CONT, piece, at == len(pieces) - 1)
        frames.append(frame.serialize(mask=masked))
    return b"".join(frames)


@st.composite
def any_frame(draw: st.DrawFn, *, masked: bool) -> bytes:
    """Return a frame that may be wrong in any of its parts."""
    first = draw(st.one_of(st.sampled_from([0x81, 0x01, 0x80, 0x88, 0x89]), st.integers(0, 255)))
    payload = draw(payloads)
    form = draw(st.sampled_from([0, 126, 127]))
    if not form:
        payload = payload[:125]
        length = bytes([len(payload)])
    else:
        length = bytes([form]) + len(payload).to_bytes(2 if form == 126 else 8)
    if draw(st.integers(0, 9)) == 0:
        masked = not masked
    if not masked:
        return bytes([first]) + length + payload
    mask = draw(st.binary(min_size=4, max_size=4))
    hidden = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([first, length[0] | 0x80]) + length[1:] + mask + hidden


def streams(*, masked: bool) -> st.SearchStrategy[bytes]:
    """Return what a peer may send: often as it should, sometimes anything."""
    messages = st.lists(good_frames(masked=masked), max_size=8)
    anything = st.lists(any_frame(masked=masked), max_size=3)
    return st.builds(
        lambda *parts: b"".join(itertools.chain.from_iterable(parts)),
        messages,
        anything,
        messages,
        st.binary(max_size=12).map(lambda junk: [junk]),
    )


def modelled(protocol: Protocol, data: bytes) -> bytes:
    """Return the lines of what the parser of `websockets` makes of bytes, one by one."""
    lines: list[bytes] = []
    begun, text = b"", False
    for at in range(len(data)):
        protocol.receive_data(data[at : at + 1])
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                continue
            if frame.opcode is not Opcode.CONT:
                begun, text = b"", frame.opcode is Opcode.TEXT
            begun += frame.data
            if not frame.fin:
                continue
            try:
                _ = text and begun.decode()
            except UnicodeDecodeError:
                protocol.fail(CloseCode.INVALID_DATA, "a text is not UTF-8")
                break
            lines.append(begun.replace(b"\n", b" ") + b"\n")
    return b"".join(lines)


def answers(protocol: Protocol) -> list[object]:
    """Return the frames that one end sends, as the other sees them: masks are random."""
    other = client() if protocol.side is Side.SERVER else server()
    other.receive_data(b"".join(protocol.data_to_send()))
    return list(other.events_received())


@settings(deadline=None, max_examples=200)
@given(data=st.data(), cuts=st.lists(st.integers(0, 1500), max_size=10))
@pytest.mark.parametrize("end", ENDS)
def test_any_frames_in_any_pieces_are_read_as_the_library_reads_them(
    end: Callable[[], Protocol], data: st.DataObject, cuts: list[int]
) -> None:
    protocol, model = end(), end()
    sent = data.draw(streams(masked=protocol.side is Side.SERVER))
    edges = [0, *sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
    reader = FrameReader(protocol, max_message=MAX_MESSAGE)
    lines = b""
    for start, stop in itertools.pairwise(edges):
        reader.feed(sent[start:stop])
        while reader.ready:
            lines += reader.read()
    assert lines == modelled(model, sent)
    assert answers(protocol) == answers(model)
    assert protocol.state is model.state
    assert protocol.close_rcvd == model.close_rcvd
    if protocol.state is State.OPEN:
        assert not reader.unread or frame_end(sent[-reader.unread :], 0) is None


def cuts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    for at in range(len(data) + 1):
        yield data[:at], data[at:]


@pytest.mark.parametrize("end", ENDS)
def test_lines_before_and_behind_all_else(end: Callable[[], Protocol]) -> None:
    """A run goes on behind a ping, a message in fragments, a long one, and an empty fragment."""
    masked = end().side is Side.SERVER
    middle = [
        Frame(Opcode.PING, b"ping"),
        Frame(Opcode.TEXT, b"", fin=False),
        Frame(Opcode.PONG, b""),
        Frame(Opcode.CONT, b"frag", fin=False),
        Frame(Opcode.CONT, b"ments"),
        Frame(Opcode.TEXT, b"y" * 200),
        Frame(Opcode.BINARY, b"\xff"),
        Frame(Opcode.TEXT, "\u00e4".encode()),
    ]
    encode = masked_text_frames if masked else text_frames
    sent = (
        encode([b"one", b""])
        + b"".join(frame.serialize(mask=masked) for frame in middle)
        + encode([b"two", b"a\nb"])
    )
    expected = (
        b"one\n\nfragments\n"
        + b"y" * 200
        + "\n\udcff\n\u00e4\ntwo\na b\n".encode(errors="surrogateescape")
    )
    for pieces in cuts(sent):
        protocol = end()
        reader = FrameReader(protocol, max_message=MAX_MESSAGE)
        lines = b""
        for piece in pieces:
            reader.feed(piece)
            while reader.ready:
                lines += reader.read()
        assert lines == expected
        assert not reader.unfinished
        pong = b"".join(protocol.data_to_send())
        assert len(pong) == 2 + 4 * (not masked) + 4


@pytest.mark.parametrize("masked", [True, False])
def test_a_run_is_bounded_and_ends_before_what_is_too_long(*, masked: bool) -> None:
    encode = masked_text_frames if masked else text_frames
    data = encode([b"line"] * 10_000)
    one = len(data) // 10_000
    texts, at = take_texts(data, 0, RUN_BYTES, masked=masked, longest=4)
    assert texts == [b"line"] * (RUN_BYTES // one)
    assert at == len(texts) * one
    assert take_texts(data, 0, len(data), masked=masked, longest=3) == ([], 0)


def test_what_is_unfinished() -> None:
    frame = masked_text_frames([b"line"])
    fragment = Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True)
    for sent, unfinished in [
        (b"", False),
        (frame, False),
        *((frame[:length], True) for length in range(1, len(frame))),
        (fragment, True),
        (fragment + Frame(Opcode.CONT, b"").serialize(mask=True), False),
    ]:
        reader = FrameReader(server(), max_message=MAX_MESSAGE)
        reader.feed(sent)
        while reader.ready:
            reader.read()
        assert reader.unfinished is unfinished


@pytest.mark.parametrize("length", LENGTHS)
def test_frames_are_made_as_the_library_makes_them(length: int) -> None:
    lines = [b"x" * length, b"", b"y" * length]
    assert text_frames(lines) == b"".join(
        Frame(Opcode.TEXT, line).serialize(mask=False) for line in lines
    )
    protocol = ServerProtocol(state=State.OPEN, max_size=None)
    protocol.receive_data(masked_text_frames(lines))
    assert protocol.events_received() == [Frame(Opcode.TEXT, line) for line in lines]


def test_no_mask_is_like_another() -> None:
    """RFC 6455 §5.3: they can't be told from what was sent before."""
    sent = masked_text_frames([b"x"] * 1000) + masked_text_frames([b"x"] * 1000)
    masks = {sent[at + 2 : at + 6] for at in range(0, len(sent), 7)}
    assert len(masks) > 1990


def test_frames_follow_what_is_to_be_sent_already() -> None:
    protocol = server()
    protocol.send_ping(b"?")
    assert frames_of(protocol, b"a\nbc\n") == b"\x89\x01?\x81\x01a\x81\x02bc"
    assert frames_of(protocol, b"") == b""
