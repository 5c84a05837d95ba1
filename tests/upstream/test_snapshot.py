"""Copying all mappings of an upstream, and following what is new there."""

import contextlib
import re
import sqlite3
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import hashserv
from hashserv.upstream import snapshot
from hashserv.upstream.remote import RemoteUpstream
from hashserv.upstream.snapshot_file import PAGE_BYTES
from hashserv.wire.snapshot import KEY_BYTES, ROW_BYTES
from tests.conftest import StartServer
from tests.logins import ADMIN, PASSWORD
from tests.peers import METHOD, Peer, digest
from tests.servers import ServerProcess, wait_for
from tests.upstream.asking import (
    KNOWN,
    asking,
    fill,
    good,
    keys,
    logged,
    run,
    scripted,
    unihash,
    until,
)
from tests.upstream.conftest import MakeProxy
from tests.upstream.faults import NO_FAULT, Fault, FaultyProxy

MANY = 100_000


@pytest.fixture
def filled(far_server: ServerProcess) -> ServerProcess:
    """A far server that knows something."""
    fill(far_server.address)
    return far_server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "snapshot"


@pytest.fixture
def near(
    start_server: StartServer, filled: ServerProcess, proxy: FaultyProxy, path: Path
) -> ServerProcess:
    """A server in front of it, which copies all through a proxy."""
    del filled
    return start_server("--upstream", proxy.address, "--upstream-snapshot", str(path))


def insert(server: ServerProcess, count: int) -> None:
    """Put many mappings into the database of a server, which is started anew for that."""
    server.stop()
    with contextlib.closing(sqlite3.connect(server.database)) as connection, connection:
        connection.execute(
            """WITH RECURSIVE n(i) AS (VALUES(0) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
            INSERT OR IGNORE INTO unihashes_v3 (method, taskhash, unihash, gc_mark)
            SELECT ?, printf('%064x', i), printf('%064x', i + 1000000000), '' FROM n""",
            (count, METHOD),
        )
    server.start()


def look_up(server: ServerProcess, numbers: range) -> list[str | None]:
    with hashserv.create_client(server.address) as client:
        return client.get_unihash_batch((METHOD, digest(number)) for number in numbers)


def state(server: ServerProcess) -> tuple[str, int]:
    with Peer(server.address) as peer:
        summary: dict[str, Any] = peer.ask("get-stats")["upstream"]["snapshot"]
    return summary["state"], summary["mappings"]


def asked_for(proxy: FaultyProxy) -> list[int]:
    """Return after which ids a snapshot was asked for, one for each connection."""
    return [int(after) for after in re.findall(rb'"after": ?(\d+)', bytes(proxy.asked))]


def test_a_copy_answers_while_the_upstream_is_gone(
    near: ServerProcess, filled: ServerProcess
) -> None:
    wait_for(lambda: state(near) == ("following", KNOWN))
    filled.kill()
    assert look_up(near, range(KNOWN + 5)) == [*map(unihash, range(KNOWN)), *[None] * 5]
    with hashserv.create_client(near.address) as client:
        assert client.backfill_wait() in range(KNOWN + 1)
        assert client.get_stats()["upstream"]["backfilled"] == KNOWN
    wait_for(lambda: state(near) == ("waiting", KNOWN))
    wait_for(lambda: "is not followed:" in near.log_text())


def test_single_look_ups_are_stored_first(
    near: ServerProcess, filled: ServerProcess, start_server: StartServer
) -> None:
    wait_for(lambda: state(near) == ("following", KNOWN))
    filled.kill()
    with hashserv.create_client(near.address) as client:
        found = client.get_taskhash(METHOD, digest(7))
        assert found is not None
        assert found["unihash"] == unihash(7)
        assert client.get_taskhash(METHOD, digest(KNOWN)) is None
    near.kill()
    assert look_up(start_server(database=near.database), range(6, 9)) == [None, unihash(7), None]


def test_what_is_known_here_counts(near: ServerProcess) -> None:
    with Peer(near.address) as peer:
        peer.ask("report-equiv", {"method": METHOD, "taskhash": digest(1), "unihash": digest(5)})
    wait_for(lambda: state(near) == ("following", KNOWN))
    assert look_up(near, range(3)) == [unihash(0), digest(5), unihash(2)]


def test_what_is_copied_is_not_asked_for(near: ServerProcess, proxy: FaultyProxy) -> None:
    wait_for(lambda: state(near) == ("following", KNOWN))
    assert look_up(near, range(KNOWN + 5)) == [*map(unihash, range(KNOWN)), *[None] * 5]
    assert proxy.questions() == 5


