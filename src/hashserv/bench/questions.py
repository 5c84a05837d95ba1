"""What clients ask, and what is the right answer: a source of requests for each kind of load."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from hashserv.bench.tasks import Tasks

LOOK_UPS: Final = "get-stream"
EXISTENCES: Final = "exists-stream"


class Batch(NamedTuple):
    """Requests that are sent together, and their right replies.

    Args:
        mode: The stream mode that they belong into; `None` for messages.
        requests: Each with its line feed.
        replies: Without line feeds; those of messages as `tasks.canonical` has them.
    """

    mode: str | None
    requests: Sequence[bytes]
    replies: list[bytes]


class Questions(ABC):
    """A source of requests. One source is for one connection."""

    @abstractmethod
    def take(self, most: int) -> Batch | None:
        """Return the next requests, at least one and at most `most`; `None` for no more."""


class Known(Questions):
    """Requests that are asked over and over again.

    Args:
        mode: Their stream mode.
        requests: All of them; made once, so that asking costs next to nothing.
        replies: Their replies.
        start: Which of them to begin with.
    """

    def __init__(
        self, mode: str, requests: Sequence[bytes], replies: list[bytes], start: int = 0
    ) -> None:
        self._mode = mode
        self._requests = requests
        self._replies = replies
        self._next = start % len(requests)

    def take(self, most: int) -> Batch:
        start, end = self._next, min(self._next + most, len(self._requests))
        self._next = end % len(self._requests)
        return Batch(self._mode, self._requests[start:end], self._replies[start:end])


@dataclass(frozen=True)
class Absent(Questions):
    """Look-ups of tasks that nobody reports, each another one.

    Args:
        tasks: Gives their hashes.
        numbers: Which of them.
    """

    tasks: Tasks
    numbers: Iterator[int]

    def take(self, most: int) -> Batch:
        tasks = self.tasks
        taken = [tasks.lookup(tasks.absent(number)) for number in islice(self.numbers, most)]
        return Batch(LOOK_UPS, taken, [b""] * len(taken))


@dataclass(frozen=True)
class Reports(Questions):
    """Reports of new tasks.

    Args:
        tasks: Gives their hashes.
        numbers: Which of them; several connections may share an iterator.
    """

    tasks: Tasks
    numbers: Iterator[int]

    def take(self, most: int) -> Batch | None:
        numbers = list(islice(self.numbers, most))
        if not numbers:
            return None
        requests = [self.tasks.report(number) for number in numbers]
        return Batch(None, requests, [self.tasks.mapping(number) for number in numbers])


@dataclass(frozen=True)
class Once(Questions):
    """Requests that are asked once, in order.

    Args:
        mode: Their stream mode.
        pairs: Each request and its reply.
    """

    mode: str
    pairs: Iterator[tuple[bytes, bytes]]

    def take(self, most: int) -> Batch | None:
        pairs = list(islice(self.pairs, most))
        if not pairs:
            return None
        return Batch(self.mode, [pair[0] for pair in pairs], [pair[1] for pair in pairs])


class Mix(Questions):
    """Requests of several sources in turns, a run of each.

    Args:
        parts: The sources, and how many requests of each make a run.
        start: How many requests to leave out of the first round, so that not all clients do the
            same at a time; at most what a round has.
    """

    def __init__(self, parts: Sequence[tuple[Questions, int]], start: int = 0) -> None:
        self._parts = parts
        self._part = 0
        self._left = parts[0][1]
        while start >= self._left:
            start -= self._left
            self._turn()
        self._left -= start

    def take(self, most: int) -> Batch | None:
        batch = self._parts[self._part][0].take(min(most, self._left))
        if batch is not None:
            self._left -= len(batch.replies)
            if not self._left:
                self._turn()
        return batch

    def _turn(self) -> None:
        self._part = (self._part + 1) % len(self._parts)
        self._left = self._parts[self._part][1]
