"""The client's role: what was received, in whatever pieces, and what it means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashserv.errors import InvokeError, ProtocolError
from hashserv.wire.client import INCOMPLETE, ClientWire
from hashserv.wire.framing import encode_message
from tests.wire.pieces import bytewise, splits

REFUSAL = b'{"invoke-error": {"message": "no"}}\n'


def received(*pieces: bytes, max_message: int = 1000) -> ClientWire:
    wire = ClientWire(max_message=max_message)
    for piece in pieces:
        wire.feed(piece)
    return wire


def test_a_request() -> None:
    wire = ClientWire(max_chunk=20)
    assert wire.greeting({"a": "b"}) == b"OEHASHEQUIV 1.1\nneeds-headers: false\na: b\n\n"
    assert wire.request("ping", {}) == b'{"ping":{}}\n'
    assert wire.request("get-stream", None).startswith(b'{"chunk-stream": null}\n')


@given(st.lists(st.sampled_from(["", "a" * 64, "true", "é"]), max_size=9), st.data())
def test_lines_are_the_same_however_they_arrive(lines: list[str], data: st.DataObject) -> None:
    sent = "".join(line + "\n" for line in lines).encode()
    for pieces in ([sent], bytewise(sent), data.draw(splits(sent))):
        wire, taken = ClientWire(), []
        for piece in pieces:
            wire.feed(piece)
            taken += wire.stream_lines(99)
        assert taken == lines


def test_no_more_lines_are_taken_than_are_due() -> None:
    wire = received(b"a\nb\n\nok\n{}\n")
    assert wire.stream_lines(0) == []
    assert wire.stream_lines(2) == ["a", "b"]
    assert wire.stream_lines(1) == [""]
    assert wire.stream_lines(1) == ["ok"]
    assert wire.message() == {}
    assert wire.stream_lines(1) == []
    assert wire.message() is INCOMPLETE


def test_white_space_at_the_end_of_a_line_is_stripped() -> None:
    assert received(b"a \r\nb\r\n \nc\t \n").stream_lines(4) == ["a", "b", "", "c"]


def test_a_long_message_in_pieces() -> None:
    message = {"text": "é \n" * 400}
    wire = ClientWire()
    for piece in bytewise(encode_message(message, max_chunk=50)):
        assert wire.message() is INCOMPLETE
        wire.feed(piece)
    assert wire.message() == message


@pytest.mark.parametrize("reply", [b"{\n", b"\n", b"\xff\n", b'"\xff"\n', b"[" * 999 + b"\n"])
def test_what_is_no_message(reply: bytes) -> None:
    with pytest.raises(ProtocolError, match="no JSON"):
        received(reply).message()


def test_a_reply_over_the_limit_is_not_asked_for_again() -> None:
    with pytest.raises(InvokeError, match="longer than 1000 bytes"):
        received(encode_message("x" * 1001, max_chunk=100)).message()


def test_a_line_that_is_no_text() -> None:
    with pytest.raises(ProtocolError, match="no UTF-8"):
        received(b"a\n\xff\n").stream_lines(2)


def test_a_line_without_an_end() -> None:
    with pytest.raises(ProtocolError, match="longer than 1000 bytes"):
        received(b"x" * 1001).stream_lines(1)
    with pytest.raises(ProtocolError, match="longer than 1000 bytes"):
        received(b"x" * 1001).message()


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (REFUSAL, "no"),
        (b'{"invoke-error": {}}\n', ""),
        (b'{"invoke-error": "other"}\n', "other"),
        (b'{"chunk-stream": null}\n{"invoke-error": \n{"message": "long"}}\n\n', "long"),
    ],
)
def test_a_refused_request(reply: bytes, text: str) -> None:
    with pytest.raises(InvokeError) as caught:
        received(reply).message()
    assert str(caught.value) == text


def test_a_refused_line() -> None:
    with pytest.raises(InvokeError, match="no"):
        received(b'{"count": 1}\n', REFUSAL).stream_lines(9)
    assert received(b'{"count": 1}\n', REFUSAL).stream_lines(1) == ['{"count": 1}']


def test_a_refusal_before_the_connection_ended() -> None:
    with pytest.raises(InvokeError, match="no"):
        received(b'{"alive": true}\n', REFUSAL, b"{").check_refusal()
    received(b'{"alive": true}\n{"x"').check_refusal()
