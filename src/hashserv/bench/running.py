"""A run: tasks are prepared, each load has its time, and what was written may be removed."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count, islice
from time import perf_counter
from typing import Final, Protocol

from hashserv.bench.link import Link, Target
from hashserv.bench.modes import MIX_SHARES, Mode
from hashserv.bench.pipeline import Pipeline
from hashserv.bench.questions import (
    EXISTENCES,
    LOOK_UPS,
    Absent,
    Known,
    Mix,
    Once,
    Questions,
    Reports,
)
from hashserv.bench.tally import Tally
from hashserv.bench.tasks import Tasks
from hashserv.client.batch import WINDOW_LINES
from hashserv.errors import ClientError

REPLY_LIMIT: Final = 30.0
"""Seconds that a server may leave all requests of a connection unanswered, as for our clients."""

PREPARE_DEPTH: Final = 32
"""Reports in flight on each connection while tasks are prepared."""

UNKNOWN_EACH: Final = 5
"""One task of so many of a build is unknown, and reported when it has run."""

_OPENED_AT_ONCE: Final = 100  # connections: well below what servers let wait to be accepted
_TICK: Final = 0.1  # seconds between looks at how far it is


class Progress(Protocol):
    """Shows how far a part of the work is."""

    def __call__(
        self, text: str, *, unit: str, total: int | None
    ) -> AbstractContextManager[Callable[[int], object]]:
        """Begin with a part, and yield what to tell how much of it was done."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do to a server.

    Args:
        clients: Connections.
        depth: Requests in flight on each.
        seconds: How long a load lasts; a build always comes to its end.
        known: Tasks that are reported before, for loads that ask for what is known.
        build_tasks: Look-ups at the beginning of a build.
    """

    clients: int
    depth: int
    seconds: float
    known: int
    build_tasks: int


class Run:
    """Connections to a server, and what is done on them. `open` comes first, `close` last.

    All methods raise what breaks a connection: `OSError`, `ConnectionClosedError`,
    `ProtocolError`, or `InvokeError` with the server's words.

    Args:
        target: The server, and who to be there.
        plan: What to do.
        tasks: What to ask for and report.
        progress: Shows how far it is.
    """

    def __init__(self, target: Target, plan: Plan, tasks: Tasks, progress: Progress) -> None:
        self._target = target
        self._plan = plan
        self._tasks = tasks
        self._progress = progress
        self._links: list[Link] = []
        self._numbers = count()
        self._absent = count()
        self.tallies: list[Tally] = []
        """What was measured so far."""

    async def open(self) -> None:
        """Connect all clients.

        Raises:
            AddressError: What the environment says of TLS can't be used.
            ClientError: A login has no password.
        """
        # The first alone: a login that fails, fails once.
        self._links.append(await Link.open(self._target, REPLY_LIMIT))
        while missing := self._plan.clients - len(self._links):
            opening = (
                Link.open(self._target, REPLY_LIMIT) for _ in range(min(missing, _OPENED_AT_ONCE))
            )
            opened = await asyncio.gather(*opening, return_exceptions=True)
            self._links += [link for link in opened if isinstance(link, Link)]
            for failure in opened:
                if isinstance(failure, BaseException):
                    raise failure

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        for link in self._links:
            await link.close()

    async def stores_reports(self) -> bool:
        """Report a task, and tell whether the server kept it.

        One that may not store answers as if it had (PROTOCOL.md §8.2).
        """
        number = next(self._numbers)
        link, tally = self._links[0], Tally("trial")
        await self._phase(tally, [(link, Reports(self._tasks, iter([number])))])
        asked = self._tasks.lookup(self._tasks.taskhash(number))
        expected = self._tasks.unihash(number).encode()
        await self._phase(tally, [(link, Once(LOOK_UPS, iter([(asked, expected)])))])
        return not tally.wrong

    async def prepare(self) -> None:
        """Report the tasks that are then known, and look each up, so that caches know them.

        Raises:
            ClientError: A reply was wrong.
        """
        tasks = self._tasks
        numbers = list(islice(self._numbers, self._plan.known))
        tally = Tally("preparing")
        with self._progress("preparing", unit="requests", total=2 * len(numbers)) as advance:
            shared = iter(numbers)
            work: list[tuple[Link, Questions]]
            work = [(link, Reports(tasks, shared)) for link in self._links]
            await self._phase(tally, work, depth=PREPARE_DEPTH, advance=advance)
            unihashes = [tasks.unihash(number) for number in numbers]
            self._look_ups = [tasks.lookup(tasks.taskhash(number)) for number in numbers]
            self._unihashes = [unihash.encode() for unihash in unihashes]
            pairs = zip(self._look_ups, self._unihashes, strict=True)
            await self._phase(
                tally,
                [(self._links[0], Once(LOOK_UPS, pairs))],
                depth=WINDOW_LINES,
                advance=advance,
            )
        if tally.first_wrong is not None:
            raise ClientError(
                f"{tally.wrong} replies were wrong while tasks were prepared; {tally.first_wrong}"
            )
        both = zip(unihashes, map(tasks.absent, numbers), strict=True)
        self._existences = [f"{unihash}\n".encode() for pair in both for unihash in pair]
        self._exist = [b"true", b"false"] * len(numbers)

    async def measure(self, mode: Mode) -> None:
        """Put a load on the server. All but those of `modes.READING` need `prepare` before."""
        if mode is Mode.BUILD:
            await self._build()
            return
        tally = self._tally(mode)
        with self._progress(mode, unit="requests", total=None) as advance:
            work = [(link, self._questions(mode, at)) for at, link in enumerate(self._links)]
            plan = self._plan
            await self._phase(tally, work, depth=plan.depth, seconds=plan.seconds, advance=advance)

    def _questions(self, mode: Mode, client: int) -> Questions:
        """Return what a client asks."""
        start = client * self._plan.known // self._plan.clients  # not all the same at a time
        match mode:
            case Mode.HITS:
                return Known(LOOK_UPS, self._look_ups, self._unihashes, start)
            case Mode.MISSES:
                return Absent(self._tasks, self._absent)
            case Mode.EXISTS:
                return Known(EXISTENCES, self._existences, self._exist, 2 * start)
            case Mode.REPORTS:
                return Reports(self._tasks, self._numbers)
            case _:
                parts = [
                    (self._questions(part, client), share) for part, share in MIX_SHARES.items()
                ]
                return Mix(parts, start % sum(MIX_SHARES.values()))

    async def _build(self) -> None:
        """Do what builds do: a burst of look-ups, then a report of each task that has run."""
        end = perf_counter() + self._plan.seconds
        burst, reports = self._tally("build: look-ups"), self._tally("build: reports")
        total = self._plan.build_tasks
        while not burst.requests or perf_counter() < end:
            numbers = list(islice(self._numbers, total // UNKNOWN_EACH))
            pairs = self._burst(numbers)
            each = total + len(numbers)
            with self._progress("build", unit="requests", total=each) as advance:
                work: list[tuple[Link, Questions]]
                work = [(self._links[0], Once(LOOK_UPS, iter(pairs)))]
                await self._phase(burst, work, depth=WINDOW_LINES, advance=advance)
                shared = iter(numbers)
                work = [(link, Reports(self._tasks, shared)) for link in self._links]
                await self._phase(reports, work, advance=advance)

    def _burst(self, numbers: Sequence[int]) -> list[tuple[bytes, bytes]]:
        """Return the look-ups of a build: of each five, four are known and the last is new."""
        known = list(zip(self._look_ups, self._unihashes, strict=True))
        pairs = [known[at % len(known)] for at in range(self._plan.build_tasks)]
        new = [(self._tasks.lookup(self._tasks.taskhash(number)), b"") for number in numbers]
        pairs[UNKNOWN_EACH - 1 :: UNKNOWN_EACH] = new
        return pairs

    def _tally(self, name: str) -> Tally:
        tally = Tally(name)
        self.tallies.append(tally)
        return tally

    async def _phase(
        self,
        tally: Tally,
        work: Sequence[tuple[Link, Questions]],
        *,
        depth: int = 1,
        seconds: float = float("inf"),
        advance: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Keep connections busy until their questions or the time are over."""
        end = float("inf")
        pipelines = [
            Pipeline(link, questions, tally, depth=depth, is_over=lambda: perf_counter() >= end)
            for link, questions in work
        ]
        shown = tally.requests
        tally.begin_phase(perf_counter())
        try:
            for pipeline in pipelines:
                pipeline.start()
            end = perf_counter() + seconds  # only now: each client asks at least once
            waiting = {pipeline.done for pipeline in pipelines}
            while waiting:
                done, waiting = await asyncio.wait(
                    waiting, timeout=_TICK, return_when=asyncio.FIRST_EXCEPTION
                )
                advance(tally.requests - shown)
                shown = tally.requests
                for future in done:
                    future.result()
                for pipeline in pipelines:
                    pipeline.check_time(REPLY_LIMIT)
        finally:
            for pipeline in pipelines:
                pipeline.stop()
        tally.end_phase()


async def remove(target: Target, method: str) -> int:
    """Remove all rows of a method and return how many there were.

    Raises:
        InvokeError: The server refused it: the user has no @db-admin, or the server is read-only.
        OSError: The connection broke.
        ConnectionClosedError: The server closed it.
        ProtocolError: The server sent what it should not.
    """
    link = await Link.open(target, REPLY_LIMIT)
    try:
        reply = await link.request("remove", {"where": {"method": method}}, None)
        rows: int = reply["count"]
        return rows
    finally:
        await link.close()
