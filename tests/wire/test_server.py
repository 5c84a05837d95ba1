"""The server's side of whole conversations: any split of the bytes gives the same events."""

import json
from collections.abc import Iterable
from itertools import takewhile
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashserv.errors import InvokeError
from hashserv.wire.client import INCOMPLETE, ClientWire
from hashserv.wire.commands import (
    Command,
    ExistsStream,
    GcMarkStream,
    Get,
    GetStream,
    Ping,
    Remove,
    Report,
)
from hashserv.wire.framing import CHUNK_START, encode_message
from hashserv.wire.handshake import Greeting
from hashserv.wire.server import (
    STREAM_END_OK,
    STREAM_OK,
    Broken,
    Event,
    Refused,
    Request,
    ServerWire,
    StreamEnd,
    StreamLines,
    encode_error,
    encode_server_headers,
)
from tests.equivalence.soak import cases
from tests.wire.pieces import bytewise, cut, splits

HELLO = b"OEHASHEQUIV 1.1\n\n"
GREETING = Greeting((1, 1), {})
MAX_LINE = 60
MAX_MESSAGE = 150

Plain = Greeting | Request | StreamEnd | tuple[str, Any]


def plain(events: Iterable[Event]) -> list[Plain]:
    """Return events as they compare, with neighbouring lines of a stream mode joined."""
    result: list[Plain] = []
    for event in events:
        match event:
            case StreamLines(mode, lines):
                result += [(mode.name, line) for line in lines]
            case Refused(error):
                result.append(("refused", str(error)))
            case Broken(error):
                result.append(("broken", str(error)))
            case Greeting() | Request() | StreamEnd():
                result.append(event)
    return result


def events_of(
    pieces: Iterable[bytes], *, max_line: int = MAX_LINE, max_message: int = MAX_MESSAGE
) -> list[Plain]:
    wire = ServerWire(max_line=max_line, max_message=max_message)
    events: list[Event] = []
    for piece in pieces:
        is_whole = wire.is_whole(piece)
        fed = wire.feed(piece)
        events += fed
        if is_whole and isinstance(fed[0], StreamLines):
            lines = takewhile(lambda line: len(line) <= max_line, piece[:-1].split(b"\n"))
            lines = takewhile(lambda line: line not in (b"END", b""), map(bytes.rstrip, lines))
            assert fed[0].lines == list(lines)
    return plain(events)


class Turn(NamedTuple):
    """What a client sends at once, and what the server makes of it."""

    sent: bytes
    events: list[Plain]


WORDS = st.lists(st.sampled_from(["a", " ", "  ", "é", "\\"]), max_size=20).map("".join)


def chunked(text: bytes, cuts: list[int]) -> bytes:
    """Return a message in chunks as others may cut it: anywhere."""
    pieces = [piece for piece in cut(text, [place for place in cuts if place < len(text)]) if piece]
    return b"\n".join([CHUNK_START, *pieces, b"", b""])


@st.composite
def requests(draw: st.DrawFn) -> Turn:
    where: dict[str, str | None] = draw(st.dictionaries(WORDS, WORDS, max_size=3))
    how = draw(st.sampled_from(["line", "crlf", "ours", "theirs", "ping"]))
    if how == "ping":
        return Turn(b'{"ping": null}\n', [Request(Ping())])
    message = {"remove": {"where": where}}
    text = json.dumps(message).encode()
    sent = {
        "line": text + b"\n",
        "crlf": text + b" \r\n",
        "ours": encode_message(message, max_chunk=draw(st.integers(2, 30))),
        "theirs": chunked(text, draw(st.lists(st.integers(0, 70), max_size=20).map(sorted))),
    }[how]
    return Turn(sent, [Request(Remove(where=where))])


@st.composite
def stream_modes(draw: st.DrawFn) -> Turn:
    mode = draw(st.sampled_from([GetStream, ExistsStream, GcMarkStream]))
    lines = draw(
        st.lists(st.sampled_from([b"m t", b"x", b"END!", b" END", b'{"a": 1}']), max_size=5)
    )
    padding = st.sampled_from([b"", b" ", b"\r", b"\t "])
    sent = b'{"' + mode.name.encode() + b'": null}\n'
    sent += b"".join(line + draw(padding) + b"\n" for line in lines)
    end = draw(st.sampled_from([b"END", b""]))
    sent += end + draw(padding) + b"\n"
    events: list[Plain] = [Request(mode()), *((mode.name, line) for line in lines), StreamEnd(end)]
    return Turn(sent, events)


