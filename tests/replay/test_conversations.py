"""Recorded conversations of the reference's clients and servers, played to our server."""

import hashlib
import json
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import StartServer
from tests.replay import differences
from tests.replay.conftest import Tally
from tests.replay.peer import Peer
from tests.replay.player import Player
from tests.replay.recording import find, read, without
from tests.servers import ServerProcess

RECORDINGS: Final = (
    *("head-sync-unix", "head-async-tcp", "head-chunks-unix", "head-readonly-tcp"),
    *("head-hashclient-unix", "bitbake-build-single-unix", "raw-good-tcp", "raw-errors-unix"),
    *("client-2019-on-2019", "client-2019-on-2020", "client-2019-on-head"),
    *("client-2020-on-2020", "client-2020-on-head", "client-2021a-on-head"),
    *("client-2022-on-2022", "client-2022-on-head"),
)
FOUND: Final = {name: path for name in RECORDINGS if (path := find("wire", f"{name}.jsonl"))}

ACCOUNT_COMMANDS: Final = frozenset(
    {
        *("auth", "get-user", "get-all-users", "become-user", "new-user", "set-user-perms"),
        *("refresh-token", "delete-user"),
    }
)
"""Connections that send any of these are left out."""

BINDS: Final = {"unix": None, "tcp": "127.0.0.1:0"}


def test_all_but_the_large_recordings_are_part_of_the_checkout() -> None:
    in_checkout = {path.stem for path in (Path(__file__).parents[1] / "data/wire").glob("*.jsonl")}
    assert set(RECORDINGS) - in_checkout == {"head-chunks-unix"}


@pytest.mark.parametrize("transport", BINDS)
@pytest.mark.parametrize("name", FOUND)
def test_conversation(
    name: str, transport: str, start_server: StartServer, wire_tally: Tally
) -> None:
    server = start_server(bind=BINDS[transport])
    if name == "head-readonly-tcp":
        report_nine_tasks(server)
        server.stop()
        server = start_server("--read-only", bind=BINDS[transport], database=server.database)
    steps, left_out = without(read(FOUND[name]), ACCOUNT_COMMANDS)
    gc_mark = name not in differences.WITHOUT_GC_MARK
    player = Player(server.address, differences.of(name), gc_mark=gc_mark)
    played = player.play(steps)
    wire_tally.add(played, left_out=left_out)
    assert played.replies
    if played.wrong:
        pytest.fail("\n".join(played.wrong), pytrace=False)


def report_nine_tasks(server: ServerProcess) -> None:
    """Make the content that the recorded read-only server had."""

    def digest(kind: str, number: int) -> str:
        return hashlib.sha256(f"s8:{kind}:{number}".encode()).hexdigest()

    with Peer(server.address) as peer:
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
