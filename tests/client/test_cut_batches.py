"""A large batch whose line is cut again and again: each answer once, and in order."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from hashserv.model import Mapping
from hashserv.store.sqlite import SqliteStore
from tests.client.conftest import Connect
from tests.client.hashes import METHOD
from tests.conftest import StartServer
from tests.logins import ADMIN, PASSWORD
from tests.proxies import CuttingProxy

KEYS = 50_000
CUTS = 10
SEEDS = (1, 2, 3)


def taskhash(number: int) -> str:
    return f"{number:064x}"


def unihash(number: int) -> str | None:
    """The unihash of a taskhash, another for each; a third of them have none."""
    return f"{number + KEYS:064x}" if number % 3 else None


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with two thirds of the keys."""
    path = tmp_path_factory.mktemp("batch") / "hashserv.db"
    mappings = [
        Mapping(METHOD, taskhash(number), known)
        for number in range(KEYS)
        if (known := unihash(number)) is not None
    ]

    async def fill() -> None:
        store = SqliteStore(str(path), durable=False)
        await store.add_mappings(mappings)
        await store.close()

    asyncio.run(fill())
    return path


@pytest.fixture
def cut(proxy: Callable[..., CuttingProxy]) -> Callable[[str, int], CuttingProxy]:
    """Put a proxy in front of a server, which cuts ten connections somewhere in a batch."""

    def make(address: str, seed: int) -> CuttingProxy:
        somewhere = random.Random(seed)
        # The replies have 2.2 MB: each of the ten connections gets a part of a tenth of that.
        return proxy(address, [somewhere.randrange(200, 200_000) for _ in range(CUTS)])

    return make


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bind", ["127.0.0.1:0", "ws://127.0.0.1:0"])
def test_each_answer_comes_once_and_in_order(
    bind: str,
    seed: int,
    connect: Connect,
    start_server: StartServer,
    database: Path,
    cut: Callable[[str, int], CuttingProxy],
) -> None:
    server = start_server(
        *("--anon-perms", "@none", "--admin-user", ADMIN, "--admin-password", PASSWORD),
        bind=bind,
        database=database,
    )
    line = cut(server.address, seed)
    client = connect(f"ws://{line.address}" if bind.startswith("ws") else line.address)
    client.username, client.password = ADMIN, PASSWORD
    keys = ((METHOD, taskhash(number)) for number in range(KEYS))
    assert client.get_unihash_batch(keys) == [unihash(number) for number in range(KEYS)]
    assert line.connections == CUTS + 1
    existences = client.unihash_exists_batch([taskhash(number + KEYS) for number in range(KEYS)])
    assert existences == [number % 3 != 0 for number in range(KEYS)]
