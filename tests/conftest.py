"""Fixtures for all tests."""

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.certificates import Certificates
from tests.servers import ServerProcess

pytest_plugins = ["tests.engines"]

StartServer = Callable[..., ServerProcess]


def pytest_configure() -> None:
    """Let SIGINT interrupt, also where a shell has started the tests in the background.

    Such a shell has it ignored, which processes inherit.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A directory whose name is short enough for a socket file of the kernel's 108 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="hs-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority that issues certificates."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def start_server(short_tmp: Path) -> Iterator[StartServer]:
    """Start servers that end with the test; `start_server(*flags, bind=..., database=...)`."""
    started: list[ServerProcess] = []

    def start(
        *arguments: str,
        bind: str | None = None,
        database: Path | str | None = None,
        environment: dict[str, str] | None = None,
    ) -> ServerProcess:
        directory = short_tmp / str(len(started))
        directory.mkdir()
        server = ServerProcess(
            directory, *arguments, bind=bind, database=database, environment=environment
        )
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def server(start_server: StartServer) -> ServerProcess:
    """A server on a Unix socket with an empty database."""
    return start_server()


@pytest.fixture(params=["unix", "tcp"])
def any_server(request: pytest.FixtureRequest, start_server: StartServer) -> ServerProcess:
    """A server with an empty database, over each transport."""
    return start_server(bind="127.0.0.1:0" if request.param == "tcp" else None)
