"""Questions that wait for an upstream's answers: whose they are, and which go next. No I/O.

What a caller asks together is a group. A question that another group asks already is not asked
again. Batches are made of groups in their order, or of parts of them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic

from hashserv.equivalence.upstream import UNANSWERED, Unanswered
from hashserv.upstream.questions import Answer, Key, Kind


class Group(Generic[Key, Answer]):
    """Questions that one caller asks together.

    Args:
        keys: The questions, each once.
        deadline: When nobody waits for the answers any more.
    """

    __slots__ = ("answers", "deadline", "keys", "over", "settled", "taken")

    def __init__(self, keys: list[Key], deadline: float) -> None:
        self.keys = keys
        self.deadline = deadline
        self.answers: dict[Key, Answer] = {}
        """What is answered so far."""
        self.taken = 0
        """How many of the keys went into batches."""
        self.settled = 0
        """How many of the keys have an answer, or will have none."""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when all are settled."""

    def settle(self, keys: Sequence[Key], answers: Sequence[Answer]) -> None:
        """Take in the answers to some of the keys; no answers if there are none."""
        if answers:
            self.answers.update(zip(keys, answers, strict=True))
        self.settled += len(keys)
        if self.settled == len(self.keys) and not self.over.done():
            self.over.set_result(None)


@dataclass(frozen=True)
class Batch(Generic[Key, Answer]):
    """Questions that go upstream together, and the groups whose they are."""

    keys: list[Key]
    parts: list[tuple[Group[Key, Answer], int]]
    """Each group, and how many of the keys are its, in order."""


class Waiting(Generic[Key, Answer]):
    """The questions of one kind that wait or are under way.

    Args:
        kind: The kind.
        told: Called with questions and their answers, before those who asked have them.
    """

    def __init__(
        self,
        kind: Kind[Key, Answer],
        told: Callable[[Sequence[Key], Sequence[Answer]], None] = lambda _keys, _answers: None,
    ) -> None:
        self.kind = kind
        self._told = told
        self._asking: dict[Key, Group[Key, Answer]] = {}
        self._queue: deque[Group[Key, Answer]] = deque()

    def __len__(self) -> int:
        """How many questions wait or are under way."""
        return len(self._asking)

    @property
    def next_deadline(self) -> float | None:
        """When the group that is next would give up, or `None` if there is none."""
        return self._queue[0].deadline if self._queue else None

    def join(self, keys: Iterable[Key], deadline: float) -> dict[Key, Group[Key, Answer]]:
        """Return the groups that ask some of the questions already.

        Those that still wait for their turn will wait until `deadline` at least.
        """
        joined = {key: group for key in keys if (group := self._asking.get(key)) is not None}
        for group in set(joined.values()):
            group.deadline = max(group.deadline, deadline)
        return joined

    def add(self, keys: list[Key], deadline: float) -> Group[Key, Answer]:
        """Queue questions that nobody asks yet, each once, and return their group."""
        group: Group[Key, Answer] = Group(keys, deadline)
        self._asking.update(dict.fromkeys(keys, group))
        self._queue.append(group)
        return group

    def take(self, most: int, now: float) -> Batch[Key, Answer]:
        """Return the next questions to ask, at most so many; those that are late are given up."""
        batch: Batch[Key, Answer] = Batch([], [])
        while self._queue and len(batch.keys) < most:
            group = self._queue[0]
            if group.deadline <= now:
                self._give_up(self._queue.popleft())
                continue
            part = group.keys[group.taken : group.taken + most - len(batch.keys)]
            group.taken += len(part)
            batch.keys.extend(part)
            batch.parts.append((group, len(part)))
            if group.taken == len(group.keys):
                self._queue.popleft()
        return batch

    def settle(self, batch: Batch[Key, Answer], answers: Sequence[Answer]) -> None:
        """Take in the answers to a batch; none at all if there are none."""
        if answers:
            self._told(batch.keys, answers)
        for key in batch.keys:
            del self._asking[key]
        at = 0
        for group, count in batch.parts:
            group.settle(batch.keys[at : at + count], answers[at : at + count])
            at += count

    def give_up_waiting(self) -> None:
        """Leave all questions without an answer that are not under way yet."""
        while self._queue:
            self._give_up(self._queue.popleft())

    def _give_up(self, group: Group[Key, Answer]) -> None:
        keys = group.keys[group.taken :]
        for key in keys:
            del self._asking[key]
        group.settle(keys, [])


def collect(
    keys: Sequence[Key], groups: Callable[[Key], Group[Key, Answer] | None]
) -> list[Answer | Unanswered]:
    """Return the answers to questions as far as there are any, in order."""
    answers: list[Answer | Unanswered] = []
    for key in keys:
        group = groups(key)
        answers.append(UNANSWERED if group is None else group.answers.get(key, UNANSWERED))
    return answers
