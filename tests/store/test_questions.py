"""What callers ask together: none is forgotten, none is kept."""

import asyncio
import weakref
from collections.abc import Sequence

import pytest

from hashserv.store.questions import Questions

GUARD_SECONDS = 30


class Keys(list[int]):
    """Keys that can be watched going."""


class Stop(BaseException):
    """What ends programs, as `SystemExit` does, but not a test."""


def test_questions_of_who_is_gone_are_not_kept_while_a_batch_is_stuck() -> None:
    async def check() -> None:
        go_on = asyncio.Event()
        asked: list[Sequence[int]] = []

        async def ask(keys: Sequence[int]) -> list[int]:
            asked.append(keys)
            await go_on.wait()
            return list(keys)

        questions = Questions(ask, at_once=1, together=2)
        stuck = asyncio.ensure_future(questions.answers([1, 2]))
        await asyncio.sleep(0)
        keys = [Keys([number]) for number in range(3, 6)]
        gone = weakref.ref(keys[1])
        callers = [asyncio.ensure_future(questions.answers(each)) for each in keys]
        await asyncio.sleep(0)
        callers[1].cancel()
        await asyncio.wait([callers[1]], timeout=GUARD_SECONDS)
        del keys, callers[1]
        assert gone() is None
        go_on.set()
        assert await asyncio.gather(stuck, *callers) == [[1, 2], [3], [5]]
        assert asked == [[1, 2], [3, 5]]

    asyncio.run(check())


def test_who_asked_hears_of_whatever_went_wrong() -> None:
    async def check() -> None:
        def alone(keys: Sequence[int]) -> list[int]:
            raise Stop(keys)

        async def ask(keys: Sequence[int]) -> list[int]:
            raise Stop(keys)

        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        questions = Questions(ask, at_once=2, together=2, alone=alone)
        async with asyncio.timeout(GUARD_SECONDS):
            for callers in (1, 4):
                asking = [asyncio.ensure_future(questions.answers([1, 2])) for _ in range(callers)]
                for each in asking:
                    with pytest.raises(Stop):
                        await each
            await questions.finish()

    asyncio.run(check())
