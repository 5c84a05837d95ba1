"""A session that ends does so in time, whatever its peer does with the replies."""

import asyncio
import socket
from pathlib import Path

import pytest

from hashserv.equivalence.accounts import Accounts
from hashserv.equivalence.collection import Collection
from hashserv.equivalence.mapping import Equivalences
from hashserv.equivalence.statistics import Statistics
from hashserv.server.access import Access
from hashserv.server.handlers import Services
from hashserv.server.session import Session
from hashserv.server.settings import Limits
from hashserv.server.snapshot_feed import SnapshotFeeds
from hashserv.store.sqlite import SqliteStore
from tests.servers import START_SECONDS


@pytest.mark.parametrize("end", ["its peer is done", "the server stops"])
def test_reading_a_little_does_not_put_off_the_end(tmp_path: Path, end: str) -> None:
    async def check() -> None:
        store = SqliteStore(str(tmp_path / "db"))
        services = Services(
            Equivalences(store),
            Collection(store),
            Statistics(),
            store,
            Accounts(store.users),
            Access(frozenset({"@read"}), read_only=False),
            SnapshotFeeds(store, 1),
        )
        gone = asyncio.Event()
        session = Session(
            services,
            Limits(write_timeout=0.1),
            opened=lambda _: None,
            closed=lambda _: gone.set(),
        )
        ours, peer = socket.socketpair()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: session, sock=ours)
        with peer:
            transport.write(b"x" * 10_000_000)  # far more than the kernel takes
            if end == "its peer is done":
                assert session.eof_received()
                finishing = None
            else:
                finishing = loop.create_task(session.finish())
                await asyncio.sleep(0)
            session.resume_writing()  # as the transport calls when enough was read
            async with asyncio.timeout(START_SECONDS):
                await gone.wait()
                if finishing is not None:
                    await finishing
        await store.close()

    asyncio.run(check())
