"""Where we differ from the reference on purpose: a test for each row of PROTOCOL.md §9.

Rows about an upstream, accounts, WebSocket and database servers are tested with these.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from typing import Any, Final

import pytest

from tests.conftest import StartServer
from tests.replay.peer import HELLO, StreamPeer
from tests.servers import ServerProcess

METHOD = "TestMethod"
DAY = 86400


@pytest.fixture
def peer(any_server: ServerProcess) -> Iterator[StreamPeer]:
    """A client of a server with an empty database, over each transport."""
    with StreamPeer(any_server.address) as peer:
        yield peer


def digest(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def ask(peer: StreamPeer, command: str, arguments: object = None) -> Any:
    """Send a request and return the decoded reply."""
    reply = peer.ask(json.dumps({command: arguments}).encode())
    assert reply is not None, "the server closed the connection"
    return json.loads(reply)


def report(peer: StreamPeer, task: str, *, outhash: str | None = None, **more: str) -> str:
    """Report a task and return the unihash that holds."""
    arguments = {
        "method": METHOD,
        "taskhash": digest(f"taskhash of {task}"),
        "outhash": digest(f"outhash of {outhash or task}"),
        "unihash": digest(f"unihash of {task}"),
        **more,
    }
    unihash = ask(peer, "report", arguments)["unihash"]
    assert isinstance(unihash, str)
    return unihash


def unihash_of(peer: StreamPeer, task: str) -> str | None:
    """Look a task up."""
    found = ask(peer, "get", {"method": METHOD, "taskhash": digest(f"taskhash of {task}")})
    return None if found is None else str(found["unihash"])


def rows(peer: StreamPeer) -> tuple[int, int]:
    """Return how many mappings and outhash rows there are."""
    usage = ask(peer, "get-db-usage")["usage"]
    return usage["unihashes_v3"]["rows"], usage["outhashes_v2"]["rows"]


def error_of(peer: StreamPeer, line: bytes) -> str:
    """Send a line that must be refused; return the error's text once the server has closed."""
    reply = peer.ask(line)
    assert reply is not None, "the server closed without a word"
    message = json.loads(reply)["invoke-error"]["message"]
    assert peer.reply() is None
    return str(message)


# clean-unused


def test_clean_unused_keeps_the_young(peer: StreamPeer) -> None:
    report(peer, "young")
    ask(peer, "remove", {"where": {"unihash": digest("unihash of young")}})
    assert rows(peer) == (0, 1)
    assert ask(peer, "clean-unused", {"max_age_seconds": 30 * DAY}) == {"count": 0}
    assert rows(peer) == (0, 1)


@pytest.mark.parametrize(
    ("created", "count"),
    [
        ("{}T00:00:00.000001+00:00", 1),  # UTC, since 2023
        ("{} 00:00:00.000001", 1),  # local time, before
        (None, 0),  # of no age: nothing says that it is old
    ],
)
def test_clean_unused_removes_the_old(
    server: ServerProcess, created: str | None, count: int
) -> None:
    with StreamPeer(server.address) as peer:
        report(peer, "old")
        report(peer, "young")
        report(peer, "used")
        with closing(sqlite3.connect(server.database)) as file:
            then = file.execute("SELECT date('now', '-31 days')").fetchone()[0]
            file.execute(
                "UPDATE outhashes_v2 SET created = ? WHERE taskhash != ?",
                (created and created.format(then), digest("taskhash of young")),
            )
            file.execute(
                "DELETE FROM unihashes_v3 WHERE taskhash != ?", (digest("taskhash of used"),)
            )
            file.commit()
        assert ask(peer, "clean-unused", {"max_age_seconds": 32 * DAY}) == {"count": 0}
        assert ask(peer, "clean-unused", {"max_age_seconds": 30 * DAY}) == {"count": count}
        assert rows(peer) == (1, 3 - count)


# backfill-wait


def test_backfill_wait_without_upstream_answers_zero(peer: StreamPeer) -> None:
    assert ask(peer, "backfill-wait") == {"tasks": 0}
    assert ask(peer, "ping", {}) == {"alive": True}


# Collections


