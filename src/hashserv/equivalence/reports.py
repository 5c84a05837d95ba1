"""Reports on their way into the store, for whom others that ask of the same tasks have to wait."""

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from hashserv.model import MappingKey

MOST_UNDER_WAY: Final = 20_000
"""Reports under way, up to which one is stored though its client goes. Of further ones, which come
while the disk is stuck, those that are not in a transaction yet are dropped then."""

_Stored = TypeVar("_Stored")


class ReportsUnderWay:
    """Which tasks' reports are being stored.

    A report goes on although its client has gone: it may be in a transaction already, and who asked
    of the task meanwhile would be answered something else than what is stored then.
    """

    def __init__(self) -> None:
        self._storing: dict[MappingKey, set[asyncio.Future[Any]]] = {}
        self._under_way = 0
        self.ended = 0
        """How many have come to their end, one way or another."""

    async def store(self, keys: Sequence[MappingKey], work: Awaitable[_Stored]) -> _Stored:
        """Do what stores reports of some tasks, and return its result.

        The tasks count as being reported at once, before this waits for anything.

        Raises:
            StoreError: They are not stored.
        """
        storing = asyncio.ensure_future(work)
        self._under_way += len(keys)
        for key in keys:
            self._storing.setdefault(key, set()).add(storing)
        storing.add_done_callback(partial(self._end, keys))
        return await (storing if self._under_way > MOST_UNDER_WAY else asyncio.shield(storing))

    def of_any(self, keys: Sequence[MappingKey]) -> bool:
        """Tell whether one of some tasks is being reported."""
        return any(key in self._storing for key in keys)

    async def wait(self, keys: Sequence[MappingKey]) -> None:
        """Wait for the reports of some tasks that are under way now."""
        under_way = {each for key in keys for each in self._storing.get(key, ())}
        if under_way:
            await asyncio.wait(under_way)

    def _end(self, keys: Sequence[MappingKey], storing: asyncio.Future[Any]) -> None:
        self.ended += 1
        self._under_way -= len(keys)
        if not storing.cancelled():
            storing.exception()  # or asyncio would complain of it where nobody waits any more
        for key in set(keys):
            self._storing[key].discard(storing)
            if not self._storing[key]:
                del self._storing[key]
