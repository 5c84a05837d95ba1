"""Bounds on guessing tokens, and on making new ones (PROTOCOL.md §7)."""

import asyncio
from collections import OrderedDict, deque
from typing import Final

from hashserv.errors import InvokeError

DEFAULT_FAILED_LOGINS: Final = 20
DEFAULT_NEW_TOKENS: Final = 10

_MINUTE: Final = 60.0
_MOST_PEERS: Final = 10_000
"""Peers whose failed logins are remembered; the one that failed longest ago is forgotten first."""

_MOST_WAIT: Final = 10.0
"""Seconds that a new token may have to wait for its turn."""


class FailedLogins:
    """How often each peer failed to log in during the last minute.

    Args:
        most: How often it may.
    """

    def __init__(self, most: int = DEFAULT_FAILED_LOGINS) -> None:
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, peer: str) -> None:
        """Let a peer try to log in.

        Raises:
            InvokeError: It failed too often.
        """
        times = self._failures.get(peer)
        if times is not None and len(times) == self._most:
            wait = times[0] + _MINUTE - self._loop.time()
            if wait > 0:
                raise InvokeError(
                    f"Too many failed logins from your address: try again in {wait:.0f} seconds"
                )

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
