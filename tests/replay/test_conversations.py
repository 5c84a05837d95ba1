"""Recorded conversations of the reference's clients and servers, played to our server."""

import hashlib
import json
import ssl
from pathlib import Path
from typing import Final

import pytest

from hashserv.equivalence.cache import PURE_PYTHON
from tests.certificates import Certificates
from tests.conftest import StartServer
from tests.engines import FreshDatabase
from tests.replay import differences
from tests.replay.conftest import Tally
from tests.replay.peer import dial
from tests.replay.player import Player
from tests.replay.recording import find, read
from tests.servers import ServerProcess

RECORDINGS: Final = (
    *("head-sync-unix", "head-async-tcp", "head-chunks-unix", "head-readonly-tcp"),
    *("head-sync-ws", "head-async-ws", "head-chunks-ws", "head-readonly-ws"),
    *("head-auth-unix", "head-auth-tcp-anon-read", "head-hashclient-unix"),
    *("bitbake-build-single-unix", "raw-good-tcp", "raw-errors-unix"),
    *("client-2019-on-2019", "client-2019-on-2020", "client-2019-on-head"),
    *("client-2020-on-2020", "client-2020-on-head", "client-2021a-on-head"),
    *("client-2022-on-2022", "client-2022-on-head"),
)
FOUND: Final = {name: path for name in RECORDINGS if (path := find("wire", f"{name}.jsonl"))}

LARGE: Final = frozenset({"head-chunks-unix", "head-chunks-ws"})
"""These are not part of the checkout."""

SEEDS: Final = {"head-readonly-tcp": "s8", "head-readonly-ws": "s22"}
"""What the tasks are made of that the recorded server had before."""

BINDS: Final = {
    "unix": None,
    "python": None,
    "tcp": "127.0.0.1:0",
    "ws": "ws://127.0.0.1:0/ws",
    "wss": "wss://localhost:0/ws",
}


def test_all_but_the_large_recordings_are_part_of_the_checkout() -> None:
    in_checkout = {path.stem for path in (Path(__file__).parents[1] / "data/wire").glob("*.jsonl")}
    assert {*RECORDINGS, *PAIRS} - in_checkout == LARGE


@pytest.mark.parametrize("transport", BINDS)
@pytest.mark.parametrize("name", FOUND)
def test_conversation(
    name: str,
    transport: str,
    start_server: StartServer,
    certificates: Certificates,
    wire_tally: Tally,
) -> None:
    flags, tls = server_arguments(name), None
    if transport == "wss":
        flags += ["--tls-cert", certificates.server()]
        tls = certificates.context()
    database = None
    if name in SEEDS:
        before = start_server()
        report_nine_tasks(before, SEEDS[name])
        before.stop()
        database = before.database
    # With nothing compiled, all is answered alike.
    environment = {PURE_PYTHON: "1"} if transport == "python" else None
    server = start_server(*flags, bind=BINDS[transport], database=database, environment=environment)
    play(name, server, wire_tally, tls)


@pytest.mark.parametrize("engine", ["asyncpg", "psycopg", "aiomysql"])
@pytest.mark.parametrize("name", FOUND)
def test_conversation_on_an_sql_server(
    name: str,
    engine: str,
    start_server: StartServer,
    fresh_database: FreshDatabase,
    wire_tally: Tally,
) -> None:
    database = fresh_database(engine)
    if name in SEEDS:
        before = start_server(database=database)
        report_nine_tasks(before, SEEDS[name])
        before.stop()
    play(name, start_server(*server_arguments(name), database=database), wire_tally)


def play(name: str, server: ServerProcess, tally: Tally, tls: ssl.SSLContext | None = None) -> None:
    gc_mark = name not in differences.WITHOUT_GC_MARK
    player = Player(server.address, differences.of(name), gc_mark=gc_mark, tls=tls)
    played = player.play(read(FOUND[name]))
    tally.add(played)
    assert played.replies
    if played.wrong:
        pytest.fail("\n".join(played.wrong), pytrace=False)


PAIRS: Final = {"upstream-pair-head-unix": "s17", "upstream-pair-2021-tcp": "s18"}
"""Recordings of two servers, one upstream of the other, and what the upstream's tasks are made
of."""


@pytest.mark.parametrize("name", PAIRS)
def test_pair(name: str, start_server: StartServer, wire_tally: Tally) -> None:
    path = find("wire", f"{name}.jsonl")
    assert path is not None
    upstream = start_server()
    report_nine_tasks(upstream, PAIRS[name])
    server = start_server("--upstream", upstream.address)
    player = Player(server.address, differences.of(name), downstream=True)
    played = player.play(read(path, leg="down"))
    wire_tally.add(played)
    assert played.replies
    if played.wrong:
        pytest.fail("\n".join(played.wrong), pytrace=False)


def server_arguments(name: str) -> list[str]:
    """Return what the recorded server was started with."""
    index = find("wire", "INDEX.json")
    assert index is not None
    arguments: list[str] = json.loads(index.read_text())[f"{name}.jsonl"]["server_args"]
    return arguments


def report_nine_tasks(server: ServerProcess, seed: str) -> None:
    """Make the content that the recorded read-only server had."""

    def digest(kind: str, number: int) -> str:
        return hashlib.sha256(f"{seed}:{kind}:{number}".encode()).hexdigest()

    with dial(server.address) as peer:
        for number in range(9):
            report = {
                "method": "TestMethod",
                "taskhash": digest("t", number),
                "outhash": digest("o", number),
                "unihash": digest("u", number),
                "PN": f"up{number}",
            }
            reply = peer.ask(json.dumps({"report": report}).encode())
            assert reply is not None
            assert json.loads(reply)["unihash"] == digest("u", number)
