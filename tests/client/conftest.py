"""One face for both clients, so that one suite serves both."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import hashserv
from tests.proxies import CuttingProxy
from tests.servers import ServerProcess

READ_AHEAD = 256
"""Items that are taken from an asynchronous iterator at once: entering a loop for each is slow."""

Connect = Callable[[str], Any]


class Blocking:
    """An `AsyncClient` whose coroutines are run to their end, on a loop of its own."""

    def __init__(self, address: str) -> None:
        self.runner = asyncio.Runner()
        try:
            self.client = self.runner.run(hashserv.create_async_client(address))
        except Exception:
            self.runner.close()
            raise

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.client, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            result = value(*args, **kwargs)
            return self.runner.run(result) if inspect.iscoroutine(result) else self._drain(result)

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        own = name in ("runner", "client")
        object.__setattr__(self if own else self.client, name, value)

    def _drain(self, replies: AsyncIterator[Any]) -> Iterator[Any]:
        async def some() -> list[Any]:
            taken: list[Any] = []
            while len(taken) < READ_AHEAD:
                try:
                    taken.append(await anext(replies))
                except StopAsyncIteration:
                    break
            return taken

        while taken := self.runner.run(some()):
            yield from taken

    def close(self) -> None:
        self.runner.run(self.client.close())
        self.runner.close()


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Make clients of each kind, with the methods of the blocking one; they end with the test."""
    made: list[Any] = []

    def make(address: str) -> Any:
        client = Blocking(address) if request.param == "async" else hashserv.create_client(address)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(connect: Connect, server: ServerProcess) -> Any:
    """A client of a server with an empty database."""
    return connect(server.address)


@pytest.fixture
def proxy() -> Iterator[Callable[..., CuttingProxy]]:
    """Make proxies that end with the test."""
    made: list[CuttingProxy] = []

    def make(*arguments: Any) -> CuttingProxy:
        made.append(CuttingProxy(*arguments))
        return made[-1]

    yield make
    for each in made:
        each.close()
