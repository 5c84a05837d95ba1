"""A server: its parts put together, its start and its end."""

import asyncio
import contextlib
import logging
import resource
import signal
from collections.abc import Callable
from typing import Final

from hashserv.address import parse_address
from hashserv.equivalence.collection import Collection
from hashserv.equivalence.mapping import Equivalences
from hashserv.equivalence.statistics import Statistics
from hashserv.errors import InvokeError, SettingsError
from hashserv.server.access import Access
from hashserv.server.handlers import Services
from hashserv.server.session import Session
from hashserv.server.settings import Settings
from hashserv.store import sqlite_file
from hashserv.store.base import Store
from hashserv.store.sqlite import SqliteStore
from hashserv.transport.listen import Listener, listen

logger = logging.getLogger("hashserv.server")

QUIET_SECONDS: Final = 60.0
"""How long the log says no more of refused connections."""

OWN_FILES: Final = 32
"""Open files that are not connections: the database's, listening sockets, and some to spare."""

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""What ends a server: it answers what it has received, and exits with 0."""


class Server:
    """A hash equivalence server in the running event loop.

    Args:
        settings: What it is told.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sessions: set[Session] = set()
        self._serving: list[asyncio.Server] = []
        self._listener: Listener | None = None
        self._services: Services | None = None
        self._most_sessions = 0
        self._quiet_until = 0.0

    @property
    def address(self) -> str:
        """The address that clients use: the real one, for port 0 as well. Only once started."""
        if self._listener is None:
            raise RuntimeError("the server has not been started")
        return str(self._listener.address)

    async def start(self) -> None:
        """Open the database and listen. When this returns, clients are served.

        Raises:
            AddressError: The address can't be listened on.
            StoreError: The database can't be used.
        """
        settings = self._settings
        address = parse_address(settings.bind)
        # The address first: a second server by mistake must not touch the first one's database.
        self._listener = listen(
            address, backlog=settings.limits.backlog, reuseport=settings.reuseport
        )
        try:
            self._services = _services(settings)
            self._most_sessions = min(settings.limits.max_connections, _allow_files())
            loop = asyncio.get_running_loop()
            for listening in self._listener.sockets:
                self._serving.append(
                    await loop.create_server(
                        self._session, sock=listening, backlog=settings.limits.backlog
                    )
                )
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop accepting, answer what was received, close the database. Idempotent."""
        for serving in self._serving:
            serving.close()
        self._serving.clear()
        if self._listener is not None:
            self._listener.close()
        if self._sessions:
            finishing = [asyncio.ensure_future(session.finish()) for session in self._sessions]
            await asyncio.wait(finishing, timeout=self._settings.limits.shutdown_timeout)
        for session in list(self._sessions):
            session.abort()
        if self._services is not None:
            services, self._services = self._services, None
            await services.collection.close()
            await services.store.close()

    def _session(self) -> Session:
        if self._services is None:
            raise RuntimeError("the server has been stopped")
        return Session(
            self._services,
            self._settings.limits,
            opened=self._sessions.add,
            closed=self._sessions.discard,
            refusal=self._refusal() if len(self._sessions) >= self._most_sessions else None,
        )

    def _refusal(self) -> InvokeError:
        """Return what one connection too many is told; log it, but not for each of many."""
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_SECONDS
            logger.warning(
                "Refusing connections: there are %d. Raise --max-connections, or the limit of "
                "open files (ulimit -n), if they are meant to be",
                len(self._sessions),
            )
        return InvokeError("Too many connections: the server has as many as it may, try later")


async def serve(settings: Settings, ready: Callable[[str], None] = lambda _: None) -> None:
    """Run a server until a signal ends it.

    Args:
        settings: What it is told.
        ready: Called with the real address once clients are served.

    Raises:
        AddressError: The address can't be listened on.
        StoreError: The database can't be used.
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    server = Server(settings)
    await server.start()  # which a signal just ends, also while it carries an old database over
    for number in SIGNALS:
        loop.add_signal_handler(number, ended.set)
    try:
        logger.info("Serving on %s", server.address)
        ready(server.address)
        await ended.wait()
    finally:
        logger.info("Stopping")
        await server.stop()


def run(settings: Settings, ready: Callable[[str], None] = lambda _: None) -> None:
    """Run `serve` in an event loop of its own: uvloop's where it is installed."""
    loop_factory = asyncio.new_event_loop
    with contextlib.suppress(ImportError):  # not on every platform
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(settings, ready))


def _services(settings: Settings) -> Services:
    if "://" in settings.database:
        raise SettingsError(
            f"The database '{settings.database}' is a URL: name an SQLite file, other engines are "
            "not supported yet"
        )
    store: Store = SqliteStore(
        settings.database,
        durable=settings.durable,
        writable=not settings.read_only or sqlite_file.is_writable(settings.database),
        max_log=settings.limits.log_bytes,
        page_cache=settings.limits.page_cache_bytes,
    )
    return Services(
        equivalences=Equivalences(
            store,
            cache_bytes=settings.limits.cache_bytes,
            unihash_digits=settings.unihash_digits,
        ),
        collection=Collection(store),
        statistics=Statistics(),
        store=store,
        access=Access(frozenset(settings.anon_perms), settings.read_only),
    )


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
