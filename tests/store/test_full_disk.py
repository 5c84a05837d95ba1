"""A server whose file may not grow says so, goes on answering, and recovers by itself."""

import json
import resource
import socket
from pathlib import Path
from typing import Any

from tests.conftest import StartServer
from tests.servers import ServerProcess


def ask(server: ServerProcess, request: object) -> Any:
    """Ask on a connection of its own: after an error the server closes it."""
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as replies:
        connection.connect(server.address.removeprefix("unix://"))
        connection.sendall(b"OEHASHEQUIV 1.1\n\n" + json.dumps(request).encode() + b"\n")
        return json.loads(replies.readline())


def report(number: int) -> object:
    hashes = {"method": "m", "taskhash": f"t{number}", "outhash": f"o{number}"}
    return {"report": {**hashes, "unihash": f"{number:064x}", "outhash_siginfo": "x" * 9000}}


def get(number: int) -> object:
    return {"get": {"method": "m", "taskhash": f"t{number}"}}


def test_a_file_that_may_not_grow(start_server: StartServer) -> None:
    server = start_server()
    log = Path(f"{server.database}-wal")
    stored = 0
    while log.stat().st_size < 2**18 or stored < 3:  # so that the limit is the log's alone
        assert "unihash" in ask(server, report(stored))
        stored += 1
    unlimited = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    limit = (log.stat().st_size, unlimited[1])
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limit)
    for _ in range(3):
        refused = ask(server, report(9999))
        assert str(server.database) in refused["invoke-error"]["message"]
        assert ask(server, get(0))["unihash"] == f"{0:064x}"
        assert ask(server, get(9999)) is None
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, unlimited)
    assert ask(server, report(9999))["unihash"] == f"{9999:064x}"
    assert ask(server, get(9999))["unihash"] == f"{9999:064x}"
    assert "Traceback" not in server.log_text()
    server.kill()
    server.start()
    for number in (*range(stored), 9999):
        assert ask(server, get(number))["unihash"] == f"{number:064x}"
