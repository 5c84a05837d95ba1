"""Accepting over TLS, with a bound on handshakes that are under way.

An event loop's own server makes nothing of a connection known before its handshake is over, so
that silent clients could take all open files without anybody noticing.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Final

from hashserv.transport.tls import ServerTls

logger = logging.getLogger("hashserv.server")

_SHUTDOWN_SECONDS: Final = 5.0
"""How long a peer may take to say goodbye."""

_PAUSE_SECONDS: Final = 1.0
"""How long to accept nothing after that failed: the system has no open files left."""

_AT_ONCE: Final = 64
"""Connections that are accepted in one turn of the event loop."""


class TlsListening:
    """Accepts connections, and gives them to protocols once their handshake is over.

    Where too many handshakes are under way, the oldest is given up: a client that means it takes
    milliseconds, and one that is silent is soon among the oldest.

    Args:
        sockets: Listening already; who gave them closes them.
        tls: The certificate.
        make: Makes the protocol of a connection.
        most: How many handshakes may be under way.
        timeout: How many seconds each may take.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        tls: ServerTls,
        make: Callable[[], asyncio.Protocol],
        *,
        most: int,
        timeout: float,
    ) -> None:
        self._sockets = sockets
        self._tls = tls
        self._make = make
        self._most = most
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._handshakes: dict[asyncio.Task[None], socket.socket] = {}  # the first is the oldest
        self._pause: asyncio.TimerHandle | None = None
        self._start()

    def close(self) -> None:
        """Accept no more, and give up handshakes that are under way. Idempotent."""
        self._stop()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        for handshake in list(self._handshakes):
            handshake.cancel()

    def _start(self) -> None:
        self._pause = None
        for listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _stop(self) -> None:
        for listening in self._sockets:
            if listening.fileno() >= 0:
                self._loop.remove_reader(listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _place = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.error("Can't accept connections for a while: %s", error)  # noqa: TRY400
                self._stop()
                self._pause = self._loop.call_later(_PAUSE_SECONDS, self._start)
                return
            connection.setblocking(False)  # noqa: FBT003
            if len(self._handshakes) >= self._most:
                oldest = next(iter(self._handshakes))
                del self._handshakes[oldest]
                oldest.cancel()
            handshake = self._loop.create_task(self._shake_hands(connection))
            self._handshakes[handshake] = connection
            handshake.add_done_callback(self._forget)

    def _forget(self, handshake: asyncio.Task[None]) -> None:
        self._handshakes.pop(handshake, None)

    async def _shake_hands(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._make,
                connection,
                ssl=self._tls.context,
                ssl_handshake_timeout=self._timeout,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )
        except OSError as error:
            logger.debug("A TLS handshake failed: %s", error)
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise
