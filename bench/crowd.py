"""A crowd of clients of ours in one process: ``python -m bench.crowd < TASK``, a JSON object.

It prints how many look-ups a second they had answers to, all together, and how many were wrong.
"""

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import uvloop

from bench.generators import METHOD, Outcome, outcome_in_process
from hashserv import create_async_client
from hashserv.client import AsyncClient


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the crowd does: each client asks for all keys, pipelined, all clients at once."""

    address: str
    clients: int
    taskhashes: list[str]
    unihashes: list[str | None]


async def _run(task: Task) -> dict[str, float]:
    clients = [await create_async_client(task.address) for _ in range(task.clients)]
    await asyncio.gather(*(client.ping() for client in clients))
    start = time.perf_counter()
    wrong = sum(await asyncio.gather(*(_look_up(client, task) for client in clients)))
    seconds = time.perf_counter() - start
    await asyncio.gather(*(client.close() for client in clients))
    return {"per_second": task.clients * len(task.taskhashes) / seconds, "wrong": wrong}


async def _look_up(client: AsyncClient, task: Task) -> int:
    answers = await client.get_unihash_batch((METHOD, taskhash) for taskhash in task.taskhashes)
    return sum(answer != expected for answer, expected in zip(answers, task.unihashes, strict=True))


def outcome(task: Task, environment: Mapping[str, str] | None = None) -> Outcome:
    """Have a crowd do a task, in a process of its own.

    Args:
        task: What it does.
        environment: What its environment has beside ours.
    """
    return outcome_in_process("bench.crowd", task, environment)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_run(Task(**json.load(sys.stdin))))))
