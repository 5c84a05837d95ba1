"""Look-ups of all sessions, asked together: a round trip serves whoever waits."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Generic, TypeVar

MOST_TOGETHER: Final = 320
"""Keys in one statement of an SQL server; a larger batch of one caller still goes in whole."""

_Key = TypeVar("_Key")
_Answer = TypeVar("_Answer")
_Asked = tuple[asyncio.Future[list[_Answer]], Sequence[_Key]]


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
        self._waiting: OrderedDict[asyncio.Future[list[_Answer]], Sequence[_Key]] = OrderedDict()
        self._starting = False
        self._running: set[asyncio.Task[None]] = set()

    async def answers(self, keys: Sequence[_Key]) -> list[_Answer]:
        """Return the answer to each key.

        Raises:
            Exception: What `ask` or `alone` raised for the batch that these were in.
        """
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[list[_Answer]] = loop.create_future()
        self._waiting[answered] = keys
        if not self._starting and self._free:
            # At the end of the turn, so that what came with it in this turn goes together.
            self._starting = True
            loop.call_soon(self._start)
        try:
            return await answered
        finally:
            self._waiting.pop(answered, None)  # it is still there if this was cancelled

    async def finish(self) -> None:
        """Wait until all is answered; nothing more may be asked from now on."""
        while self._starting or self._running:
            if self._starting:
                await asyncio.sleep(0)
            else:
                await asyncio.wait(self._running)

    def _start(self) -> None:
        self._starting = False
        while self._waiting and self._free:
            batch = self._take()
            if self._alone is not None and self._free == self._at_once and not self._waiting:
                with _errors_told(batch):
                    _settle(batch, self._alone(_keys(batch)))
                continue
            self._free -= 1
            task: asyncio.Task[None] = asyncio.create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _take(self) -> list[_Asked[_Answer, _Key]]:
        """Take the next batch of what waits."""
        batch = [self._waiting.popitem(last=False)]
        room = self._together - len(batch[0][1])
        while self._waiting:
            answered, keys = self._waiting.popitem(last=False)
            room -= len(keys)
            if room < 0:
                self._waiting[answered] = keys
                self._waiting.move_to_end(answered, last=False)
                break
            batch.append((answered, keys))
        return batch

    async def _run(self, batch: list[_Asked[_Answer, _Key]]) -> None:
        try:
            with _errors_told(batch):
                _settle(batch, await self._ask(_keys(batch)))
        finally:
            self._free += 1
            self._start()


def _keys(batch: Sequence[_Asked[_Answer, _Key]]) -> list[_Key]:
    return [key for _, keys in batch for key in keys]


def _settle(batch: Sequence[_Asked[_Answer, _Key]], found: list[_Answer]) -> None:
    """Let all of a batch have their part of what was found."""
    at = 0
    for answered, keys in batch:
        if not answered.done():
            answered.set_result(found[at : at + len(keys)])
        at += len(keys)


@contextlib.contextmanager
def _errors_told(batch: Sequence[_Asked[_Answer, _Key]]) -> Iterator[None]:
    """Let all of a batch have an error, whatever it is."""
    try:
        yield
    except BaseException as error:
        for answered, _ in batch:
            if not answered.done():
                answered.set_exception(error)
        if not isinstance(error, Exception):
            raise
