"""A store of each engine."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from hashserv.store.base import Store
from hashserv.store.opening import Options, open_store
from tests.engines import ENGINES, FreshDatabase

Scenario = Callable[[Store], Awaitable[None]]
Run = Callable[[Scenario], None]


@pytest.fixture(params=ENGINES)
def run(request: pytest.FixtureRequest, fresh_database: FreshDatabase) -> Run:
    """Run a scenario with an empty store, of each engine."""
    database = fresh_database(request.param)

    def run_with_store(scenario: Scenario) -> None:
        async def with_store() -> None:
            store = await open_store(database, Options(durable=False))
            try:
                await scenario(store)
            finally:
                await store.close()

        asyncio.run(with_store())

    return run_with_store
