"""``bitbake-hashclient`` and arguments that no server can be asked for."""

import os
import subprocess
import sys

import pytest

from tests.certificates import Certificates
from tests.cli.test_bitbake_hashclient import run
from tests.conftest import StartServer
from tests.peers import Peer, digest
from tests.servers import ServerProcess


@pytest.mark.parametrize("unihash", ["a b", "", "a\nEND", " ", "é\u2028", "END"])
def test_a_unihash_that_is_none(server: ServerProcess, unihash: str) -> None:
    ended = run(server, "unihash-exists", unihash, code=1)
    assert_says_so(ended.stdout + ended.stderr)


@pytest.mark.parametrize("lines", ["unihash\n", "unihash a method\n", "typo x\n"])
def test_lines_to_mark_that_are_none(server: ServerProcess, lines: str) -> None:
    ended = run(server, "gc-mark-stream", "m", stdin=lines, code=1)
    assert_says_so(ended.stdout + ended.stderr)


def test_a_line_to_mark_that_is_none_after_good_ones(server: ServerProcess) -> None:
    with Peer(server.address) as peer:
        peer.report(digest(1), digest(10), digest(100))
    good = f"unihash {digest(100)}\n"
    ended = run(server, "gc-mark-stream", "m", stdin=good * 3 + "unihash\n" + good, code=1)
    assert_says_so(ended.stdout + ended.stderr)


def test_a_reader_that_is_gone_is_not_the_servers_fault(server: ServerProcess) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "hashserv.cli.bitbake_hashclient"]
    with os.fdopen(writing, "wb") as pipe:
        ended = subprocess.run(
            [*command, "--address", server.address, "stats"],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (ended.returncode, ended.stderr) == (1, "")


def test_a_certificate_that_is_not_trusted_is_told_once(
    start_server: StartServer, certificates: Certificates
) -> None:
    server = start_server("--tls-cert", certificates.server(), bind="tls://localhost:0")
    ended = run(server, "ping", code=1)
    assert_says_so(ended.stderr)
    assert "HASHSERV_TLS_CA" in ended.stderr


def assert_says_so(text: str) -> None:
    assert text.startswith("ERROR: ")
    assert "Traceback" not in text
    assert "Is a server running" not in text, "the fault is not the server's"
    assert text.count("\n") == 1
