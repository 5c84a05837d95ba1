"""A store of each engine."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hashserv.store.base import Store
from hashserv.store.sqlite import SqliteStore

Scenario = Callable[[Store], Awaitable[None]]
Run = Callable[[Scenario], None]


@pytest.fixture(params=["sqlite"])
def run(tmp_path: Path) -> Run:
    """Run a scenario with an empty store, of each engine."""

    def run_with_store(scenario: Scenario) -> None:
        async def with_store() -> None:
            store = SqliteStore(str(tmp_path / "hashserv.db"), durable=False)
            try:
                await scenario(store)
            finally:
                await store.close()

        asyncio.run(with_store())

    return run_with_store
