"""A real nginx in front of the server, with the configuration that the documentation gives."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from hashserv import create_client
from tests.certificates import Certificates
from tests.conftest import StartServer
from tests.nginx import Nginx, documented
from tests.peers import METHOD, digest
from tests.servers import ServerProcess


@pytest.fixture
def served(start_server: StartServer) -> ServerProcess:
    """A server as the documentation starts it."""
    return start_server(
        *("--trusted-proxy", "127.0.0.1", "--anon-perms", "@read,@report"),
        bind="ws://127.0.0.1:0",
    )


@pytest.fixture
def nginx(
    short_tmp: Path,
    served: ServerProcess,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Nginx]:
    """An nginx in front of it, whose authority clients trust."""
    monkeypatch.setenv("HASHSERV_TLS_CA", certificates.authority)
    _, _, backend = served.address.rpartition(":")
    certificate = certificates.server()
    site = documented(
        "run-behind-nginx",
        {
            "listen 443 ssl;": "listen 127.0.0.1:PORT ssl;",
            "hashserv.example.org": "localhost",
            "/etc/ssl/hashserv.crt": certificate,
            "/etc/ssl/hashserv.key": certificate,
            "127.0.0.1:8687": f"127.0.0.1:{backend}",
        },
    )
    process = Nginx(short_tmp, site=site)
    yield process
    process.stop()


def test_clients_are_served_through_nginx(nginx: Nginx) -> None:
    with create_client(f"wss://localhost:{nginx.port}/ws") as client:
        siginfo = "x" * 3_000_000
        reported = client.report_unihash(
            digest(1), METHOD, digest(2), digest(3), {"outhash_siginfo": siginfo}
        )
        assert reported["unihash"] == digest(3)
        found = client.get_outhash(METHOD, digest(2), digest(1))
        assert found is not None
        assert found["outhash_siginfo"] == siginfo
        keys = [(METHOD, digest(number % 2)) for number in range(10_000)]
        assert client.get_unihash_batch(keys) == [None, digest(3)] * 5000


def test_the_server_knows_whom_nginx_speaks_for(
    nginx: Nginx, served: ServerProcess, certificates: Certificates
) -> None:
    with connect(
        f"wss://localhost:{nginx.port}/ws",
        ssl=certificates.context(),
        additional_headers={"X-Forwarded-For": "192.0.2.1"},
        source_address=("127.0.0.2", 0),
        proxy=None,
    ) as connection:
        for line in ("OEHASHEQUIV 1.1", "", '{"refresh-token": {}}'):
            connection.send(line)
        assert "Anonymous user is not allowed" in connection.recv(decode=True)
    (line,) = (line for line in served.log_text().splitlines() if line.startswith("{"))
    assert json.loads(line)["peer"].startswith("127.0.0.2:")
