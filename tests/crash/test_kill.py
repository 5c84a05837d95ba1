"""What was acknowledged survives ``kill -9``, and no taskhash ever changes its unihash."""

import json
import random
import socket
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from tests.conftest import StartServer
from tests.equivalence.soak import TIMES
from tests.servers import ServerProcess

ROUNDS = 20 * TIMES
CLIENTS = 32
METHOD = "crash.method"

# Few enough hashes that clients report the same taskhash, and the same outhash, at once.
TASKHASHES = [f"taskhash-{number}" for number in range(3000)]
OUTHASHES = [f"outhash-{number}" for number in range(900)]


class Acknowledged:
    """What the server has promised, over all rounds."""

    def __init__(self) -> None:
        self.rows: set[tuple[str, str]] = set()
        self.unihashes: dict[str, str] = {}
        self.changed: list[tuple[str, str, str]] = []
        self.count = 0
        self._lock = threading.Lock()
        self._enough = threading.Event()
        self._until = 0

    def await_more(self, number: int) -> threading.Event:
        """Return an event that is set after so many more acknowledgements."""
        with self._lock:
            self._until = self.count + number
            self._enough = threading.Event()
            return self._enough

    def add(self, taskhash: str, outhash: str, unihash: str) -> None:
        with self._lock:
            self.rows.add((taskhash, outhash))
            self.hold(taskhash, unihash)
            self.count += 1
            if self.count >= self._until:
                self._enough.set()

    def hold(self, taskhash: str, unihash: str) -> None:
        """Take note of a unihash that was seen; it must be what it was before."""
        before = self.unihashes.setdefault(taskhash, unihash)
        if before != unihash:
            self.changed.append((taskhash, before, unihash))


class Peer:
    """A plain connection."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(address.removeprefix("unix://"))
        self._replies = self._socket.makefile("rb")
        self._socket.sendall(b"OEHASHEQUIV 1.1\n\n")

    def ask(self, lines: list[bytes]) -> list[bytes]:
        """Send lines at once; fewer lines come back where the server died."""
        try:
            self._socket.sendall(b"".join(line + b"\n" for line in lines))
            replies = [self._replies.readline() for _ in lines]
        except OSError:
            return []
        return [reply.rstrip() for reply in replies if reply.endswith(b"\n")]

    def close(self) -> None:
        self._replies.close()
        self._socket.close()


def report_until_it_dies(peer: Peer, seed: int, acknowledged: Acknowledged) -> None:
    """Report, in lock-step or a few at once, until the server is gone."""
    chance = random.Random(seed)
    complete = True
    while complete:
        reports = [
            {
                "method": METHOD,
                "taskhash": chance.choice(TASKHASHES),
                "outhash": chance.choice(OUTHASHES),
                "unihash": f"{chance.getrandbits(256):064x}",
            }
            for _ in range(chance.choice([1, 1, 1, 4, 16]))
        ]
        replies = peer.ask([json.dumps({"report": report}).encode() for report in reports])
        for report, reply in zip(reports, replies, strict=False):
            answer = json.loads(reply)
            assert answer["taskhash"] == report["taskhash"]
            acknowledged.add(report["taskhash"], report["outhash"], answer["unihash"])
        complete = len(replies) == len(reports)
    peer.close()


class Client(threading.Thread):
    """A client in a thread, whose failure fails the test."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self._work = work
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - raised again by who joins
            self.error = error

    def finish(self) -> None:
        self.join()
        if self.error is not None:
            raise self.error


def one_round(server: ServerProcess, chance: random.Random, acknowledged: Acknowledged) -> None:
    """Let clients report, and kill the server in the middle of it."""
    enough = acknowledged.await_more(chance.randrange(1, 1000))
    clients = []
    for _ in range(CLIENTS):
        peer, seed = Peer(server.address), chance.getrandbits(64)
        clients.append(
            Client(lambda peer=peer, seed=seed: report_until_it_dies(peer, seed, acknowledged))  # type: ignore[misc]
        )
    for client in clients:
        client.start()
    in_time = enough.wait(60)
    server.kill()
    for client in clients:
        client.finish()
    assert in_time, server.log_text()


def check_database(file: Path, acknowledged: Acknowledged) -> None:
    """Look for all that was promised in the file, and take note of what else is there."""
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    rows = set(connection.execute("SELECT taskhash, outhash FROM outhashes_v2"))
    mappings = dict(connection.execute("SELECT taskhash, unihash FROM unihashes_v3"))
    ((state,),) = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    assert state == "ok"
    assert acknowledged.rows <= rows
    assert acknowledged.unihashes.keys() <= mappings.keys()
    assert {taskhash for taskhash, _ in rows} == mappings.keys(), "both or none of a report"
    for taskhash, unihash in mappings.items():
        acknowledged.hold(taskhash, unihash)


def check_server(server: ServerProcess, acknowledged: Acknowledged) -> None:
    """Ask the server for all mappings that were promised or found."""
    peer = Peer(server.address)
    taskhashes = list(acknowledged.unihashes)
    lines = [f"{METHOD} {taskhash}".encode() for taskhash in taskhashes]
    assert peer.ask([b'{"get-stream": null}']) == [b'"ok"']
    assert [reply.decode() for reply in peer.ask(lines)] == list(acknowledged.unihashes.values())
    assert peer.ask([b"END"]) == [b"ok"]
    peer.close()


def test_what_was_acknowledged_survives_kill(start_server: StartServer) -> None:
    chance = random.Random(2026)
    acknowledged = Acknowledged()
    server = start_server()
    for _ in range(ROUNDS):
        one_round(server, chance, acknowledged)
        server.start()
        check_database(server.database, acknowledged)
        check_server(server, acknowledged)
        assert acknowledged.changed == []
    assert acknowledged.count >= ROUNDS
    assert "Traceback" not in server.log_text()