CONVERSATIONS = st.lists(st.one_of(requests(), stream_modes()), max_size=6)


@cases(1500)
@given(CONVERSATIONS, st.data())
def test_a_conversation_is_the_same_however_it_arrives(
    turns: list[Turn], data: st.DataObject
) -> None:
    sent = HELLO + b"".join(turn.sent for turn in turns)
    expected = [GREETING, *(event for turn in turns for event in turn.events)]
    for pieces in (bytewise(sent), data.draw(splits(sent)), [sent]):
        assert events_of(pieces, max_line=2**16, max_message=2**16) == expected


PING = b'{"ping": {}}\n'
PINGED = Request(Ping())

CASES: dict[str, tuple[bytes, list[Plain]]] = {
    "nothing": (b"", []),
    "half a handshake": (b"OEHASHEQUIV 1.1\nneeds-headers: true", []),
    "a handshake": (HELLO, [GREETING]),
    "headers, CR LF": (
        b"OEHASHEQUIV 1.1\r\nNeeds-Headers: TRUE\r\nx:y:z\r\n\r\n",
        [Greeting((1, 1), {"needs-headers": "TRUE", "x": "y:z"})],
    ),
    "protocol 1.0": (b"OEHASHEQUIV 1.0\n\n" + PING, [Greeting((1, 0), {}), PINGED]),
    "another protocol": (
        b"GET / HTTP/1.1\n\n",
        [("broken", "unknown protocol 'GET', expected OEHASHEQUIV")],
    ),
    "a version too new": (
        b"OEHASHEQUIV 1.2\n\n" + PING,
        [("broken", "protocol version 1.2 is not 1.0 or 1.1")],
    ),
    "a header without a colon": (
        b"OEHASHEQUIV 1.1\nheader\n",
        [("broken", "a header line without a colon: 'header'")],
    ),
    "pings": (HELLO + PING + PING, [GREETING, PINGED, PINGED]),
    "a request before the line feed": (HELLO + PING[:-1], [GREETING]),
    "an empty line for a request": (
        HELLO + b"\n" + PING,
        [GREETING, ("refused", "Could not decode the request: Input data was truncated")],
    ),
    "an unknown command, and after it": (
        HELLO + PING + b'{"nope": {}}\n' + PING,
        [GREETING, PINGED, ("refused", "Unknown command: 'nope'")],
    ),
    "bad JSON in chunks": (
        HELLO + chunked(b'{"ping": {}', [3]) + PING,
        [GREETING, ("refused", "Could not decode the request: Input data was truncated")],
    ),
    "chunks without pieces": (
        HELLO + CHUNK_START + b"\n\n" + PING,
        [GREETING, ("refused", "Could not decode the request: Input data was truncated")],
    ),
    "a request for chunks in chunks": (
        HELLO + chunked(CHUNK_START, []),
        [GREETING, ("refused", "Unknown command: 'chunk-stream'")],
    ),
    "chunks that do not end": (HELLO + CHUNK_START + b"\n" + PING[:-1] + b"\n", [GREETING]),
    "END outside of a stream mode": (
        HELLO + b"END\n",
        [
            GREETING,
            (
                "refused",
                "Could not decode the request: JSON is malformed: invalid character (byte 0)",
            ),
        ],
    ),
    "a message in a stream mode is a line": (
        HELLO + b'{"exists-stream": null}\n{"ping": {}}\nEND\n' + PING,
        [
            GREETING,
            Request(ExistsStream()),
            ("exists-stream", b'{"ping": {}}'),
            StreamEnd(b"END"),
            PINGED,
        ],
    ),
    "chunks are no chunks in a stream mode": (
        HELLO + b'{"exists-stream": null}\n' + CHUNK_START + b"\nEND\n",
        [GREETING, Request(ExistsStream()), ("exists-stream", CHUNK_START), StreamEnd(b"END")],
    ),
    "a stream mode asked for in chunks": (
        HELLO + chunked(b'{"get-stream": null}', [5, 9]) + b"m t\n\n" + PING,
        [GREETING, Request(GetStream()), ("get-stream", b"m t"), StreamEnd(b""), PINGED],
    ),
    "one stream mode after the other": (
        HELLO + b'{"get-stream": null}\nEND\n{"gc-mark-stream": null}\nx\n\n',
        [
            GREETING,
            Request(GetStream()),
            StreamEnd(b"END"),
            Request(GcMarkStream()),
            ("gc-mark-stream", b"x"),
            StreamEnd(b""),
        ],
    ),
    "the end twice": (
        HELLO + b'{"get-stream": null}\nEND\nEND\n',
        [
            GREETING,
            Request(GetStream()),
            StreamEnd(b"END"),
            (
                "refused",
                "Could not decode the request: JSON is malformed: invalid character (byte 0)",
            ),
        ],
    ),
    "white space that belongs to a message, after a stream mode": (
        HELLO
        + b'{"get-stream": null}\nEND\n'
        + chunked(b'{"remove": {"where": {"PN": "a  b"}}}', [32]),
        [GREETING, Request(GetStream()), StreamEnd(b"END"), Request(Remove(where={"PN": "a  b"}))],
    ),
    "a request of the longest line": (
        HELLO + PING[:-1].ljust(MAX_LINE) + b"\n",
        [GREETING, PINGED],
    ),
    "a line that is too long, first": (
        b"x" * (MAX_LINE + 1),
        [("broken", f"a line is longer than {MAX_LINE} bytes")],
    ),
    "a line that is too long, after a good one": (
        HELLO + PING + b"x" * (MAX_LINE + 1),
        [GREETING, PINGED, ("broken", f"a line is longer than {MAX_LINE} bytes")],
    ),
    "a line that is too long, between good ones": (
        HELLO + PING + b"x" * (MAX_LINE + 1) + b"\n" + PING,
        [GREETING, PINGED, ("broken", f"a line is longer than {MAX_LINE} bytes")],
    ),
    "a line that is too long, in a stream mode": (
        HELLO + b'{"get-stream": null}\nm t\n' + b"x" * (MAX_LINE + 1) + b"\nm t\n",
        [
            GREETING,
            Request(GetStream()),
            ("get-stream", b"m t"),
            ("broken", f"a line is longer than {MAX_LINE} bytes"),
        ],
    ),
    "a message of the longest size": (
        HELLO + chunked(PING[:-1].ljust(MAX_MESSAGE), [50, 100]) + PING,
        [GREETING, PINGED, PINGED],
    ),
    "a message that is too long": (
        HELLO + chunked(PING[:-1].ljust(MAX_MESSAGE + 1), [50, 100]) + PING,
        [GREETING, ("refused", f"The message is longer than {MAX_MESSAGE} bytes")],
    ),
    "two messages, together longer than one may be": (
        HELLO + 2 * chunked(PING[:-1].ljust(MAX_MESSAGE), [60, 120]),
        [GREETING, PINGED, PINGED],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_whole(case: str) -> None:
    sent, events = CASES[case]
    assert events_of([sent]) == events


@pytest.mark.parametrize("case", CASES)
def test_byte_by_byte(case: str) -> None:
    sent, events = CASES[case]
    assert events_of(bytewise(sent)) == events


@pytest.mark.parametrize("case", CASES)
def test_in_two_pieces_cut_anywhere(case: str) -> None:
    sent, events = CASES[case]
    for place in range(len(sent)):
        assert events_of(cut(sent, [place])) == events, f"cut at {place}"


@cases(1000)
@given(st.sampled_from(sorted(CASES)), st.data())
def test_in_any_pieces(case: str, data: st.DataObject) -> None:
    sent, events = CASES[case]
    assert events_of(data.draw(splits(sent))) == events


@cases(1000)
@given(st.binary(max_size=80), st.booleans(), st.data())
def test_any_bytes_give_events_or_an_end(noise: bytes, greeted: bool, data: st.DataObject) -> None:
    sent = (HELLO if greeted else b"") + noise
    assert events_of(data.draw(splits(sent))) == events_of(bytewise(sent))


def test_nothing_follows_a_refusal() -> None:
    wire = ServerWire()
    assert len(wire.feed(HELLO + b"[]\n")) == 2
    assert wire.feed(PING) == []
    assert wire.feed(b"x" * 2**20) == []


def test_whole_lines_are_foreseen_in_a_stream_mode_only() -> None:
    wire = ServerWire()
    assert not wire.is_whole(HELLO)
    wire.feed(HELLO)
    assert not wire.is_whole(PING)
    wire.feed(b'{"get-stream": null}\n')
    assert not wire.is_whole(b"m t")
    assert wire.is_whole(b"m t\nm t \n")
    wire.feed(b"m")
    assert not wire.is_whole(b" t\n"), "its beginning came before"
    assert wire.feed(b" t\n") == [StreamLines(GetStream, [b"m t"])]
    assert wire.is_whole(b"m t\n")
    wire.feed(b"END\n")
    assert not wire.is_whole(b"m t\n")


# What is answered.


def test_replies_are_chunked_for_who_understands_that() -> None:
    reply = {"x": "y" * 40_000}
    modern, ancient = ServerWire(), ServerWire()
    modern.feed(b"OEHASHEQUIV 1.1\n\n")
    ancient.feed(b"OEHASHEQUIV 1.0\n\n")
    assert modern.encode(reply).startswith(CHUNK_START + b"\n")
    assert json.loads(ancient.encode(reply)) == reply
    assert ancient.encode(reply).count(b"\n") == 1


def test_the_words_of_the_stream_modes() -> None:
    assert (STREAM_OK, STREAM_END_OK) == (b'"ok"\n', b"ok\n")


def test_an_error_is_told_as_the_reference_tells_it() -> None:
    assert encode_error(InvokeError("No")) == {"invoke-error": {"message": "No"}}


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({}, b""),
        ({"needs-headers": "false"}, b""),
        ({"needs-headers": "true"}, b"server-id: 7f\nextensions: a b\n\n"),
    ],
)
def test_header_lines_are_sent_to_who_waits_for_them(
    headers: dict[str, str], answer: bytes
) -> None:
    assert encode_server_headers(Greeting((1, 1), headers), "7f", ("a", "b")) == answer


