"""Upstreams that are real servers, behind a line that may be bad."""

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import StartServer
from tests.servers import ServerProcess
from tests.upstream.faults import NO_FAULT, Fault, FaultyProxy

MakeProxy = Callable[..., FaultyProxy]


@pytest.fixture
def faulty_proxy() -> Iterator[MakeProxy]:
    """Make proxies that end with the test; the arguments are those of `FaultyProxy`."""
    made: list[FaultyProxy] = []

    def make(server: str, fault: Fault = NO_FAULT) -> FaultyProxy:
        made.append(FaultyProxy(server, fault))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def far_server(start_server: StartServer) -> ServerProcess:
    """A server on TCP with an empty database."""
    return start_server(bind="127.0.0.1:0")


@pytest.fixture
def proxy(faulty_proxy: MakeProxy, far_server: ServerProcess) -> FaultyProxy:
    """A line to `far_server`, without a fault so far."""
    return faulty_proxy(far_server.address)