def test_what_is_new_follows(near: ServerProcess, filled: ServerProcess) -> None:
    wait_for(lambda: state(near) == ("following", KNOWN))
    with Peer(filled.address) as peer:
        for number in range(KNOWN, KNOWN + 300):
            peer.report(digest(number), digest(10**6 + number), unihash(number))
    wait_for(lambda: state(near) == ("following", KNOWN + 300))
    filled.kill()
    assert look_up(near, range(KNOWN + 300)) == list(map(unihash, range(KNOWN + 300)))


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_server_goes_on_where_it_was(
    near: ServerProcess, filled: ServerProcess, proxy: FaultyProxy, end: str
) -> None:
    wait_for(lambda: state(near) == ("following", KNOWN))
    getattr(near, end)()
    with Peer(filled.address) as peer:
        peer.report(digest(KNOWN), digest(1), unihash(KNOWN))
    near.start()
    wait_for(lambda: state(near) == ("following", KNOWN + 1))
    assert asked_for(proxy) == [0, KNOWN]
    filled.kill()
    assert look_up(near, range(KNOWN + 1)) == list(map(unihash, range(KNOWN + 1)))


def test_a_copy_that_is_cut_goes_on_where_it_was(
    start_server: StartServer, filled: ServerProcess, faulty_proxy: MakeProxy, path: Path
) -> None:
    insert(filled, MANY)
    proxy = faulty_proxy(filled.address, Fault(reset_after=3_000_000))  # of some 7,000,000 bytes
    near = start_server("--upstream", proxy.address, "--upstream-snapshot", str(path))
    wait_for(lambda: len(asked_for(proxy)) >= 2)
    proxy.set(NO_FAULT)
    wait_for(lambda: state(near) == ("following", MANY))
    first, second = asked_for(proxy)[:2]
    assert first == 0
    assert 20_000 < second < MANY
    filled.kill()
    assert look_up(near, range(MANY)) == list(map(unihash, range(MANY)))


def test_a_server_that_is_killed_while_it_copies_goes_on(
    start_server: StartServer, filled: ServerProcess, faulty_proxy: MakeProxy, path: Path
) -> None:
    insert(filled, MANY)
    proxy = faulty_proxy(filled.address, Fault(bandwidth=1_500_000))
    near = start_server("--upstream", proxy.address, "--upstream-snapshot", str(path))
    wait_for(lambda: state(near)[1] > 10_000)
    near.kill()
    proxy.set(NO_FAULT)
    near.start()
    wait_for(lambda: state(near) == ("following", MANY))
    assert asked_for(proxy)[0] == 0
    assert 10_000 < asked_for(proxy)[1] < MANY
    filled.kill()
    assert look_up(near, range(MANY)) == list(map(unihash, range(MANY)))


def test_a_server_stops_while_it_copies(
    start_server: StartServer, filled: ServerProcess, faulty_proxy: MakeProxy, path: Path
) -> None:
    insert(filled, MANY)
    proxy = faulty_proxy(filled.address, Fault(bandwidth=1_500_000))
    near = start_server("--upstream", proxy.address, "--upstream-snapshot", str(path))
    wait_for(lambda: state(near)[0] == "copying")
    assert near.stop() == 0
    assert "rror" not in near.log_text()


def test_another_database_there_begins_the_copy_anew(
    near: ServerProcess, filled: ServerProcess, start_server: StartServer
) -> None:
    wait_for(lambda: state(near) == ("following", KNOWN))
    filled.stop()
    other = start_server(bind=filled.address)
    with Peer(other.address) as peer:
        for number in range(KNOWN + 1):
            peer.report(digest(10**7 + number), digest(number), digest(5))
    wait_for(lambda: "its snapshot is begun anew" in near.log_text())
    wait_for(lambda: state(near) == ("following", KNOWN + 1))
    other.kill()
    assert look_up(near, range(2)) == [None, None]
    assert look_up(near, range(10**7, 10**7 + 2)) == [digest(5)] * 2


def test_an_upstream_that_wants_a_login(start_server: StartServer, path: Path) -> None:
    far = start_server(
        *("--anon-perms", "@none", "--admin-user", ADMIN, "--admin-password", PASSWORD),
        bind="127.0.0.1:0",
    )
    with Peer(far.address) as peer:
        assert peer.ask("auth", {"username": ADMIN, "token": PASSWORD})["result"]
        peer.report(digest(1), digest(2), digest(3))
        token = peer.ask("new-user", {"username": "mirror", "permissions": ["@read"]})["token"]
    flags = ["--upstream", far.address, "--upstream-snapshot", str(path)]
    without = start_server(*flags)
    wait_for(lambda: "is not followed: it demands a login" in without.log_text())
    assert state(without) == ("waiting", 0)
    without.stop()
    login = {"HASHSERVER_UPSTREAM_USERNAME": "mirror", "HASHSERVER_UPSTREAM_TOKEN": token}
    near = start_server(*flags, environment=login)
    wait_for(lambda: state(near) == ("following", 1))
    far.kill()
    assert look_up(near, range(1, 2)) == [digest(3)]
    assert token not in near.log_text()


def test_a_chain(start_server: StartServer, near: ServerProcess, tmp_path: Path) -> None:
    """What the middle one only has as a copy is not handed on, but asked for."""
    wait_for(lambda: state(near) == ("following", KNOWN))
    nearest = start_server("--upstream", near.address, "--upstream-snapshot", str(tmp_path / "b"))
    wait_for(lambda: state(nearest) == ("following", 0))
    assert look_up(nearest, range(KNOWN)) == list(map(unihash, range(KNOWN)))
    wait_for(lambda: state(nearest) == ("following", KNOWN))


