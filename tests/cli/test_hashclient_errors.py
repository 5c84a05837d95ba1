"""``bitbake-hashclient`` and arguments that no server can be asked for."""

import pytest

from tests.cli.test_bitbake_hashclient import run
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


def assert_says_so(text: str) -> None:
    assert text.startswith("ERROR: ")
    assert "Traceback" not in text
    assert "Is a server running" not in text, "the fault is not the server's"
    assert text.count("\n") == 1