def test_a_server_without_extensions_says_nothing_of_them() -> None:
    greeting = Greeting((1, 1), {"needs-headers": "true"})
    assert encode_server_headers(greeting, "7f") == b"server-id: 7f\n\n"


# Both sides of one conversation.

COMMANDS: list[tuple[str, object, Command]] = [
    ("ping", {}, Ping()),
    ("get", {"method": "m", "taskhash": "é", "all": True}, Get("m", "é", all=True)),
    (
        "report",
        {
            "method": "m",
            "taskhash": "t",
            "outhash": "o",
            "unihash": "u",
            "outhash_siginfo": "a  b\n" * 30,
        },
        Report("m", "t", "o", "u", outhash_siginfo="a  b\n" * 30),
    ),
]


@cases(500)
@given(
    st.lists(st.tuples(st.sampled_from(COMMANDS), st.integers(0, 300)), max_size=5),
    st.integers(2, 60),
    st.data(),
)
def test_both_sides_understand_each_other_however_it_arrives(
    exchange: list[tuple[tuple[str, object, Command], int]], max_chunk: int, data: st.DataObject
) -> None:
    client, server = ClientWire(max_chunk=max_chunk), ServerWire()
    sent = client.greeting({"x": "y"})
    sent += b"".join(client.request(name, value) for (name, value, _), _ in exchange)
    events = [event for piece in data.draw(splits(sent)) for event in server.feed(piece)]
    assert events[1:] == [Request(command) for (_, _, command), _ in exchange]

    replies: list[object] = [{"text": " é" * size} for _, size in exchange]
    answered = b"".join(encode_message(reply, max_chunk=max_chunk) for reply in replies)
    received: list[object] = []
    streamed: list[str] = []
    for piece in data.draw(splits(answered + b"ok \n\nx\r\n")):
        client.feed(piece)
        while len(received) < len(replies) and (reply := client.message()) is not INCOMPLETE:
            received.append(reply)
        if len(received) == len(replies):
            streamed += client.stream_lines(2)
    streamed += client.stream_lines(9)
    assert (received, streamed) == (replies, ["ok", "", "x"])