def test_mapping_reported_again_survives_the_sweep(peer: StreamPeer) -> None:
    report(peer, "again")
    report(peer, "equivalent again")
    report(peer, "never again")
    assert ask(peer, "gc-mark", {"mark": "new", "where": {"method": "none"}}) == {"count": 0}
    report(peer, "again")
    ask(
        peer,
        "report-equiv",
        {
            "method": METHOD,
            "taskhash": digest("taskhash of equivalent again"),
            "unihash": digest("another"),
        },
    )
    assert ask(peer, "gc-status") == {"keep": 2, "remove": 1, "mark": "new"}
    assert ask(peer, "gc-sweep", {"mark": "new"}) == {"count": 1}
    assert unihash_of(peer, "again") == digest("unihash of again")
    assert unihash_of(peer, "equivalent again") == digest("unihash of equivalent again")
    assert unihash_of(peer, "never again") is None


# Missing mappings


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_reporting_again_restores_a_missing_mapping(server: ServerProcess, running: bool) -> None:
    with StreamPeer(server.address) as peer:
        report(peer, "first", outhash="both")
        assert report(peer, "second", outhash="both") == digest("unihash of first")
        assert unihash_of(peer, "second") == digest("unihash of first")
    if not running:
        server.stop()
    with closing(sqlite3.connect(server.database)) as file:
        file.execute("DELETE FROM unihashes_v3 WHERE taskhash = ?", (digest("taskhash of second"),))
        file.commit()
    if not running:
        server.start()
    with StreamPeer(server.address) as peer:
        assert unihash_of(peer, "second") is None
        assert report(peer, "second", outhash="both") == digest("unihash of first")
        assert unihash_of(peer, "second") == digest("unihash of first")
        assert rows(peer) == (2, 2)


def test_restored_only_mapping_of_a_class_is_the_reported_one(server: ServerProcess) -> None:
    with StreamPeer(server.address) as peer:
        report(peer, "only")
        with closing(sqlite3.connect(server.database)) as file:
            file.execute("DELETE FROM unihashes_v3")
            file.commit()
        assert unihash_of(peer, "only") is None
        assert report(peer, "only") == digest("unihash of only")
        assert rows(peer) == (1, 1)


# Sizes


def test_message_of_two_mebibytes_is_served(peer: StreamPeer) -> None:
    siginfo = "é" * (2 * 1024 * 1024)
    message = json.dumps(
        {
            "report": {
                "method": METHOD,
                "taskhash": digest("taskhash of large"),
                "outhash": digest("outhash of large"),
                "unihash": digest("unihash of large"),
                "outhash_siginfo": siginfo,
            }
        }
    )
    send_chunks(peer, message)
    reply = peer.reply()
    assert reply is not None
    assert json.loads(reply)["unihash"] == digest("unihash of large")
    found = ask(
        peer, "get", {"method": METHOD, "taskhash": digest("taskhash of large"), "all": True}
    )
    assert found["outhash_siginfo"] == siginfo


def test_message_over_the_limit_gets_a_clear_error(start_server: StartServer) -> None:
    server = start_server("--max-line", "50000", "--max-message", "100000")
    with StreamPeer(server.address) as peer:
        send_chunks(peer, json.dumps({"ping": {"padding": "x" * 50_000}}))
        assert peer.reply() == '{"alive":true}'
        send_chunks(peer, json.dumps({"ping": {"padding": "x" * 200_000}}))
        reply = peer.reply()
        assert reply is not None, "the server closed without a word"
        assert "100000" in json.loads(reply)["invoke-error"]["message"]
        assert peer.reply() is None


def send_chunks(peer: StreamPeer, message: str) -> None:
    pieces = [message[at : at + 32767] for at in range(0, len(message), 32767)]
    peer.send("\n".join(['{"chunk-stream": null}', *pieces, "\n"]).encode())


# Malformed requests


