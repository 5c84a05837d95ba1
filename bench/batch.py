"""One Python client that asks for a batch: ``python -m bench.batch < TASK``, a JSON object.

It prints how many look-ups a second it had answers to, and how many were wrong.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import uvloop

from bench.generators import METHOD, Generators, Outcome, outcome_in_process
from bench.rounds import Series
from bench.servers import Hashserv
from hashserv import create_async_client, create_client

BLOCKING_KNOWN: Final = "blocking client, all known"
"""The row that has a goal."""

_BLOCKING_HALF_UNKNOWN: Final = "blocking client, half unknown"

_Pair = tuple[str, str | None]
"""A taskhash, and the unihash to expect."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the client does: it looks all taskhashes up, in one call."""

    address: str
    blocking: bool
    taskhashes: list[str]
    unihashes: list[str | None]

    @property
    def keys(self) -> list[tuple[str, str]]:
        """The arguments of the call."""
        return [(METHOD, taskhash) for taskhash in self.taskhashes]


class Batches:
    """Measures both clients with a server whose cache has all answers.

    Args:
        server: The server, which was asked for all that is in its database.
        generators: Tell what is in its database.
        mappings: How many keys that is.
        look_ups: How many a client makes in a batch.
    """

    def __init__(
        self, server: Hashserv, generators: Generators, *, mappings: int, look_ups: int
    ) -> None:
        self._address = server.address
        rows = islice(generators.rows(mappings), look_ups)
        known: list[_Pair] = [(taskhash, unihash) for taskhash, _, unihash in rows]
        half_unknown: list[_Pair] = [
            pair if number % 2 else (f"{number:064x}", None) for number, pair in enumerate(known)
        ]
        self._tasks = {
            BLOCKING_KNOWN: self._task(known, blocking=True),
            _BLOCKING_HALF_UNKNOWN: self._task(half_unknown, blocking=True),
            "asynchronous client, all known": self._task(known, blocking=False),
            "asynchronous client, half unknown": self._task(half_unknown, blocking=False),
        }

    def measure(self, rounds: int) -> Iterator[list[Series]]:
        """Yield the findings so far, after each round.

        What is unknown is asked for once before, so that the cache knows that, too.
        """
        found = [Series(name=name) for name in self._tasks]
        found[0].wrong += _outcome(self._tasks[_BLOCKING_HALF_UNKNOWN]).wrong
        for _ in range(rounds):
            for series, task in zip(found, self._tasks.values(), strict=True):
                series.add(_outcome(task))
            yield found

    def _task(self, pairs: Sequence[_Pair], *, blocking: bool) -> Task:
        return Task(
            address=self._address,
            blocking=blocking,
            taskhashes=[taskhash for taskhash, _ in pairs],
            unihashes=[unihash for _, unihash in pairs],
        )


def _outcome(task: Task) -> Outcome:
    return outcome_in_process("bench.batch", task)


def _ask(task: Task) -> tuple[float, Sequence[str | None]]:
    keys = task.keys
    with create_client(task.address) as client:
        client.ping()
        start = time.perf_counter()
        answers = client.get_unihash_batch(keys)
        return time.perf_counter() - start, answers


async def _ask_asynchronously(task: Task) -> tuple[float, Sequence[str | None]]:
    keys = task.keys
    async with await create_async_client(task.address) as client:
        await client.ping()
        start = time.perf_counter()
        answers = await client.get_unihash_batch(keys)
        return time.perf_counter() - start, answers


def _main() -> None:
    task = Task(**json.load(sys.stdin))
    if task.blocking:
        seconds, answers = _ask(task)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            seconds, answers = runner.run(_ask_asynchronously(task))
    wrong = sum(a != b for a, b in zip(answers, task.unihashes, strict=True))
    print(json.dumps({"per_second": len(answers) / seconds, "wrong": wrong}))


if __name__ == "__main__":
    _main()
