"""Sending all mappings, masked, to who may read (the extension `snapshot`)."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

import hashserv
from hashserv.address import parse_address
from hashserv.client.aio_connection import open_stream
from hashserv.model import MappingKey
from hashserv.wire.snapshot import BEGINNING, KEY_BYTES, Piece, decode_piece, digests, unmask
from tests.conftest import StartServer
from tests.logins import ADMIN, PASSWORD
from tests.peers import METHOD, Peer, digest
from tests.servers import ServerProcess, wait_for
from tests.upstream.asking import KNOWN, fill, run, unihash


def begin(peer: Peer, after: int = 0, key: str = "") -> None:
    assert peer.ask("snapshot-stream", {"after": after, "key": key}) == "ok"


def text(peer: Peer) -> str:
    line = peer.line()
    assert line is not None
    return line.decode()


START = Piece(BEGINNING, b"")


def pieces(peer: Peer, before: Piece = START) -> Iterator[Piece]:
    """Yield pieces up to the first sign of life."""
    while True:
        before = decode_piece(text(peer), before.position)
        yield before
        if not before.rows:
            return


def copied(rows: bytes, numbers: range) -> list[str | None]:
    """Return the unihashes of tasks as rows have them."""
    size = KEY_BYTES + 32
    found = {
        rows[at : at + KEY_BYTES]: rows[at + KEY_BYTES : at + size]
        for at in range(0, len(rows), size)
    }
    keys = digests([MappingKey(METHOD, digest(number)) for number in numbers])
    return [
        unmask(key, found[key[:KEY_BYTES]]) if key[:KEY_BYTES] in found else None for key in keys
    ]


@pytest.fixture
def filled(server: ServerProcess) -> ServerProcess:
    fill(server.address)
    return server


def test_all_mappings_are_sent_and_then_what_is_new(filled: ServerProcess) -> None:
    with Peer(filled.address) as peer, Peer(filled.address) as other:
        begin(peer)
        arrived = list(pieces(peer))
        rows = b"".join(piece.rows for piece in arrived)
        assert copied(rows, range(KNOWN + 1)) == [*map(unihash, range(KNOWN)), None]
        other.report(digest(KNOWN), digest(1), unihash(KNOWN))
        (new, sign) = pieces(peer, arrived[-1])
        assert copied(new.rows, range(KNOWN, KNOWN + 1)) == [unihash(KNOWN)]
        assert sign.position == new.position
        peer.send(b"END\n")
        assert peer.line() == b"ok"
        assert peer.ask("ping") == {"alive": True}
    with Peer(filled.address) as peer:  # goes on where it was
        begin(peer, *arrived[1].position)
        rows = b"".join(piece.rows for piece in pieces(peer, arrived[1]))
        got = [each for each in copied(rows, range(KNOWN + 1)) if each]
        assert len(got) == KNOWN + 1 - 512


def test_nothing_of_a_mapping_can_be_seen(filled: ServerProcess) -> None:
    with Peer(filled.address) as peer:
        begin(peer)
        rows = b"".join(piece.rows for piece in pieces(peer))
    for number in range(KNOWN):
        for secret in (digest(number), unihash(number)):
            assert bytes.fromhex(secret) not in rows
            assert secret.encode() not in rows
    # Their hashes differ in a few bits, and of that nothing is left either.
    assert len({rows[at : at + 4] for at in range(0, len(rows), 4)}) > len(rows) / 4 * 0.99


def test_an_empty_database_sends_a_sign_of_life(server: ServerProcess) -> None:
    with Peer(server.address) as peer:
        begin(peer)
        assert decode_piece(text(peer), BEGINNING) == Piece(BEGINNING, b"")


@pytest.mark.parametrize("what", ["another key", "beyond the end", "removed"])
def test_what_is_not_there_any_more_begins_anew(filled: ServerProcess, what: str) -> None:
    with Peer(filled.address) as peer:
        begin(peer)
        last = list(pieces(peer))[-1].position
    if what == "another key":
        last = last._replace(key="7f" * KEY_BYTES)
    elif what == "beyond the end":
        last = last._replace(id=last.id + 10)
    else:
        with Peer(filled.address) as peer:
            peer.ask("remove", {"where": {"unihash": unihash(KNOWN - 1)}})
    with Peer(filled.address) as peer:
        begin(peer, *last)
        assert text(peer) == "reset"
        rows = b"".join(piece.rows for piece in pieces(peer))
        assert copied(rows, range(KNOWN - 1)) == list(map(unihash, range(KNOWN - 1)))


def test_short_unihashes_are_left_out(start_server: StartServer) -> None:
    server = start_server("--unihash-digits", "1")
    with Peer(server.address) as peer:
        for number, each in enumerate(("7f", unihash(1), "7f" * 31)):
            peer.report(digest(number), digest(100 + number), each)
        begin(peer)
        rows = b"".join(piece.rows for piece in pieces(peer))
    assert copied(rows, range(3)) == [None, unihash(1), None]


def test_who_may_not_read_is_refused(start_server: StartServer) -> None:
    server = start_server("--anon-perms", "@none")
    with Peer(server.address) as peer:
        refusal = peer.refusal(b'{"snapshot-stream": {}}\n')
    assert refusal == "Anonymous user is not allowed to access permissions(s) @read"


def test_who_may_not_read_any_more_is_sent_nothing_more(start_server: StartServer) -> None:
    server = start_server(
        "--anon-perms", "@none", "--admin-user", ADMIN, "--admin-password", PASSWORD
    )
    with Peer(server.address) as admin, Peer(server.address) as peer:
        assert admin.ask("auth", {"username": ADMIN, "token": PASSWORD})["result"]
        user = admin.ask("new-user", {"username": "mirror", "permissions": ["@read"]})
        assert peer.ask("auth", {"username": "mirror", "token": user["token"]})["result"]
        begin(peer)
        list(pieces(peer))
        admin.ask("delete-user", {"username": "mirror"})
        assert "is not allowed" in text(peer)
        assert peer.closed()


def test_there_may_be_so_many(start_server: StartServer) -> None:
    server = start_server("--max-snapshots", "2")
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(server.address)) for _ in range(3)]
        begin(peers[0])
        begin(peers[1])
        refusal = peers[2].refusal(b'{"snapshot-stream": {}}\n')
        assert refusal == "Too many snapshots are being copied: try again in a while"
        peers[0].close()

        def may() -> bool:
            with Peer(server.address) as peer:
                return bool(peer.ask("snapshot-stream", {}) == "ok")

        wait_for(may)
        list(pieces(peers[1]))
        peers[1].send(b"END\n")
        assert peers[1].line() == b"ok"
        begin(peers[1])


def test_a_server_can_do_without(start_server: StartServer) -> None:
    server = start_server("--max-snapshots", "0")
    with Peer(server.address, hello=b"OEHASHEQUIV 1.1\nneeds-headers: true\n\n") as peer:
        assert text(peer).startswith("server-id: ")
        assert text(peer) == ""


def test_the_header_names_it(server: ServerProcess) -> None:
    with Peer(server.address, hello=b"OEHASHEQUIV 1.1\nneeds-headers: true\n\n") as peer:
        assert text(peer).startswith("server-id: ")
        assert text(peer) == "extensions: snapshot"
        assert text(peer) == ""


@pytest.mark.parametrize("arguments", [None, {"after": -1}, {"after": 2**63}, {"key": 7}])
def test_wrong_arguments(server: ServerProcess, arguments: object) -> None:
    with Peer(server.address) as peer:
        assert (
            "snapshot-stream" in peer.ask("snapshot-stream", arguments)["invoke-error"]["message"]
        )


def test_a_line_where_nothing_is_to_be_said_closes(server: ServerProcess) -> None:
    with Peer(server.address) as peer:
        begin(peer)
        peer.send(b"what\n")
        while (line := peer.line()) is not None:
            decode_piece(line.decode(), BEGINNING)


def mappings(database: Path, count: int) -> None:
    """Put many mappings into a database whose server is gone."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            """WITH RECURSIVE n(i) AS (VALUES(0) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
            INSERT INTO unihashes_v3 (method, taskhash, unihash, gc_mark)
            SELECT ?, printf('%064x', i), printf('%064x', i + 1000000000), '' FROM n""",
            (count, METHOD),
        )


def test_who_never_reads_costs_little_and_others_are_served(server: ServerProcess) -> None:
    server.stop()
    mappings(server.database, 300_000)
    server.start()
    with Peer(server.address) as peer, Peer(server.address) as other:
        assert other.lookup(digest(1)) == unihash(1)
        before = server.resident_bytes()
        begin(peer)
        for number in range(2000):
            assert other.lookup(digest(number)) == unihash(number)
        assert server.resident_bytes() - before < 10_000_000
        server.process.terminate()  # it stops all the same, once the rest is in nobody's way
        peer.close()
        assert server.stop() == 0


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "ws://127.0.0.1:0"])
def test_over_each_transport(start_server: StartServer, bind: str) -> None:
    server = start_server(bind=bind)
    with hashserv.create_client(server.address) as client:
        for number in range(600):
            client.report_unihash_equiv(digest(number), METHOD, unihash(number))

    async def copy() -> bytes:
        stream = await open_stream(parse_address(server.address), None, None)
        try:
            await stream.send(b'OEHASHEQUIV 1.1\n\n{"snapshot-stream": {}}\n', None)
            received = b""
            before = START
            rows = b""
            while True:
                received += await stream.receive(None)
                *lines, received = received.split(b"\n")
                for line in lines:
                    if line != b'"ok"':
                        before = decode_piece(line.decode(), before.position)
                        rows += before.rows
                        if not before.rows:
                            return rows
        finally:
            await stream.close()

    assert copied(run(copy()), range(600)) == list(map(unihash, range(600)))
