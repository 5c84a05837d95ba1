"""A real nginx in front of the server, with the configuration that the documentation gives."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from websockets.sync.client import connect

from hashserv import create_client
from tests.certificates import Certificates
from tests.conftest import StartServer
from tests.peers import METHOD, digest
from tests.servers import START_SECONDS, ServerProcess, wait_for

PAGE: Final = Path(__file__).parents[2] / "docs" / "how-to" / "run-behind-nginx.md"

MAIN: Final = """
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{site}
}}
"""


class Nginx:
    """An nginx process with the documented site in front of a server."""

    def __init__(self, directory: Path, server: ServerProcess, certificate: str) -> None:
        command = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        assert command is not None, "nginx is missing: apt-get install nginx-light"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        found = re.search(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
        assert found is not None
        site = found[1]
        _, _, backend = server.address.rpartition(":")
        for documented, here in (
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.port} ssl;"),
            ("hashserv.example.org", "localhost"),
            ("/etc/ssl/hashserv.crt", certificate),
            ("/etc/ssl/hashserv.key", certificate),
            ("127.0.0.1:8687", f"127.0.0.1:{backend}"),
        ):
            assert documented in site
            site = site.replace(documented, here)
        configuration = directory / "nginx.conf"
        configuration.write_text(MAIN.format(directory=directory, site=site))
        self.log = directory / "nginx.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [command, "-p", str(directory), "-c", str(configuration)], stderr=log
            )
        wait_for(self._listens)

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(START_SECONDS)


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
    process = Nginx(short_tmp, served, certificates.server())
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