@pytest.mark.parametrize("problem", ["foreign file", "no upstream"])
def test_a_server_that_can_not_have_a_snapshot_does_not_start(
    start_server: StartServer, path: Path, problem: str
) -> None:
    path.write_text("precious")
    flags = ["--upstream-snapshot", str(path)]
    if problem == "foreign file":
        flags += ["--upstream", "127.0.0.1:1"]
    words = {"foreign file": "some other program's file", "no upstream": "but no upstream"}
    with pytest.raises(AssertionError, match=words[problem]):
        start_server(*flags)
    assert path.read_text() == "precious"


# What may come from an upstream, in this process.


@contextlib.asynccontextmanager
async def copying(address: str, path: Path) -> AsyncIterator[RemoteUpstream]:
    async with asking(address, snapshot=str(path)) as upstream:
        yield upstream


def state_of(upstream: RemoteUpstream) -> str:
    return upstream.summary().snapshot.state


def test_an_upstream_without_snapshots(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def check(address: str) -> None:
        async with copying(address, path) as upstream:
            await until(lambda: state_of(upstream) == "unsupported")
            assert await upstream.lookup(keys(1)) == [None]
            assert not upstream.has_copies

    with scripted(good) as address:
        run(check(address))
    (line,) = logged(caplog)
    assert "has no snapshots to copy" in line


def test_without_a_file_there_is_no_snapshot(filled: ServerProcess) -> None:
    async def check() -> None:
        async with asking(filled.address) as upstream:
            assert state_of(upstream) == "off"
            assert upstream.copied(keys(1, 2)) == [None, None]

    run(check())


def row(number: int) -> bytes:
    return bytes([number]) * ROW_BYTES


def line(number: int, rows: bytes | None = None) -> bytes:
    key = (f"{number:02x}" * KEY_BYTES).encode()
    return b"%d %s %s\n" % (number, key, b64encode(row(number) if rows is None else rows))


def streaming(sent: bytes) -> Callable[[bytes], bytes | None]:
    """A server that sends this as a snapshot, and then no more."""

    def script(received: bytes) -> bytes | None:
        if received.startswith(b'{"snapshot-stream"'):
            return b'"ok"\n' + sent
        if received == b"\n":
            return b"extensions: other snapshot\n\n"
        return good(received)

    return script


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"garbage\n", "is no line of a snapshot"),
        (b"\xff\xfe\n", "is no UTF-8"),
        (line(2) + line(1), "ids that go backwards"),
        (line(2) + b"reset\n", "is no line of a snapshot"),
        (line(2) + b"ok\n", "is no line of a snapshot"),
        (line(2, b"x" * 49), "of a wrong length"),
        (line(2)[:-2] + b"!\n", "wrong base64"),
        (b"x" * 300_000, "a line is longer than 262144 bytes"),
        (b'{"invoke-error": {"message": "try later"}}\n', "refuses a question: try later"),
    ],
)
def test_nonsense_is_told_and_tried_again(
    sent: bytes, words: str, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setattr(snapshot, "FIRST_PAUSE", 0.01)

    async def check(address: str) -> None:
        async with copying(address, path) as upstream:
            await until(lambda: len(logged(caplog, 20)) > 4)  # it goes on trying
            assert state_of(upstream) in ("waiting", "copying")
            assert await upstream.lookup(keys(1)) == [None]

    caplog.set_level("INFO")
    with scripted(streaming(sent)) as address:
        run(check(address))
    assert words in logged(caplog)[0]
    assert len(logged(caplog)) <= 2  # what goes on is no news


def test_what_came_before_nonsense_is_kept(path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(snapshot, "FIRST_PAUSE", 0.01)

    async def check(address: str) -> None:
        async with copying(address, path) as upstream:
            await until(lambda: upstream.summary().snapshot.mappings == 2)

    with scripted(streaming(line(1) + line(2) + b"garbage\n")) as address:
        run(check(address))


def test_silence_is_told(path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    monkeypatch.setattr(snapshot, "SILENCE_SECONDS", 0.1)

    async def check(address: str) -> None:
        async with copying(address, path):
            await until(lambda: logged(caplog))

    with scripted(streaming(line(1))) as address:
        run(check(address))
    assert "time-out: no answer within 0.1 s" in logged(caplog)[0]


def test_a_damaged_file_is_begun_anew_while_it_is_used(
    filled: ServerProcess, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def copy() -> None:
        async with copying(filled.address, path) as upstream:
            await until(lambda: state_of(upstream) == "following")

    async def check() -> None:
        async with copying(filled.address, path) as upstream:
            assert upstream.copied(keys(*range(100))) == [None] * 100
            await until(lambda: upstream.copied(keys(1)) == [unihash(1)])
            await until(lambda: upstream.summary().snapshot.mappings == KNOWN)

    run(copy())
    whole = bytearray(path.read_bytes())
    whole[3 * PAGE_BYTES :] = b"\xee" * (len(whole) - 3 * PAGE_BYTES)  # leaves of the rows
    path.write_bytes(whole)
    run(check())
    assert "is damaged" in caplog.text
