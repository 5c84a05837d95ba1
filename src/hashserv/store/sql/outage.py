"""A database that can't be reached: one probe tries it, all others wait for the probe."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from hashserv.errors import DatabaseUnreachable, StoreError

logger = logging.getLogger("hashserv.store")

PAUSE_SECONDS: Final = 0.1
"""Between two tries."""


class Outage:
    """Whether a database can be reached, and the wait until it can.

    Args:
        name: Names the database in the log.
        patience: For how many seconds requests wait.
        probe: Tries whether the database can be reached.
        over: Called when it can again.
    """

    def __init__(
        self,
        name: str,
        *,
        patience: float,
        probe: Callable[[], Awaitable[bool]],
        over: Callable[[], None],
    ) -> None:
        self._name = name
        self._patience = patience
        self._probe = probe
        self._over = over
        self._why = ""
        self._ended = asyncio.Event()
        self._ended.set()
        self._probing: asyncio.Task[None] | None = None

    @property
    def under_way(self) -> bool:
        """Whether it is known that the database can't be reached."""
        return not self._ended.is_set()

    def begin(self, error: StoreError) -> None:
        """Take note that the database could not be reached, and probe it from now on."""
        self._why = str(error)
        if not self.under_way:
            if self._patience:
                logger.warning("Requests wait up to %g s: %s", self._patience, error)
            self._ended.clear()
            self._probing = asyncio.create_task(self._probe_on())

    async def end(self, deadline: float) -> None:
        """Wait until the database can be reached.

        Args:
            deadline: Until when, in the event loop's time.

        Raises:
            DatabaseUnreachable: It could not until then.
        """
        if not self.under_way:
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._ended.wait()
        except TimeoutError:
            raise DatabaseUnreachable(self._why) from None

    async def close(self) -> None:
        """Stop probing; whoever waits goes on as if it were over. Idempotent."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        self._ended.set()

    async def _probe_on(self) -> None:
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            if await self._probe():
                break
        logger.log(logging.WARNING if self._patience else logging.INFO, "%s is back", self._name)
        self._over()
        self._ended.set()
