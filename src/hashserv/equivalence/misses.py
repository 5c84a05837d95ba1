"""What an upstream server did not know a while ago, so that it is not asked again at once."""

import asyncio
from collections.abc import Hashable
from typing import Final

DEFAULT_TTL: Final = 60.0
"""Seconds that a miss is remembered: long enough for a build's repeated questions, and short enough
that what others report there is soon found."""

MOST_MISSES: Final = 500_000
"""Misses that are remembered at once; the oldest are forgotten first."""


class Misses:
    """Questions without an answer, each remembered for a while.

    Args:
        ttl: For how many seconds.
        most: How many at once.
    """

    def __init__(self, ttl: float = DEFAULT_TTL, most: int = MOST_MISSES) -> None:
        self._ttl = ttl
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._until: dict[Hashable, float] = {}  # all live alike: the first are the oldest

    def add(self, question: Hashable) -> None:
        """Remember a question that has no answer."""
        now = self._loop.time()
        self._until.pop(question, None)
        self._until[question] = now + self._ttl
        while self._until:
            oldest = next(iter(self._until))
            if self._until[oldest] > now and len(self._until) <= self._most:
                return
            del self._until[oldest]

    def discard(self, question: Hashable) -> None:
        """Forget a question: it may have an answer now."""
        self._until.pop(question, None)

    def __contains__(self, question: Hashable) -> bool:
        until = self._until.get(question)
        return until is not None and until > self._loop.time()

    def __len__(self) -> int:
        """How many are held, those that are over included."""
        return len(self._until)
