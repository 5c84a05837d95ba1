"""What bytes of a peer cost: work and memory in proportion to them, whatever they say."""

import tracemalloc
from collections.abc import Iterator
from typing import Any, SupportsIndex, overload

import pytest

from hashserv.wire.framing import CHUNK_START, LineBuffer, MessageBuffer
from hashserv.wire.server import Broken, Refused, ServerWire

HELLO = b"OEHASHEQUIV 1.1\n\n"
MIB = 1024 * 1024


class Counted(list[bytes]):
    """Lines that count how often one of them is looked at."""

    looked_at = 0

    @overload
    def __getitem__(self, place: SupportsIndex) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...
    def __getitem__(self, place: SupportsIndex | slice) -> bytes | list[bytes]:
        found = super().__getitem__(place)
        Counted.looked_at += len(found) if isinstance(place, slice) else 1
        return Counted(found) if isinstance(found, list) else found

    def __iter__(self) -> Iterator[bytes]:
        for line in super().__iter__():
            Counted.looked_at += 1
            yield line

    def index(self, value: bytes, *bounds: Any) -> int:
        at = super().index(value, *bounds)
        Counted.looked_at += at - (bounds[0] if bounds else 0)
        return at


def looks(data: bytes) -> int:
    """Return how often a line is looked at while bytes that come at once are read."""
    wire = ServerWire()
    wire.feed(HELLO)
    Counted.looked_at = 0
    events = wire.feed(data)
    assert not isinstance(events[-1], Broken | Refused)
    return Counted.looked_at


@pytest.mark.parametrize(
    "data",
    [
        b'{"get-stream":0}\n\n',
        b'{"get-stream":0}\nEND\n',
        b'{"exists-stream":0}\na\nb\nEND\n',
        b'{"get-stream":0}\n\n{"ping":{}}\n',
        b'{"ping":{}}\n',
    ],
)
def test_changes_of_mode_are_read_in_proportion(
    monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    feed = LineBuffer.feed
    monkeypatch.setattr(LineBuffer, "feed", lambda self, data: Counted(feed(self, data)))
    few, many = looks(data * 500), looks(data * 2000)
    assert few >= 500
    assert many <= 6 * few


def test_small_pieces_of_a_message_take_no_more_memory_than_their_bytes() -> None:
    pieces = MIB // 4
    wire = ServerWire()
    wire.feed(HELLO + CHUNK_START + b"\n")
    some = b"xy\n" * 8192
    tracemalloc.start()
    try:
        for _ in range(pieces // 8192):
            assert wire.feed(some) == []
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.2 * MIB


def test_small_pieces_make_the_message_that_they_are() -> None:
    message = MessageBuffer()
    message.start()
    for number in range(1000):
        assert message.add(b"%03d" % number + b"\r" * (number % 2)) is None
    assert message.add(b"") == b"".join(b"%03d" % number for number in range(1000))
    message.start()
    assert message.add(b"again") is None
    assert message.add(b"\r") == b"again"
