"""A server: its parts put together, its start and its end."""

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import uuid
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from hashserv.address import WebSocketAddress, parse_address
from hashserv.equivalence.accounts import Accounts
from hashserv.equivalence.collection import Collection
from hashserv.equivalence.downstream import DownstreamEquivalences
from hashserv.equivalence.mapping import Equivalences
from hashserv.equivalence.statistics import Statistics
from hashserv.errors import InvokeError, SettingsError
from hashserv.model import DB_ADMIN, NONE, READ, REPORT
from hashserv.server.access import Access
from hashserv.server.handlers import Services
from hashserv.server.session import Session
from hashserv.server.settings import Settings, over_tls
from hashserv.server.snapshot_feed import SnapshotFeeds
from hashserv.store.base import Store
from hashserv.store.opening import Options, open_store
from hashserv.transport.listen import Listener, listen
from hashserv.transport.tls import ServerTls
from hashserv.transport.tls_listening import TlsListening
from hashserv.upstream.remote import RemoteUpstream

logger = logging.getLogger("hashserv.server")

QUIET_SECONDS: Final = 60.0
"""How long the log says no more of refused connections."""

OWN_FILES: Final = 32
"""Open files that are not connections: the database's, listening sockets, and some to spare."""

HANDSHAKE_SHARE: Final = 4
"""Handshakes of TLS that may be under way are this part of the connections that there may be."""

Ready = Callable[[list[str]], None]

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""What ends a server: it answers what it has received, and exits with 0."""


class Server:
    """A hash equivalence server in the running event loop.

    Args:
        settings: What it is told.

    Raises:
        SettingsError: The certificate can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tls = _tls(settings)
        self._sessions: set[Session] = set()
        self._serving: list[asyncio.Server | TlsListening] = []
        self._listeners: list[Listener] = []
        self._services: Services | None = None
        self._most_sessions = 0
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
            for text in settings.bind:
                self._listeners.append(
                    listen(
                        parse_address(text),
                        backlog=settings.limits.backlog,
                        reuseport=settings.reuseport,
                    )
                )
            self._services = await _services(settings)
            if settings.admin_username is not None and settings.admin_password is not None:
                await self._services.accounts.ensure_administrator(
                    settings.admin_username, settings.admin_password
                )
            self._most_sessions = min(settings.limits.max_connections, _allow_files())
            for listener in self._listeners:
                await self._serve(listener)
        except BaseException:
            await self.stop()
            raise
        self._warn_of_strangers()

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
            opened=self._sessions.add,
            closed=self._sessions.discard,
            chunks=chunks,
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

    def _warn_of_strangers(self) -> None:
        """Say loudly where anybody on a network could remove what builds need."""
        if self._settings.read_only or DB_ADMIN not in self._settings.anon_perms:
            return
        for listener in self._listeners:
            if any(_is_reachable(listening) for listening in listener.sockets):
                logger.warning(
                    "Whoever reaches %s may remove all mappings: clients without a login have %s. "
                    "Unless that is meant to be, start with --anon-perms %s,%s",
                    *(listener.address, DB_ADMIN, READ, REPORT),
                )


async def serve(settings: Settings, ready: Ready = lambda _: None) -> None:
    """Run a server until a signal ends it; SIGHUP has it read its certificate again.

    Args:
        settings: What it is told.
        ready: Called with the real addresses once clients are served.

    Raises:
        SettingsError: The certificate can't be used.
        AddressError: The address can't be listened on.
        StoreError: The database can't be used.
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    server = Server(settings)
    await server.start()  # which a signal just ends, also while it carries an old database over
    for number in SIGNALS:
        loop.add_signal_handler(number, ended.set)
    if settings.tls_certificate is not None:  # else it means that the terminal is gone
        loop.add_signal_handler(signal.SIGHUP, server.reload)
    try:
        logger.info("Serving on %s", ", ".join(server.addresses))
        ready(server.addresses)
        await ended.wait()
    finally:
        logger.info("Stopping")
        await server.stop()


def run(settings: Settings, ready: Ready = lambda _: None) -> None:
    """Run `serve` in an event loop of its own: uvloop's where it is installed."""
    loop_factory = asyncio.new_event_loop
    with contextlib.suppress(ImportError):  # not on every platform
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(settings, ready))


async def _services(settings: Settings) -> Services:
    store = await open_store(
        settings.database,
        Options(
            durable=settings.durable,
            writable=not settings.read_only,
            username=settings.db_username,
            password=settings.db_password,
            connections=settings.database_pool,
            patience=settings.database_timeout,
            max_log=settings.limits.log_bytes,
            page_cache=settings.limits.page_cache_bytes,
        ),
    )
    server_id = uuid.uuid4().hex
    return Services(
        equivalences=_equivalences(settings, store, server_id),
        collection=Collection(store),
        statistics=Statistics(),
        store=store,
        accounts=Accounts(
            store.users,
            writable=not settings.read_only,
            failed_logins=settings.limits.failed_logins,
            new_tokens=settings.limits.new_tokens,
        ),
        access=Access(frozenset(settings.anon_perms) - {NONE}, settings.read_only),
        snapshots=SnapshotFeeds(store, settings.limits.max_snapshots),
        server_id=server_id,
    )


def _equivalences(settings: Settings, store: Store, server_id: str) -> Equivalences:
    limits = settings.limits
    if settings.upstream is None:
        return Equivalences(
            store, cache_bytes=limits.cache_bytes, unihash_digits=settings.unihash_digits
        )
    upstream = RemoteUpstream(
        parse_address(settings.upstream),
        timeout=settings.upstream_timeout,
        own_id=server_id,
        unihash_digits=settings.unihash_digits,
        username=settings.upstream_username,
        token=settings.upstream_token,
        snapshot=settings.upstream_snapshot,
    )
    return DownstreamEquivalences(
        store,
        upstream,
        cache_bytes=limits.cache_bytes,
        unihash_digits=settings.unihash_digits,
        negative_ttl=settings.upstream_negative_ttl,
    )


def _tls(settings: Settings) -> ServerTls | None:
    if settings.tls_certificate is None:
        return None
    return ServerTls(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)


def _is_reachable(listening: socket.socket) -> bool:
    """Tell whether clients of other machines may connect to a socket."""
    if listening.family == socket.AF_UNIX:
        return False
    return not ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


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
