"""A server: its parts put together, its start and its end."""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
from collections.abc import Callable, Iterator
from typing import Final

from hashserv.address import WebSocketAddress
from hashserv.errors import InvokeError, SettingsError
from hashserv.server.composition import (
    Inheritance,
    certificate,
    compose,
    ensure_administrator,
    listen_on,
    warn_of_strangers,
)
from hashserv.server.handlers import Services
from hashserv.server.session import Session
from hashserv.server.settings import Settings, over_tls
from hashserv.transport.listen import Listener
from hashserv.transport.tls_listening import TlsListening

logger = logging.getLogger("hashserv.server")

QUIET_SECONDS: Final = 60.0
"""How long the log says no more of refused connections."""

OWN_FILES: Final = 64
"""Open files that are not connections: the database's, listening sockets, and some to spare."""

HANDSHAKE_SHARE: Final = 4
"""Handshakes of TLS that may be under way are this part of the connections that there may be."""

GARBAGE_OBJECTS: Final = 10_000
"""New objects after which cycles among them are looked for. A group of reports makes hundreds that
stay until their transaction ends."""

Ready = Callable[[list[str]], None]

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""What ends a server: it answers what it has received, and exits with 0."""


class Server:
    """A hash equivalence server in the running event loop.

    Args:
        settings: What it is told.
        inheritance: What it has in common with others, if it is one of several workers.

    Raises:
        SettingsError: The certificate can't be used.
    """

    def __init__(self, settings: Settings, inheritance: Inheritance | None = None) -> None:
        self._settings = settings
        self._inheritance = inheritance or Inheritance()
        self._tls = certificate(settings)
        self._sessions: set[Session] = set()
        self._serving: list[asyncio.Server | TlsListening] = []
        self._listeners: list[Listener] = []
        self._services: Services | None = None
        self._most_sessions = 0
        self._connections = self._inheritance.counts.connections  # of each worker
        self._quiet_until = 0.0

    @property
    def addresses(self) -> list[str]:
        """The addresses that clients use: the real ones, for port 0 as well. Only once started."""
        if not self._serving:
            raise RuntimeError("the server has not been started")
        return [str(listener.address) for listener in self._listeners]

    async def start(self) -> None:
        """Open the database and listen. When this returns, clients are served.

        Raises:
            AddressError: An address can't be listened on.
            StoreError: The database can't be used.
        """
        settings = self._settings
        try:
            # Addresses first: a second server by mistake must not touch the first one's database.
            self._listeners.extend(self._inheritance.listeners)
            if not self._listeners:
                for text in settings.bind:
                    self._listeners.append(listen_on(text, settings))
                warn_of_strangers(settings, self._listeners)
            self._services = await compose(settings, self._inheritance)
            await ensure_administrator(settings, self._services.accounts)
            self._most_sessions = min(settings.limits.max_connections, _allow_files())
            for listener in self._listeners:
                await self._serve(listener)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop accepting, answer what was received, close the database. Idempotent."""
        for serving in self._serving:
            serving.close()
        self._serving.clear()
        for listener in self._listeners:
            listener.close()
        if self._sessions:
            finishing = [asyncio.ensure_future(session.finish()) for session in self._sessions]
            await asyncio.wait(finishing, timeout=self._settings.limits.shutdown_timeout)
        for session in list(self._sessions):
            session.abort()
        if self._services is not None:
            services, self._services = self._services, None
            await services.collection.close()
            await services.equivalences.close()
            await services.accounts.close()
            await services.store.close()

    def reload(self) -> None:
        """Read the certificate's files again: new connections use what is in them now.

        If they can't be used, the log says why, and all stays as it was.
        """
        if self._tls is None:
            return
        try:
            self._tls.reload()
        except SettingsError as error:
            logger.error("The certificate stays as it was: %s", error)  # noqa: TRY400 - told whole
        else:
            logger.warning("The certificate was read again")

    async def _serve(self, listener: Listener) -> None:
        make: Callable[[], asyncio.Protocol] = self._session
        if isinstance(listener.address, WebSocketAddress):
            make = self._websocket
        limits = self._settings.limits
        if self._tls is not None and over_tls(listener.address):
            self._serving.append(
                TlsListening(
                    listener.sockets,
                    self._tls,
                    make,
                    most=max(1, self._most_sessions // HANDSHAKE_SHARE),
                    timeout=limits.handshake_timeout,
                )
            )
            return
        loop = asyncio.get_running_loop()
        for listening in listener.sockets:
            self._serving.append(
                await loop.create_server(make, sock=listening, backlog=limits.backlog)
            )

    def _websocket(self) -> asyncio.Protocol:
        from hashserv.transport.websocket_server import (
            WebSocketEnd,
        )  # late: not all servers need it

        return WebSocketEnd(
            self._session(chunks=False),
            max_message=self._settings.limits.max_message,
            message_timeout=self._settings.limits.message_timeout,
            trusted_proxies=self._settings.proxy_networks,
            compression=self._settings.compression,
        )

    def _session(self, *, chunks: bool = True) -> Session:
        if self._services is None:
            raise RuntimeError("the server has been stopped")
        return Session(
            self._services,
            self._settings.limits,
            opened=self._opened,
            closed=self._closed,
            chunks=chunks,
            refusal=self._refusal() if self._full else None,
        )

    def _opened(self, session: Session) -> None:
        self._sessions.add(session)
        self._connections[self._inheritance.worker] = len(self._sessions)

    def _closed(self, session: Session) -> None:
        self._sessions.discard(session)
        self._connections[self._inheritance.worker] = len(self._sessions)

    @property
    def _full(self) -> bool:
        """Whether there are as many connections as there may be, here or in all workers."""
        most = self._settings.limits.max_connections
        return len(self._sessions) >= self._most_sessions or sum(self._connections) >= most

    def _refusal(self) -> InvokeError:
        """Return what one connection too many is told; log it, but not for each of many."""
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_SECONDS
            logger.warning(
                "Refusing connections: there are %d. Raise --max-connections, or the limit of "
                "open files (ulimit -n), if they are meant to be",
                sum(self._connections),
            )
        return InvokeError("Too many connections: the server has as many as it may, try later")


async def serve(
    settings: Settings, ready: Ready = lambda _: None, inheritance: Inheritance | None = None
) -> None:
    """Run a server until a signal ends it; SIGHUP has it read its certificate again.

    Args:
        settings: What it is told.
        ready: Called with the real addresses once clients are served.
        inheritance: What it has in common with others, if it is one of several workers.

    Raises:
        SettingsError: The certificate can't be used.
        AddressError: The address can't be listened on.
        StoreError: The database can't be used.
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    server = Server(settings, inheritance)
    await server.start()  # which a signal just ends, also while it carries an old database over
    for number in SIGNALS:
        loop.add_signal_handler(number, ended.set)
    if settings.tls_certificate is not None:  # else it means that the terminal is gone
        loop.add_signal_handler(signal.SIGHUP, server.reload)
    try:
        logger.info("Serving on %s", ", ".join(server.addresses))
        with _spared_garbage_collection():
            ready(server.addresses)
            await ended.wait()
    finally:
        logger.info("Stopping")
        await server.stop()


def run(
    settings: Settings, ready: Ready = lambda _: None, inheritance: Inheritance | None = None
) -> None:
    """Run `serve` in an event loop of its own: uvloop's where it is installed."""
    loop_factory = asyncio.new_event_loop
    with contextlib.suppress(ImportError):  # not on every platform
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(settings, ready, inheritance))


@contextlib.contextmanager
def _spared_garbage_collection() -> Iterator[None]:
    """Have the collector of cycles pass over what stays until the end: modules, mostly.

    Going through them took a third of the time of a server under reports. What was so before is
    so afterwards: a server may run in a process that goes on.
    """
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if not frozen:  # what others froze can't be told from what was frozen here
            gc.unfreeze()


def _allow_files() -> int:
    """Allow as many open files as the system lets this process have; return how many may connect.

    Past the limit of open files, connections could only be dropped without a word.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # then it stays as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return max(1, soft - OWN_FILES)