MALFORMED: Final[tuple[tuple[bytes, *tuple[str, ...]], ...]] = (
    # the line, and what the error must name
    (b'{"no-such-command": {}}', "no-such-command"),
    (b"{}", "command"),
    (b"[]", "object", "array"),
    (b"null", "object", "null"),
    (b'{"ping"', "decode", "request"),
    (b"\xff", "request"),
    (b'{"get": {"method": "m"}}', "get", "taskhash"),
    (b'{"get": {"method": 1, "taskhash": "t"}}', "get", "method"),
    (b'{"get": {"method": "", "taskhash": "t"}}', "get", "method"),
    (b'{"get": {"method": "m", "taskhash": "a b"}}', "get", "taskhash"),
    (b'{"get": {"method": "m", "taskhash": "t", "all": "yes"}}', "get", "all"),
    (b'{"get-outhash": {"method": "m", "taskhash": "t"}}', "get-outhash", "outhash"),
    (b'{"report": {"method": "m", "taskhash": "t", "unihash": "u"}}', "report", "outhash"),
    (b'{"remove": {}}', "remove", "where"),
    (b'{"remove": {"where": {"method": 1}}}', "remove", "where"),
    (b'{"gc-mark": {"where": {}}}', "gc-mark", "mark"),
    (b'{"gc-sweep": {"mark": null}}', "gc-sweep", "mark"),
    (b'{"clean-unused": {"max_age_seconds": "1"}}', "clean-unused", "max_age_seconds"),
)


def test_malformed_request_is_told_what_is_wrong(server: ServerProcess) -> None:
    for line, *words in MALFORMED:
        with StreamPeer(server.address) as peer:
            message = error_of(peer, line)
        assert all(word in message for word in words), f"{line!r}: {message}"
    assert "Traceback" not in server.log_text()
    with StreamPeer(server.address) as peer:
        assert ask(peer, "ping", {}) == {"alive": True}


def test_requests_before_a_malformed_one_are_answered(peer: StreamPeer) -> None:
    peer.send(b'{"ping": {}}\n{"get-db-usage": null}\n{"bad"}\n{"ping": {}}\n')
    assert peer.reply() == '{"alive":true}'
    assert "usage" in (peer.reply() or "")
    assert "invoke-error" in (peer.reply() or "")
    assert peer.reply() is None


@pytest.mark.parametrize("line", [b"only-one-word", b"three words here", b"m \xff"])
def test_malformed_line_of_get_stream_closes(peer: StreamPeer, line: bytes) -> None:
    assert peer.ask(b'{"get-stream": null}') == '"ok"'
    assert peer.ask(line) is None


def test_lines_before_a_malformed_one_are_answered(peer: StreamPeer) -> None:
    report(peer, "known")
    known = f"{METHOD} {digest('taskhash of known')}"
    assert peer.ask(b'{"get-stream": null}') == '"ok"'
    peer.send(f"{known}\n{METHOD} unknown\nonly-one-word\n{known}\n".encode())
    assert peer.line() == digest("unihash of known")
    assert peer.line() == ""
    assert peer.line() is None


def test_malformed_line_of_exists_stream_closes(peer: StreamPeer) -> None:
    assert peer.ask(b'{"exists-stream": null}') == '"ok"'
    assert peer.ask(b"\xff") is None


# Conditions


@pytest.mark.parametrize("command", ["remove", "gc-mark"])
def test_unknown_column_is_named(server: ServerProcess, command: str) -> None:
    request = {"mark": "m", "where": {"method": METHOD, "typo": "x"}}
    with StreamPeer(server.address) as peer:
        report(peer, "kept")
        assert "typo" in error_of(peer, json.dumps({command: request}).encode())
    with StreamPeer(server.address) as peer:
        assert rows(peer) == (1, 1)
        assert ask(peer, "gc-status")["mark"] is None


def test_unknown_column_in_a_mark_stream_is_named(server: ServerProcess) -> None:
    with StreamPeer(server.address) as peer:
        assert peer.ask(b'{"gc-mark-stream": null}') == '"ok"'
        assert "typo" in error_of(peer, b'{"mark": "m", "where": {"typo": "x"}}')


def test_remove_leaves_a_table_that_lacks_a_column(peer: StreamPeer) -> None:
    report(peer, "zlib", PN="zlib")
    report(peer, "bash", PN="bash")
    assert ask(peer, "remove", {"where": {"method": METHOD, "PN": "zlib"}}) == {"count": 1}
    assert rows(peer) == (2, 1)
    where = {"method": METHOD, "unihash": digest("unihash of bash")}
    assert ask(peer, "remove", {"where": where}) == {"count": 1}
    assert rows(peer) == (1, 1)
    assert unihash_of(peer, "zlib") == digest("unihash of zlib")
    assert unihash_of(peer, "bash") is None


def test_remove_takes_from_both_tables_what_both_have(peer: StreamPeer) -> None:
    report(peer, "one")
    report(peer, "two")
    where = {"method": METHOD, "taskhash": digest("taskhash of one")}
    assert ask(peer, "remove", {"where": where}) == {"count": 2}
    assert rows(peer) == (1, 1)


# Errors in streams


def test_error_in_a_stream_line_stands_in_place_of_its_reply(peer: StreamPeer) -> None:
    report(peer, "marked")
    assert peer.ask(b'{"gc-mark-stream": null}') == '"ok"'
    good = json.dumps({"mark": "m", "where": {"method": METHOD}}).encode()
    peer.send(good + b"\nnot json\n" + good + b"\n")
    assert peer.reply() == '{"count":1}'
    assert "not json" in json.loads(peer.reply() or "")["invoke-error"]["message"]
    assert peer.reply() is None


# Limits


def test_endless_line_is_cut_off(start_server: StartServer) -> None:
    server = start_server("--max-line", "2000", bind="127.0.0.1:0")
    with StreamPeer(server.address) as peer:
        assert ask(peer, "ping", "x" * 1900) == {"alive": True}
        peer.send(b"x" * 9000)
        reply = peer.reply()
        assert reply is None or "invoke-error" in reply
        assert peer.end() == b""
    assert "2000 bytes" in server.log_text()


def test_half_open_handshake_ends_and_an_idle_connection_stays(start_server: StartServer) -> None:
    server = start_server("--handshake-timeout", "0.2")
    with StreamPeer(server.address) as idle:
        assert ask(idle, "ping", {}) == {"alive": True}
        for hello in (b"", b"OEHASHEQUIV", b"OEHASHEQUIV 1.1\n", HELLO[:-1]):
            with StreamPeer(server.address, hello) as half_open:
                assert half_open.line() is None
        assert ask(idle, "ping", {}) == {"alive": True}


# The length of a unihash


def refused_unihash(server: ServerProcess, command: str, unihash: str) -> str:
    """Report a wrong unihash; return the error's text."""
    arguments = {"method": METHOD, "taskhash": "t", "outhash": "o", "unihash": unihash}
    with StreamPeer(server.address) as peer:
        return error_of(peer, json.dumps({command: arguments}).encode())


@pytest.mark.parametrize("command", ["report", "report-equiv"])
def test_unihash_has_64_digits_by_default(server: ServerProcess, command: str) -> None:
    for wrong in ("", "a", "a" * 40, "a" * 63, "a" * 65, "A" * 64, "g" * 64):
        assert refused_unihash(server, command, wrong) == "Invalid unihash"
    with StreamPeer(server.address) as peer:
        assert rows(peer) == (0, 0)
        assert report(peer, "right", unihash="a" * 64) == "a" * 64


def test_setting_admits_shorter_unihashes(start_server: StartServer) -> None:
    server = start_server("--unihash-digits", "40")
    for wrong in ("", "a" * 39, "a" * 65, "A" * 40, "g" * 40):
        assert refused_unihash(server, "report", wrong) == "Invalid unihash"
    with StreamPeer(server.address) as peer:
        assert report(peer, "short", unihash="a" * 40) == "a" * 40
        assert report(peer, "long", unihash="b" * 64) == "b" * 64
        assert unihash_of(peer, "short") == "a" * 40


# Protocol 1.0 (PROTOCOL.md §4)


def test_protocol_1_0_is_served(any_server: ServerProcess) -> None:
    with StreamPeer(any_server.address, b"OEHASHEQUIV 1.0\n\n") as peer:
        report(peer, "of 2019")
        assert unihash_of(peer, "of 2019") == digest("unihash of of 2019")


def test_protocol_1_0_gets_no_chunks(server: ServerProcess) -> None:
    siginfo = "s" * 100_000
    with StreamPeer(server.address) as peer:
        send_chunks(
            peer,
            json.dumps(
                {
                    "report": {
                        "method": METHOD,
                        "taskhash": "t",
                        "outhash": "o",
                        "unihash": digest("u"),
                        "outhash_siginfo": siginfo,
                    }
                }
            ),
        )
        assert peer.reply() is not None
    with StreamPeer(server.address, b"OEHASHEQUIV 1.0\n\n", max_piece=200_000) as peer:
        found = peer.ask(b'{"get": {"method": "TestMethod", "taskhash": "t", "all": true}}')
        assert json.loads(found or "")["outhash_siginfo"] == siginfo
