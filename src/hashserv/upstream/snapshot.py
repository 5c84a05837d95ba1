"""Copying all mappings of an upstream in advance, and following what is new there."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Final, NoReturn

from hashserv.equivalence.upstream import SnapshotSummary
from hashserv.errors import StoreError
from hashserv.model import MappingKey
from hashserv.upstream.breaker import REFUSED_PAUSE
from hashserv.upstream.connection import UpstreamConnection
from hashserv.upstream.failures import explain
from hashserv.upstream.snapshot_file import SnapshotFile
from hashserv.wire.handshake import EXTENSIONS
from hashserv.wire.snapshot import BEGINNING, EXTENSION, RESET, ROW_BYTES, Piece, decode_piece

logger = logging.getLogger("hashserv.upstream")

BATCH_ROWS: Final = 131_072
"""Rows in one transaction, 6 MiB. The file's pages are changed at random, each of them once in a
batch: the larger a batch, the fewer pages are written for each row."""

BATCH_SECONDS: Final = 2.0
"""How long rows of a slow line are collected at most."""

LINES_AT_ONCE: Final = 16
"""Lines that are read before other tasks have their turn: less than a millisecond."""

SILENCE_SECONDS: Final = 60.0
"""How long nothing may come; signs of life come every 15 seconds."""

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
"""Seconds before the first new attempt after a failure, and at most between two."""

UNSUPPORTED_PAUSE: Final = 3600.0
"""Seconds after which it is looked again whether an upstream has snapshots."""

PROGRESS_SECONDS: Final = 10.0
"""How often the log says how far a copy is."""


class _State(Enum):
    """What the copy does; the values are those of `SnapshotSummary`."""

    WAITING = "waiting"
    COPYING = "copying"
    FOLLOWING = "following"
    UNSUPPORTED = "unsupported"


class _Collecting:
    """Rows on their way into the file: one batch is written while the next one is collected."""

    def __init__(self, file: SnapshotFile) -> None:
        self._file = file
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._began = 0.0
        self._writing: asyncio.Task[None] | None = None
        self.position = file.position
        """After the last row that was collected."""

    def add(self, piece: Piece) -> None:
        """Collect rows."""
        if not self._pieces:
            self._began = self._loop.time()
        self._pieces.append(piece.rows)
        self._bytes += len(piece.rows)
        self.position = piece.position

    @property
    def is_due(self) -> bool:
        """Whether the batch should be written now."""
        if not self._pieces:
            return False
        late = self._loop.time() - self._began >= BATCH_SECONDS
        return late or self._bytes >= BATCH_ROWS * ROW_BYTES

    async def write(self) -> None:
        """Begin to write the batch, as soon as the one before is written.

        Raises:
            StoreError: The one before can't be written.
        """
        await self.written()
        if self._pieces:
            rows, self._pieces, self._bytes = b"".join(self._pieces), [], 0
            self._writing = self._loop.create_task(self._file.add(rows, self.position))

    async def written(self) -> None:
        """Wait until nothing is being written.

        Raises:
            StoreError: It can't be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    async def settled(self) -> None:
        """Wait until nothing is being written, whatever comes of it: the file knows."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
            if not self._writing.cancelled():
                self._writing.exception()  # else asyncio complains that nobody asked


class FollowedSnapshot:
    """A copy of an upstream's mappings, which is followed from now on.

    Whatever goes wrong is told in the log and tried again; it is no error of anybody who asks.

    Args:
        file: The copy; this object closes it.
        place: The upstream's address, for the log.
        connect: Connects to the upstream.
        secret: What must not go into the log.
    """

    def __init__(
        self,
        file: SnapshotFile,
        place: str,
        connect: Callable[[], Awaitable[UpstreamConnection]],
        *,
        secret: str | None,
    ) -> None:
        self._file = file
        self._place = place
        self._connect = connect
        self._secret = secret
        self._state = _State.WAITING
        self._pause = FIRST_PAUSE
        self._last_words = ""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._follow())

    @property
    def has_mappings(self) -> bool:
        """Whether looking up makes sense."""
        return self._file.mappings > 0

    def lookup(self, keys: Sequence[MappingKey]) -> list[str | None]:
        """Return the unihash of each key, or `None` where the copy has none. Does not wait."""
        return self._file.lookup(keys)

    def summary(self) -> SnapshotSummary:
        """Return how far the copy is."""
        return SnapshotSummary(state=self._state.value, mappings=self._file.mappings)

    async def close(self) -> None:
        """Follow no more. Idempotent."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._file.close()

    async def _follow(self) -> None:
        while True:
            try:
                supported = await self._follow_once()
                pause = 0.0 if supported else UNSUPPORTED_PAUSE
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not hurt who asks
                pause = self._failed(error)
            await asyncio.sleep(pause)

    async def _follow_once(self) -> bool:
        """Follow the upstream as long as that goes well; `False` if it does not know how."""
        if self._file.failure is not None:
            await self._file.mend()
        async with asyncio.timeout(SILENCE_SECONDS):
            connection = await self._connect()
        try:
            if EXTENSION not in connection.headers.get(EXTENSIONS, "").split():
                if self._state is not _State.UNSUPPORTED:
                    logger.warning(
                        "The upstream %s has no snapshots to copy; it is asked as without one",
                        self._place,
                    )
                self._state = _State.UNSUPPORTED
                return False
            await self._copy(connection)
        finally:
            await connection.close()

    async def _copy(self, connection: UpstreamConnection) -> NoReturn:
        after = self._file.position
        arguments = {"after": after.id, "key": after.key}
        async with asyncio.timeout(SILENCE_SECONDS):
            await connection.begin_lines("snapshot-stream", arguments)
        self._state = _State.COPYING
        logger.info(
            "Copying the mappings of the upstream %s, after %d that are here",
            self._place,
            self._file.mappings,
        )
        collecting = _Collecting(self._file)
        try:
            await self._take_all(connection, collecting)
        except StoreError:
            raise
        except Exception:
            await collecting.write()  # what came before it is good
            raise
        finally:
            await collecting.settled()  # and no more: this may be a cancellation

    async def _take_all(self, connection: UpstreamConnection, collecting: _Collecting) -> NoReturn:
        began = told = self._loop.time()
        first = True
        while True:
            async with asyncio.timeout(SILENCE_SECONDS):
                lines = await connection.lines(LINES_AT_ONCE)
            for line in lines:
                if first and line == RESET:
                    logger.warning(
                        "The upstream %s has another database now, or has lost what was copied "
                        "last: its snapshot is begun anew",
                        self._place,
                    )
                    await self._file.start_anew()
                    collecting.position = BEGINNING
                else:
                    await self._take(decode_piece(line, collecting.position), collecting, began)
                first = False
            if self._file.failure is not None:
                raise self._file.failure
            if self._state is _State.COPYING and self._loop.time() - told >= PROGRESS_SECONDS:
                told = self._loop.time()
                logger.info(
                    "%d mappings of the upstream %s are copied", self._file.mappings, self._place
                )
            await asyncio.sleep(0)  # the others' turn

    async def _take(self, piece: Piece, collecting: _Collecting, began: float) -> None:
        self._pause = FIRST_PAUSE
        if piece.rows:
            collecting.add(piece)
            if collecting.is_due:
                await collecting.write()
            return
        await collecting.write()
        await collecting.written()
        if self._state is _State.COPYING:
            self._state = _State.FOLLOWING
            self._last_words = ""
            logger.info(
                "All %d mappings of the upstream %s are here, after %.1f s; what is new there "
                "follows",
                self._file.mappings,
                self._place,
                self._loop.time() - began,
            )

    def _failed(self, error: Exception) -> float:
        """Say what went wrong, and return how long to wait."""
        self._state = _State.WAITING
        pause = self._pause
        if isinstance(error, StoreError):
            words = str(error)
        else:
            cause = explain(error, timeout=SILENCE_SECONDS, secret=self._secret)
            words = cause.words
            if cause.refused:
                pause = max(pause, REFUSED_PAUSE)
        # What goes on failing in the same way is no news.
        level = logging.INFO if words == self._last_words else logging.WARNING
        self._last_words = words
        logger.log(
            level,
            "The snapshot of the upstream %s is not followed: %s. It goes on in %g s",
            *(self._place, words, pause),
        )
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return pause
