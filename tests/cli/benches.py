"""Run ``hashserv bench`` as its users do, and a server that does it wrong."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.servers import ServerProcess

QUICK: Final = ("--duration", "0.2", "--clients", "3", "--tasks", "20", "--build-tasks", "50")
"""Arguments of a run that is over at once."""

COMMAND: Final = (sys.executable, "-m", "hashserv.cli.main", "bench")


def bench(
    server: ServerProcess | str, *arguments: str, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run it, and check its exit code."""
    address = server if isinstance(server, str) else server.address
    ended = subprocess.run(
        [*COMMAND, address, *arguments], capture_output=True, text=True, timeout=90
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended


def measured(ended: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """Return what JSON has of each load."""
    return {load["name"]: load for load in json.loads(ended.stdout)["loads"]}


Answer = Callable[[bytes], bytes | None]
"""Gives the reply to a line, or `None` where the server is to close."""


@contextlib.contextmanager
def fake_server(answer: Answer) -> Iterator[str]:
    """Serve whoever comes, line by line, with replies that a test makes; yield the address.

    The handshake and changes of the mode are done as they should be.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=_serve, args=(connection, answer), daemon=True))
            threads[-1].start()

    threads.append(threading.Thread(target=accept, daemon=True))
    threads[0].start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for thread in threads:
            thread.join()


def _serve(connection: socket.socket, answer: Answer) -> None:
    with connection, connection.makefile("rb") as lines, contextlib.suppress(OSError):
        while lines.readline().strip():
            pass  # the handshake
        for line in map(bytes.strip, lines):
            reply: bytes | None = b"ok"
            if line.endswith(b'-stream": null}'):
                reply = b'"ok"'
            elif line != b"END":
                reply = answer(line)
            if reply is None:
                return
            connection.sendall(reply + b"\n")
