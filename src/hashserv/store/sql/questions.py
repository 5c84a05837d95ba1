"""Look-ups of all sessions, asked together: a round trip serves whoever waits."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

MOST_TOGETHER: Final = 320
"""Keys in one statement; a larger batch of one caller still goes in whole."""

_Key = TypeVar("_Key")
_Answer = TypeVar("_Answer")


class Questions(Generic[_Key, _Answer]):
    """Forms batches of what is asked while earlier batches are under way.

    Args:
        ask: Answers a batch, in order.
        at_once: How many batches may be under way.
    """

    def __init__(
        self,
        ask: Callable[[Sequence[_Key]], Awaitable[Sequence[_Answer]]],
        *,
        at_once: int,
    ) -> None:
        self._ask = ask
        self._free = at_once
        self._waiting: list[tuple[Sequence[_Key], asyncio.Future[Sequence[_Answer]]]] = []
        self._starting = False
        self._running: set[asyncio.Task[None]] = set()

    async def answers(self, keys: Sequence[_Key]) -> Sequence[_Answer]:
        """Return the answer to each key.

        Raises:
            Exception: What `ask` raised for the batch that these were in.
        """
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Sequence[_Answer]] = loop.create_future()
        self._waiting.append((keys, answered))
        if not self._starting and self._free:
            # At the end of the turn, so that what came with it in this turn goes together.
            self._starting = True
            loop.call_soon(self._start)
        return await answered

    def _start(self) -> None:
        self._starting = False
        while self._waiting and self._free:
            batch = [self._waiting.pop(0)]
            if batch[0][1].cancelled():  # nobody waits for it any more
                continue
            size = len(batch[0][0])
            while self._waiting and size + len(self._waiting[0][0]) <= MOST_TOGETHER:
                batch.append(self._waiting.pop(0))
                size += len(batch[-1][0])
            self._free -= 1
            task: asyncio.Task[None] = asyncio.create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(
        self, batch: list[tuple[Sequence[_Key], asyncio.Future[Sequence[_Answer]]]]
    ) -> None:
        try:
            found: Any = await self._ask([key for keys, _ in batch for key in keys])
        except BaseException as error:
            for _, answered in batch:
                if not answered.done():
                    answered.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            at = 0
            for keys, answered in batch:
                if not answered.done():
                    answered.set_result(found[at : at + len(keys)])
                at += len(keys)
        finally:
            self._free += 1
            self._start()
