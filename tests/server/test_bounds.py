"""How much one peer may hold, how long, and how much of what it says gets into the log."""

import asyncio
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hashserv.server.app import OWN_FILES, Server
from hashserv.server.session import Session
from hashserv.server.settings import Limits, Settings
from tests.conftest import StartServer
from tests.peers import HELLO, METHOD, Peer, dial, digest
from tests.servers import ServerProcess, wait_for

TOO_MANY = "Too many connections"


def open_files(server: ServerProcess) -> int:
    """Return how many files and sockets a server has open."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


# Replies that nobody reads.

GET_OUTHASH = {"get-outhash": {"method": METHOD, "outhash": digest(10), "taskhash": digest(1)}}
LARGE_REPLY = json.dumps(GET_OUTHASH).encode() + b"\n"

LEFT_UNREAD = {
    "they end": (b"", True),
    "they are refused": (b"not json\n", False),
    "they are refused and end": (b"not json\n", True),
    "they are refused in the middle of more": (b'not json\n{"pi', False),
    "they break the protocol": (b'{"get-stream": null}\none two three\n', False),
}


@pytest.mark.parametrize("name", LEFT_UNREAD)
def test_peers_that_leave_replies_unread_are_closed(start_server: StartServer, name: str) -> None:
    last, ends = LEFT_UNREAD[name]
    server = start_server("--write-timeout", "0.5")
    with contextlib.ExitStack() as stack:
        good = stack.enter_context(Peer(server.address))
        good.report(digest(1), digest(10), digest(100), outhash_siginfo="x" * 200_000)
        before = open_files(server)
        peers = [stack.enter_context(Peer(server.address)) for _ in range(6)]
        for number, peer in enumerate(peers):
            peer.send(LARGE_REPLY * number + last)
            if ends:
                peer.socket.shutdown(1)
        assert good.ask("ping") == {"alive": True}
        wait_for(lambda: open_files(server) == before, seconds=15)
        assert good.ask("ping") == {"alive": True}


def test_replies_that_are_read_late_are_whole(start_server: StartServer) -> None:
    server = start_server()
    with Peer(server.address) as peer:
        peer.report(digest(1), digest(10), digest(100), outhash_siginfo="x" * 200_000)
        peer.send(LARGE_REPLY * 5 + b"not json\n")
        peer.socket.shutdown(1)
        received = b""
        while data := peer.socket.recv(65536):
            received += data
    assert received.count(b"x" * 1000) >= 5 * 190
    assert received.count(b'"invoke-error"') == 1
    assert received.endswith(b"}}\n")


# Messages that are not finished.


@pytest.mark.parametrize(
    "begun", [b'{"ping": ', b'{"chunk-stream": null}\n', b'{"chunk-stream": null}\n{"pi\n']
)
def test_an_unfinished_message_ends_a_connection(start_server: StartServer, begun: bytes) -> None:
    server = start_server("--message-timeout", "0.3")
    with Peer(server.address) as idle, Peer(server.address) as late, Peer(server.address) as peer:
        assert idle.ask("ping") == {"alive": True}
        late.send(b'{"pi')
        late.send(b'ng": {}}\n')
        assert late.line() == b'{"alive":true}'
        peer.send(begun)
        assert peer.closed()
        assert re.search(r"closed: .* message within 0\.3 s$", server.log_text(), re.MULTILINE)
        assert idle.ask("ping") == {"alive": True}, "who has begun nothing may be silent"
        assert late.ask("ping") == {"alive": True}, "nor is what was finished in time held against"


def test_who_is_answered_in_the_middle_of_a_message_must_still_finish_it(
    start_server: StartServer,
) -> None:
    server = start_server("--message-timeout", "0.3")
    with Peer(server.address) as peer:
        peer.send(b'{"ping": {}}\n{"ping"')
        assert peer.line() == b'{"alive":true}'
        assert peer.closed()


def test_an_unfinished_handshake_has_the_time_of_a_handshake(start_server: StartServer) -> None:
    server = start_server("--handshake-timeout", "0.3", "--message-timeout", "3600")
    with Peer(server.address, hello=b"OEHASHEQUIV 1.1\nneeds-hea") as peer:
        assert peer.closed()
        assert "did not finish its handshake within 0.3 s" in server.log_text()


def test_a_peer_that_leaves_as_the_server_stops_is_not_waited_for(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        server = Server(
            Settings(
                bind=(f"unix://{short_tmp}/s",),
                database=str(short_tmp / "db"),
                limits=Limits(shutdown_timeout=3600),
            )
        )
        await server.start()
        loop = asyncio.get_running_loop()
        stopping: asyncio.Future[asyncio.Task[None]] = loop.create_future()
        eof_received = Session.eof_received

        def stop_first(session: Session) -> bool:
            """Let the server stop in the very turn in which the connection is lost."""
            stopping.set_result(loop.create_task(server.stop()))
            return eof_received(session)

        monkeypatch.setattr(Session, "eof_received", stop_first)
        _, writer = await asyncio.open_unix_connection(f"{short_tmp}/s")
        writer.close()
        async with asyncio.timeout(10):  # or an hour
            await (await stopping)

    asyncio.run(check())


# Lines of a stream mode, up to the first that is wrong.


@pytest.mark.parametrize(
    "wrong", [{"typo": "x"}, {"method": METHOD, "typo": "x"}, {"created": "x"}]
)
def test_marks_before_an_unknown_column_count(server: ServerProcess, wrong: object) -> None:
    def line(where: object) -> bytes:
        return json.dumps({"mark": "a", "where": where}).encode() + b"\n"

    with Peer(server.address) as other, Peer(server.address) as peer:
        for number in range(5):
            other.report(digest(number), digest(10 + number), digest(100 + number))
        peer.stream("gc-mark-stream")
        good = b"".join(line({"unihash": digest(100 + number)}) for number in range(3))
        peer.send(good + line(wrong) + line({"method": METHOD}))
        assert peer.lines(3) == [b'{"count":1}'] * 3
        error = json.loads(peer.line() or b"")
        assert "Unknown column" in error["invoke-error"]["message"]
        assert peer.closed()
        assert other.ask("gc-status") == {"keep": 3, "remove": 2, "mark": "a"}


# The log.

LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) ")
LOG_LINE_CHARACTERS = 500

FORGED = "x\n2026-01-01 00:00:00,000 WARNING forged\r\x1b[31m\u2028\u0085é\x00"


def request(command: str, arguments: object) -> bytes:
    return HELLO + json.dumps({command: arguments}).encode() + b"\n"


FOR_THE_LOG = {
    "unknown columns": request("remove", {"where": {f"column{n}": "x" for n in range(5000)}}),
    "a long column": request("gc-mark", {"mark": "m", "where": {"c" * 200_000: "x"}}),
    "a forged column": request("remove", {"where": {FORGED: "x"}}),
    "a long command": request("c" * 200_000, {}),
    "a forged command": request(FORGED, {}),
    "a forged mark": request("gc-sweep", {"mark": FORGED}),
    "a long mark": request("gc-sweep", {"mark": "m" * 200_000}),
    "a forged mistyped key": request("get", {"method": "m", FORGED: 1, "taskhash": FORGED}),
    "a long line that is no JSON": HELLO + b"x" * 200_000 + b"\n",
    "control characters that are no JSON": HELLO + FORGED.encode().replace(b"\n", b"\r") + b"\n",
    "a forged protocol": FORGED.encode().replace(b"\n", b"\r") + b"\n\n",
    "a forged version": b"OEHASHEQUIV \r\x1b[31m" + b"9" * 5000 + b"\n\n",
    "a forged header": b"OEHASHEQUIV 1.1\n\x1b[31m\r" + b"h" * 5000 + b"\n\n",
    "no UTF-8": HELLO + b'{"get": {"method": "\xff\x1b", "taskhash": "t"}}\n',
    "a stream line that is none": HELLO + b'{"get-stream": null}\n' + b"\x1b[31m\r" * 3000 + b"\n",
    "a mark line that is none": HELLO
    + b'{"gc-mark-stream": null}\n'
    + json.dumps({"mark": "m", "where": {FORGED * 100: "x"}}).encode()
    + b"\n",
}


@pytest.mark.parametrize("name", FOR_THE_LOG)
def test_what_a_peer_sends_does_not_fill_or_forge_the_log(server: ServerProcess, name: str) -> None:
    before = server.log_text()
    with Peer(server.address, hello=FOR_THE_LOG[name]) as peer:
        while peer.line() is not None:
            pass
    with Peer(server.address) as good:
        assert good.ask("ping") == {"alive": True}
    added = server.log_text().removeprefix(before)
    assert added.endswith("\n")
    (line,) = added[:-1].split("\n")
    assert LOG_LINE.match(line)
    assert line.isprintable(), "nothing that a terminal would obey"
    assert len(line) <= LOG_LINE_CHARACTERS


# Connections.


def greeted(address: str) -> Peer | str:
    """Connect and return a peer that is served, or the words of its refusal."""
    peer = Peer(address)
    reply = peer.ask("ping")
    if reply == {"alive": True}:
        return peer
    assert peer.closed()
    peer.close()
    message: str = reply["invoke-error"]["message"]
    return message


def is_served(address: str) -> bool:
    """Tell whether a new peer is served; refused ones that have just left may still count."""
    try:
        with Peer(address) as peer:
            reply: object = peer.ask("ping")
    except ConnectionError:  # cut off before it spoke
        return False
    return reply == {"alive": True}


@pytest.mark.parametrize("bind", [None, "127.0.0.1:0"])
def test_connections_above_the_bound_are_refused_in_words(
    start_server: StartServer, bind: str | None
) -> None:
    server = start_server("--max-connections", "3", bind=bind)
    peers = [greeted(server.address) for _ in range(3)]
    for _ in range(5):
        refused = greeted(server.address)
        assert isinstance(refused, str)
        assert TOO_MANY in refused
    for peer in peers:
        assert isinstance(peer, Peer)
        assert peer.ask("ping") == {"alive": True}
    warnings = [line for line in server.log_text().splitlines() if "connections" in line]
    assert len(warnings) == 1, "told once, not for each"
    for peer in peers[:2]:
        assert isinstance(peer, Peer)
        peer.close()
    wait_for(lambda: is_served(server.address))
    assert isinstance(peers[2], Peer)
    assert peers[2].ask("ping") == {"alive": True}
    peers[2].close()


class FewFiles(ServerProcess):
    """A server that the system lets have few open files."""

    def start(self) -> None:
        self._command = ["sh", "-c", 'ulimit -n 96; exec "$@"', "sh", *self._command]
        super().start()


@pytest.fixture
def few_files(short_tmp: Path) -> Iterator[FewFiles]:
    server = FewFiles(short_tmp)
    yield server
    server.stop()


def test_the_limit_of_open_files_bounds_connections(few_files: FewFiles) -> None:
    found = [greeted(few_files.address) for _ in range(100)]
    served = [peer for peer in found if isinstance(peer, Peer)]
    assert 8 <= len(served) <= 96 - OWN_FILES
    assert all(TOO_MANY in words for words in found if isinstance(words, str))
    for number, peer in enumerate(served):
        assert peer.report(digest(number), digest(number), digest(number)) == digest(number)
        assert peer.ask("gc-status") is not None
    for peer in served:
        peer.close()
    wait_for(lambda: is_served(few_files.address))
    log = few_files.log_text()
    assert "Too many open files" not in log
    assert len([line for line in log.splitlines() if "connections" in line]) <= 2
    assert "Traceback" not in log


def test_refused_peers_that_stay_do_not_use_up_the_open_files(few_files: FewFiles) -> None:
    """Who is refused may take long to read that; meanwhile the server must not run dry."""
    peers = [Peer(few_files.address) for _ in range(20)]
    # They say nothing: past the last open file they are cut off, and might be while they speak.
    crowd = [dial(few_files.address) for _ in range(130)]
    assert all(peer.ask("ping") == {"alive": True} for peer in peers)
    for peer in peers:
        peer.close()
    for stranger in crowd:
        stranger.close()
    wait_for(lambda: is_served(few_files.address))
    assert "Traceback" not in few_files.log_text()
