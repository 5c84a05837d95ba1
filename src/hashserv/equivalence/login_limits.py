"""Bounds on guessing tokens, and on making new ones (PROTOCOL.md §7)."""

import asyncio
from collections import OrderedDict, deque
from typing import Final

from hashserv.errors import InvokeError

DEFAULT_FAILED_LOGINS: Final = 20
MOST_FAILED_LOGINS: Final = 10_000
DEFAULT_NEW_TOKENS: Final = 10

_MINUTE: Final = 60.0
_MOST_PEERS: Final = 10_000
"""Peers that are remembered; the one that failed longest ago is forgotten first."""

_MOST_WAIT: Final = 10.0
"""Seconds that a new token may have to wait for its turn."""


class Failures:
    """How often each peer failed at something during the last minute.

    Args:
        most: How often it may.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, peer: str) -> float:
        """Return for how many seconds a peer may not try again; 0 if it may."""
        times = self._failures.get(peer)
        if times is None or len(times) < self._most:
            return 0
        return max(0.0, times[0] + _MINUTE - self._loop.time())

    def add(self, peer: str) -> None:
        """Take note that a peer failed."""
        times = self._failures.setdefault(peer, deque(maxlen=self._most))
        times.append(self._loop.time())
        self._failures.move_to_end(peer)
        if len(self._failures) > _MOST_PEERS:
            self._failures.popitem(last=False)


class TokenTurns:
    """Turns for making tokens, so many a second for the whole server.

    Args:
        rate: How many a second.
    """

    def __init__(self, rate: float = DEFAULT_NEW_TOKENS) -> None:
        self._interval = 1 / rate
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.time()

    async def take(self) -> None:
        """Wait for a turn.

        Raises:
            InvokeError: Too many others wait already.
        """
        now = self._loop.time()
        turn = max(now, self._next)
        if turn - now > _MOST_WAIT:
            raise InvokeError("Too many new tokens are being made: try again in a while")
        self._next = turn + self._interval
        await asyncio.sleep(turn - now)
