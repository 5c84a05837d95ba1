"""What a server is put together of, out of its settings."""

import logging
import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from hashserv.address import parse_address
from hashserv.equivalence.accounts import Accounts
from hashserv.equivalence.collection import Collection
from hashserv.equivalence.downstream import DownstreamEquivalences
from hashserv.equivalence.mapping import Equivalences
from hashserv.equivalence.statistics import Counts, Statistics
from hashserv.model import DB_ADMIN, NONE, READ, REPORT
from hashserv.server.access import Access
from hashserv.server.handlers import Services
from hashserv.server.settings import Settings
from hashserv.server.snapshot_feed import SnapshotFeeds
from hashserv.store.base import Store
from hashserv.store.opening import Options, open_store
from hashserv.transport.listen import Listener, listen
from hashserv.transport.tls import ServerTls
from hashserv.upstream.remote import RemoteUpstream

logger = logging.getLogger("hashserv.server")


@dataclass(frozen=True)
class Inheritance:
    """What a worker has in common with the others; a server on its own makes these itself."""

    listeners: Sequence[Listener] = ()
    """Where it listens."""

    counts: Counts = field(default_factory=Counts)
    """Where it counts, together with the others."""

    worker: int = 0
    """Which of them it is."""

    server_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Another one each time a server starts, by which it recognizes itself as its upstream."""


async def compose(settings: Settings, inheritance: Inheritance) -> Services:
    """Open the database, and make what sessions share.

    Raises:
        StoreError: The database can't be used.
    """
    store = await _store(settings)
    return Services(
        equivalences=_equivalences(settings, store, inheritance.server_id),
        collection=Collection(store),
        statistics=Statistics(inheritance.counts, inheritance.worker),
        store=store,
        accounts=_accounts(settings, store),
        access=Access(frozenset(settings.anon_perms) - {NONE}, settings.read_only),
        snapshots=SnapshotFeeds(store, settings.limits.max_snapshots),
        server_id=inheritance.server_id,
    )


async def prepare_database(settings: Settings) -> None:
    """Bring a database up to date for servers that open it later, with its administrator.

    Raises:
        StoreError: The database can't be used.
    """
    store = await _store(settings)
    try:
        accounts = _accounts(settings, store)
        try:
            await ensure_administrator(settings, accounts)
        finally:
            await accounts.close()
    finally:
        await store.close()


async def ensure_administrator(settings: Settings, accounts: Accounts) -> None:
    """Create the administrator that settings name, if they do.

    Raises:
        StoreError: The database can't be used.
    """
    if settings.admin_username is not None and settings.admin_password is not None:
        await accounts.ensure_administrator(settings.admin_username, settings.admin_password)


def listen_on(text: str, settings: Settings) -> Listener:
    """Listen on one of the addresses of settings.

    Raises:
        AddressError: It can't be listened on.
    """
    return listen(
        parse_address(text), backlog=settings.limits.backlog, reuseport=settings.reuseport
    )


def certificate(settings: Settings) -> ServerTls | None:
    """Read the certificate that settings name, if they do.

    Raises:
        SettingsError: It can't be used.
    """
    if settings.tls_certificate is None:
        return None
    return ServerTls(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)


def warn_of_strangers(settings: Settings, listeners: Sequence[Listener]) -> None:
    """Say loudly where anybody on a network could remove what builds need."""
    if settings.read_only or DB_ADMIN not in settings.anon_perms:
        return
    for listener in listeners:
        if any(_is_reachable(listening) for listening in listener.sockets):
            logger.warning(
                "Whoever reaches %s may remove all mappings: clients without a login have %s. "
                "Unless that is meant to be, start with --anon-perms %s,%s",
                *(listener.address, DB_ADMIN, READ, REPORT),
            )


async def _store(settings: Settings) -> Store:
    return await open_store(
        settings.database,
        Options(
            durable=settings.durable,
            writable=not settings.read_only,
            username=settings.db_username,
            password=settings.db_password,
            replica=settings.database_replica,
            connections=settings.database_pool,
            patience=settings.database_timeout,
            max_log=settings.limits.log_bytes,
            page_cache=settings.limits.page_cache_bytes,
        ),
    )


def _accounts(settings: Settings, store: Store) -> Accounts:
    return Accounts(
        store.users,
        writable=not settings.read_only,
        failed_logins=settings.limits.failed_logins,
        new_tokens=settings.limits.new_tokens,
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


def _is_reachable(listening: socket.socket) -> bool:
    """Tell whether clients of other machines may connect to a socket."""
    if listening.family == socket.AF_UNIX:
        return False
    return not ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback
