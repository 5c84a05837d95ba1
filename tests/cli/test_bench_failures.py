"""``hashserv bench`` where something is wrong: replies, connections, arguments."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.benches import COMMAND, QUICK, bench, fake_server, measured
from tests.peers import Peer
from tests.servers import ServerProcess, wait_for

LONG = (*QUICK, "--duration", "60")
"""Arguments of a run that something ends long before its time."""


def echo(report: dict[str, str], **other: str) -> bytes:
    """Return the reply to a report, spelt as no server of ours does."""
    mapping = {key: report[key] for key in ("unihash", "method", "taskhash")}
    return json.dumps({**mapping, **other}, indent=None, separators=(" , ", " : ")).encode()


def test_wrong_replies() -> None:
    """Every third look-up is answered with another task's unihash."""
    asked = 0

    def answer(_: bytes) -> bytes:
        nonlocal asked
        asked += 1
        return b"" if asked % 3 else b"f" * 64

    with fake_server(answer) as address:
        ended = bench(address, "misses", *QUICK, "--clients", "1", "--depth", "6", "--json", code=1)
    load = measured(ended)["misses"]
    assert load["wrong"] == load["requests"] // 3 > 0
    assert load["missing"] == 0
    assert f"answered '{'f' * 64}', expected ''" in load["first_wrong"]
    assert f"ERROR: misses: {load['wrong']:,} wrong replies, the first: asked " in ended.stderr


def storing(reply: Callable[[dict[str, str], int], bytes]) -> Callable[[bytes], bytes]:
    """Return what a server answers that stores reports, and replies to them as it is told.

    Args:
        reply: Takes a report, and how many are stored with it.
    """
    stored: dict[bytes, bytes] = {}

    def answer(line: bytes) -> bytes:
        if not line.startswith(b"{"):
            return stored[line.split()[1]]
        report = json.loads(line)["report"]
        stored[report["taskhash"].encode()] = report["unihash"].encode()
        return reply(report, len(stored))

    return answer


def test_a_lie_about_a_report() -> None:
    """The reply is well-formed, but of another unihash, once tasks are prepared."""

    def lie(report: dict[str, str], stored: int) -> bytes:
        return echo(report, **({} if stored <= 21 else {"unihash": "f" * 64}))

    with fake_server(storing(lie)) as address:
        ended = bench(address, "reports", *QUICK, "--json", code=1)
    load = measured(ended)["reports"]
    assert load["wrong"] == load["requests"] > 0


def test_a_lie_while_tasks_are_prepared() -> None:
    def lie(report: dict[str, str], stored: int) -> bytes:
        return b"null" if stored > 1 else echo(report)

    with fake_server(storing(lie)) as address:
        ended = bench(address, "hits", *QUICK, code=1)
    assert "ERROR: 20 replies were wrong while tasks were prepared; asked " in ended.stderr
    assert "answered 'null'" in ended.stderr


def test_more_replies_than_requests() -> None:
    with fake_server(lambda _: b"\n") as address:
        ended = bench(address, "misses", *LONG, code=1)
    assert "there are more replies than requests" in ended.stderr


def test_a_refusal_in_the_middle() -> None:
    refusal = b'{"invoke-error": {"message": "The database is full"}}'
    asked = 0

    def answer(_: bytes) -> bytes:
        nonlocal asked
        asked += 1
        return b"" if asked < 10 else refusal

    with fake_server(answer) as address:
        ended = bench(address, "misses", *LONG, "--json", code=1)
        assert f"ERROR: {address} refused: The database is full" in ended.stderr
    assert measured(ended)["misses"]["requests"] >= 9


def test_a_connection_that_is_dropped() -> None:
    asked = 0

    def answer(_: bytes) -> bytes | None:
        nonlocal asked
        asked += 1
        return b"" if asked < 100 else None

    with fake_server(answer) as address:
        one = (*LONG, "--clients", "1", "--depth", "8")
        ended = bench(address, "misses", *one, "--json", code=1)
        assert f"ERROR: No answer from {address}: Connection " in ended.stderr
    load = measured(ended)["misses"]
    assert 0 < load["requests"] < 100  # a reset may take the last replies along
    assert load["missing"] == 8
    assert "ERROR: misses: 8 replies are missing" in ended.stderr


def test_a_server_that_dies(server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "plot.svg"
    command = [*COMMAND, server.address, "hits", "--duration", "60", "--json", "--plot", str(file)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with Peer(server.address) as peer:  # past the preparation, which has 20,000 requests
        wait_for(lambda: peer.ask("get-stats")["requests"]["num"] > 30_000)
    server.kill()
    out, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert f"ERROR: No answer from {server.address}" in err
    found = json.loads(out)
    (load,) = found["loads"]
    assert load["requests"] > 0
    assert load["missing"] > 0
    assert len(found["failures"]) == 1
    assert file.exists()


@pytest.mark.parametrize("address", ["unix:///no/such/hashserve.sock", "127.0.0.1:1"])
def test_no_server(address: str) -> None:
    ended = bench(address, *QUICK, "--clean", code=1)
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"ERROR: No answer from {address}: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: ADDRESS"),
        (["nonsense"], "is no address"),
        (["localhost:1", "nonsense"], "'nonsense' is none of hits, misses"),
        (["localhost:1", "--clients", "1", "hits"], "hits (what is no option stands before"),
        (["localhost:1", "--clients", "0"], "0 is not between 1 and 10,000"),
        (["localhost:1", "--depth", "99999"], "is not between"),
        (["localhost:1", "--depth", "many"], "invalid"),
        (["localhost:1", "--clients", "1000", "--depth", "10000"], "requests in flight"),
        (["localhost:1", "--duration", "0"], "is not between"),
        (["localhost:1", "--duration", "nan"], "is not between"),
        (["localhost:1", "--tasks", "0"], "is not between"),
        (["localhost:1", "--build-tasks", "4"], "is not between"),
        (["localhost:1", "--run", "a b"], "'a b' is no name of a run"),
        (["localhost:1", "--run", "*"], "is no name of a run"),
        (["localhost:1", "--login", "anna"], "--login needs the user's token"),
        (["localhost:1", "--plot", "/no/such/plot.svg"], "can't be written"),
    ],
)
def test_arguments_that_make_no_sense(arguments: list[str], words: str) -> None:
    ended = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: hashserv bench ")
    assert words in ended.stderr


def test_without_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from hashserv.cli.main import main\n"
        f"main(['bench', 'localhost:1', '--plot', {str(tmp_path / 'plot.svg')!r}])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "pip install 'hashserv[plot]'" in ended.stderr
