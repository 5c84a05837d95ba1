"""``bitbake-hashclient``, run as its users do (INTERFACES.md §3)."""

import json
import re
import subprocess
import sys
from hashlib import sha256

import pytest

from tests.peers import METHOD, Peer, digest
from tests.servers import ServerProcess


def run(
    server: ServerProcess | str, *arguments: str, stdin: str = "", code: int = 0
) -> subprocess.CompletedProcess[str]:
    address = server if isinstance(server, str) else server.address
    ended = subprocess.run(
        [sys.executable, "-m", "hashserv.cli.bitbake_hashclient", "--address", address, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == code, ended.stderr
    return ended


@pytest.fixture
def filled(server: ServerProcess) -> ServerProcess:
    """A server that knows two equivalent tasks and one more."""
    with Peer(server.address) as peer:
        peer.report(digest(1), digest(10), digest(100), PN="zlib", outhash_siginfo="é\n")
        peer.report(digest(2), digest(10), digest(200), PN="busybox")
        peer.report(digest(3), digest(30), digest(300))
    return server


def test_get_prints_all_there_is_as_json(filled: ServerProcess) -> None:
    text = run(filled, "get", METHOD, digest(2)).stdout
    found = json.loads(text)
    assert found["unihash"] == digest(100)
    assert found["PN"] == "busybox"
    assert text == json.dumps(found, sort_keys=True, indent=4) + "\n"
    assert run(filled, "get", METHOD, digest(9)).stdout == ""


def test_get_outhash(filled: ServerProcess) -> None:
    found = json.loads(run(filled, "get-outhash", METHOD, digest(10), digest(9)).stdout)
    assert (found["taskhash"], found["unihash"]) == (digest(1), digest(100))
    assert run(filled, "get-outhash", METHOD, digest(11), digest(9)).stdout == ""


def test_unihash_exists(filled: ServerProcess) -> None:
    assert run(filled, "unihash-exists", digest(100)).stdout == "true\n"
    assert run(filled, "unihash-exists", digest(200)).stdout == "false\n"
    assert run(filled, "unihash-exists", "--quiet", digest(100)).stdout == ""
    assert run(filled, "unihash-exists", "--quiet", digest(200), code=1).stdout == ""


def test_stats(filled: ServerProcess) -> None:
    assert json.loads(run(filled, "stats").stdout)["requests"]["num"] == 3
    assert json.loads(run(filled, "stats", "--reset").stdout)["requests"]["num"] == 4
    assert json.loads(run(filled, "stats").stdout)["requests"]["num"] == 1


def test_remove_and_clean_up(filled: ServerProcess) -> None:
    assert run(filled, "remove", "-w", "taskhash", digest(1)).stdout == "Removed 2 row(s)\n"
    where = ["--where", "method", METHOD, "--where", "unihash", digest(300)]
    assert run(filled, "remove", *where).stdout == "Removed 1 row(s)\n"
    assert run(filled, "clean-unused", "3600").stdout == "Removed 0 rows\n"
    assert run(filled, "clean-unused", "0").stdout == "Removed 1 rows\n"


def test_an_error_of_the_server(filled: ServerProcess) -> None:
    ended = run(filled, "remove", "-w", "typo", "x", code=1)
    assert ended.stdout.startswith("ERROR: Unknown column typo")
    assert ended.stderr == ""


def test_a_collection(filled: ServerProcess) -> None:
    assert run(filled, "gc-status").stdout == "No Garbage collection in progress\n"
    assert run(filled, "gc-mark", "one", "-w", "unihash", digest(300)).stdout == (
        "New hashes marked: 1\n"
    )
    lines = f"unihash {digest(100)}\n\nunihash {digest(5)} method {METHOD}\n"
    assert run(filled, "gc-mark-stream", "one", stdin=lines).stdout == "New hashes marked: 2\n"
    assert run(filled, "gc-status").stdout == (
        "Current Mark: one\nTotal hashes to keep: 3\nTotal hashes to remove: 0\n"
    )
    with Peer(filled.address) as peer:  # builds that report meanwhile lose nothing
        peer.report(digest(4), digest(40), digest(400))
    assert run(filled, "gc-sweep", "other", code=1).stdout.startswith("ERROR: 'other' is not")
    assert run(filled, "gc-sweep", "one").stdout == "Removed 0 rows\n"
    run(filled, "gc-mark", "two", "-w", "unihash", digest(400))
    assert run(filled, "gc-sweep", "two").stdout == "Removed 3 rows\n"


def test_tables(filled: ServerProcess) -> None:
    usage = run(filled, "get-db-usage").stdout
    assert re.search(r"^unihashes_v3 +\| 3$", usage, re.MULTILINE)
    assert usage.endswith("Total rows: 6\n")
    columns = run(filled, "get-db-query-columns").stdout.split()
    assert columns == sorted(columns)
    assert {"unihash", "outhash", "PN", "gc_mark"} <= set(columns)


def test_ping(server: ServerProcess) -> None:
    lines = run(server, "ping", "-n", "3").stdout.splitlines()
    assert len(lines) == 3 + 6
    assert lines[3] == "Number of pings: 3"
    assert [line.partition(":")[0] for line in lines[-2:]] == ["Min time is", "Max time is"]
    assert len(run(server, "ping", "--quiet").stdout.splitlines()) == 6


def test_stress(server: ServerProcess) -> None:
    arguments = ["stress", "--clients", "2", "--requests", "20"]
    ended = run(server, *arguments, "--report", "--taskhash-seed", "s")
    assert ended.stderr == ""  # no bar in a pipe
    found = dict(line.split(": ") for line in ended.stdout.splitlines())
    assert len(found) == 12
    assert found["Number of clients"] == "2"
    assert found["Number of requests"] == "40"
    assert int(found["Hashes missed"]) >= 20
    again = run(server, *arguments, "--taskhash-seed", "s").stdout
    assert "Hashes found: 40\n" in again
    with Peer(server.address) as peer:
        answer = peer.ask(
            "get", {"method": "stress.test.method", "taskhash": sha256(b"s7").hexdigest()}
        )
        assert answer is not None


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("unix:///no/such/hashserve.sock", "Is a server running there?"),
        ("localhost:1", "Is a server running there?"),
        ("nonsense", "is no address"),
    ],
)
def test_no_server(address: str, words: str) -> None:
    ended = run(address, "ping", code=1)
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["ping", "-n", "0"], ["get", "m"]])
def test_wrong_usage(server: ServerProcess, arguments: list[str]) -> None:
    assert "usage:" in run(server, *arguments, code=2).stderr
