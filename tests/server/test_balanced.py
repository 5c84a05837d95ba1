"""Two servers on one PostgreSQL behind nginx, as the documentation has them."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hashserv import create_client
from tests.certificates import Certificates
from tests.conftest import StartServer
from tests.engines import FreshDatabase
from tests.nginx import Nginx, documented
from tests.peers import METHOD, digest
from tests.servers import ServerProcess

PAGE = "run-on-postgresql"
BIND = {"stream": "127.0.0.1:0", "http": "ws://127.0.0.1:0"}


@pytest.fixture(params=BIND)
def layer(request: pytest.FixtureRequest) -> str:
    """What nginx does: passes TCP on, or WebSockets."""
    return str(request.param)


@pytest.fixture
def servers(
    layer: str, start_server: StartServer, fresh_database: FreshDatabase
) -> list[ServerProcess]:
    """Two servers on one database."""
    database = fresh_database("asyncpg")
    return [start_server(bind=BIND[layer], database=database) for _ in range(2)]


@pytest.fixture
def address(
    layer: str,
    servers: list[ServerProcess],
    short_tmp: Path,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """Where clients find an nginx in front of both."""
    monkeypatch.setenv("HASHSERV_TLS_CA", certificates.authority)
    ports = [server.address.rpartition(":")[2] for server in servers]
    if layer == "stream":
        here = {"listen 8686 ": "listen 127.0.0.1:PORT "}
        here |= {f"hs{at}:8686": f"127.0.0.1:{port}" for at, port in enumerate(ports, 1)}
        nginx = Nginx(short_tmp, stream=documented(PAGE, here))
    else:
        here = {f"hs{at}:8687": f"127.0.0.1:{port}" for at, port in enumerate(ports, 1)}
        upstream = documented(PAGE, here, block=1)
        certificate = certificates.server()
        site = documented(
            "run-behind-nginx",
            {
                "listen 443 ssl;": "listen 127.0.0.1:PORT ssl;",
                "hashserv.example.org": "localhost",
                "/etc/ssl/hashserv.crt": certificate,
                "/etc/ssl/hashserv.key": certificate,
                "http://127.0.0.1:8687": "http://hashserv",
            },
        )
        nginx = Nginx(short_tmp, site=upstream + site)
    yield f"127.0.0.1:{nginx.port}" if layer == "stream" else f"wss://localhost:{nginx.port}/ws"
    nginx.stop()


def requests(server: ServerProcess) -> int:
    """Return how many requests a server has answered, this one apart."""
    with create_client(server.address) as client:
        counted: int = client.get_stats()["requests"]["num"]
        return counted


def test_clients_go_on_with_the_other_server(address: str, servers: list[ServerProcess]) -> None:
    with ExitStack() as stack:
        one, other = (stack.enter_context(create_client(address)) for _ in range(2))
        one.report_unihash(digest(1), METHOD, digest(2), digest(3))
        assert other.get_unihash(METHOD, digest(1)) == digest(3)
        assert all(map(requests, servers)), "nginx gave both clients the same server"
        servers[0].kill()
        for number, client in enumerate((one, other), 10):
            assert client.get_unihash(METHOD, digest(1)) == digest(3)
            reported = client.report_unihash(digest(number), METHOD, digest(2), digest(number))
            assert reported["unihash"] == digest(3)
        assert other.get_unihash(METHOD, digest(10)) == digest(3)
