"""The header lines of a server, and servers that send none."""

from collections.abc import Mapping

import pytest

from hashserv.errors import ProtocolError
from hashserv.wire.client import INCOMPLETE, ClientWire
from hashserv.wire.handshake import MAX_HANDSHAKE

REPLY = b'"ok"\n'


@pytest.mark.parametrize(
    ("sent", "headers"),
    [
        (b"", {}),  # until 2023
        (b"\n", {}),
        (b"Server-ID: abc\nother:a: b \r\n\r\n", {"server-id": "abc", "other": "a: b"}),
    ],
)
def test_headers_in_any_pieces(sent: bytes, headers: Mapping[str, str]) -> None:
    data = sent + REPLY
    for size in range(1, len(data) + 1):
        wire = ClientWire()
        found: object = INCOMPLETE
        for start in range(0, len(data), size):
            wire.feed(data[start : start + size])
            if found is INCOMPLETE:
                found = wire.server_headers()
        assert found == headers
        assert wire.message() == "ok"


@pytest.mark.parametrize(
    "sent",
    [b"no colon\n", b"x" * (MAX_HANDSHAKE + 1), b"name: value\n" * (MAX_HANDSHAKE // 12 + 1)],
)
def test_what_is_no_header(sent: bytes) -> None:
    wire = ClientWire()
    wire.feed(sent)
    with pytest.raises(ProtocolError):
        wire.server_headers()
