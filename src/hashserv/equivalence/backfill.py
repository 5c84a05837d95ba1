"""What an upstream answered, on its way into the own store (PROTOCOL.md §8)."""

import asyncio
import logging
from collections.abc import Sequence
from itertools import islice
from typing import Final

from hashserv.errors import StoreError
from hashserv.model import Mapping, MappingKey
from hashserv.store.base import Store

logger = logging.getLogger("hashserv.upstream")

MOST_WAITING: Final = 200_000
"""Mappings that may wait to be stored. Further ones are answered and not stored; they are asked for
again some other time."""

_GROUP: Final = 1000
"""Mappings in one transaction."""

_PAUSE_SECONDS: Final = 1.0
"""How long to wait after the store failed, before it is tried again."""


class Backfill:
    """Stores mappings in the background, in groups.

    Args:
        store: Where to.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[MappingKey, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._progress: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stored = 0
        """How many mappings were stored."""

    def add(self, mappings: Sequence[Mapping]) -> None:
        """Have mappings stored soon. Where there is one by then, that one stays."""
        for method, taskhash, unihash in mappings:
            if len(self._waiting) >= MOST_WAITING:
                break
            self._waiting.setdefault(MappingKey(method, taskhash), unihash)
        if self._waiting and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._store_all())

    def get(self, key: MappingKey) -> str | None:
        """Return the unihash of a mapping that is about to be stored."""
        return self._waiting.get(key)

    def __len__(self) -> int:
        """How many mappings wait."""
        return len(self._waiting)

    async def wait(self) -> int:
        """Wait until all that waits now is stored, and return how many mappings that were."""
        waiting = len(self._waiting)
        if self._task is not None:
            await asyncio.shield(self._task)
        return waiting

    async def wait_for(self, keys: Sequence[MappingKey]) -> None:
        """Wait until none of these waits to be stored, whatever else does.

        Raises:
            StoreError: It can't be stored now; it is tried again.
        """
        while any(key in self._waiting for key in keys):
            await asyncio.shield(self._progress)

    async def close(self) -> None:
        """Drop what is not stored; it is asked for again after the next start. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._end()  # it may not even have begun

    async def _store_all(self) -> None:
        try:
            while self._waiting:
                await self._store_some()
        finally:
            self._end()

    def _end(self) -> None:
        self._task = None
        self._waiting.clear()  # nobody would store it any more
        self._tell_progress()

    async def _store_some(self) -> None:
        group = [Mapping(*key, unihash) for key, unihash in islice(self._waiting.items(), _GROUP)]
        try:
            await self._store.add_mappings(group)
        except StoreError as error:
            logger.error(  # noqa: TRY400 - it says what is wrong
                "What the upstream knows can't be stored, trying again: %s", error
            )
            self._tell_progress(error)
            await asyncio.sleep(_PAUSE_SECONDS)
            return
        self.stored += len(group)
        for mapping in group:
            del self._waiting[MappingKey(mapping.method, mapping.taskhash)]
        self._tell_progress()

    def _tell_progress(self, error: StoreError | None = None) -> None:
        """Wake up who waits; with an error they are told that."""
        progress, self._progress = self._progress, asyncio.get_running_loop().create_future()
        if error is None:
            progress.set_result(None)
        else:
            progress.set_exception(error)
            progress.exception()  # or asyncio would complain of it where nobody waits
