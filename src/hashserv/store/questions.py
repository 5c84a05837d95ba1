"""Look-ups of all sessions, asked together: a round trip serves whoever waits."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

MOST_TOGETHER: Final = 320
"""Keys in one statement of an SQL server; a larger batch of one caller still goes in whole."""

_Key = TypeVar("_Key")
_Answer = TypeVar("_Answer")
_Asked = tuple[Sequence[_Key], asyncio.Future[list[_Answer]]]


class Questions(Generic[_Key, _Answer]):
    """Forms batches of what is asked while earlier batches are under way.

    Args:
        ask: Answers a batch, in order.
        at_once: How many batches may be under way.
        together: Keys in a batch; what one caller asks for stays together all the same.
        alone: Answers a batch that is the only one, without waiting; else `ask` does, too.
    """

    def __init__(
        self,
        ask: Callable[[Sequence[_Key]], Awaitable[list[_Answer]]],
        *,
        at_once: int,
        together: int = MOST_TOGETHER,
        alone: Callable[[Sequence[_Key]], list[_Answer]] | None = None,
    ) -> None:
        self._ask = ask
        self._alone = alone
        self._at_once = self._free = at_once
        self._together = together
        self._waiting: deque[_Asked[_Key, _Answer]] = deque()
        self._starting = False
        self._running: set[asyncio.Task[None]] = set()

    async def answers(self, keys: Sequence[_Key]) -> list[_Answer]:
        """Return the answer to each key.

        Raises:
            Exception: What `ask` or `alone` raised for the batch that these were in.
        """
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[list[_Answer]] = loop.create_future()
        self._waiting.append((keys, answered))
        if not self._starting and self._free:
            # At the end of the turn, so that what came with it in this turn goes together.
            self._starting = True
            loop.call_soon(self._start)
        return await answered

    def _start(self) -> None:
        self._starting = False
        while self._waiting and self._free:
            batch = self._take()
            if not batch:  # nobody waits for it any more
                continue
            if self._alone is not None and self._free == self._at_once and not self._waiting:
                try:
                    _settle(batch, self._alone(_keys(batch)))
                except Exception as error:  # noqa: BLE001 - whoever waits gets it, whatever it is
                    _fail(batch, error)
                continue
            self._free -= 1
            task: asyncio.Task[None] = asyncio.create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _take(self) -> list[_Asked[_Key, _Answer]]:
        """Take the next batch; who has gone away meanwhile is left out."""
        batch: list[_Asked[_Key, _Answer]] = []
        room = self._together
        while self._waiting and (not batch or len(self._waiting[0][0]) <= room):
            asked = self._waiting.popleft()
            if not asked[1].cancelled():
                batch.append(asked)
                room -= len(asked[0])
        return batch

    async def _run(self, batch: list[_Asked[_Key, _Answer]]) -> None:
        try:
            _settle(batch, await self._ask(_keys(batch)))
        except BaseException as error:
            _fail(batch, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._free += 1
            self._start()


def _keys(batch: Sequence[_Asked[_Key, _Answer]]) -> list[_Key]:
    return [key for keys, _ in batch for key in keys]


def _settle(batch: Sequence[_Asked[_Key, _Answer]], found: list[_Answer]) -> None:
    """Let all of a batch have their part of what was found."""
    at = 0
    for keys, answered in batch:
        if not answered.done():
            answered.set_result(found[at : at + len(keys)])
        at += len(keys)


def _fail(batch: Sequence[_Asked[_Key, _Answer]], error: BaseException) -> None:
    for _, answered in batch:
        if not answered.done():
            answered.set_exception(error)
