"""Every setting of a server: its default, its bounds, what it is for."""

from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Final

from hashserv.address import (
    Address,
    Network,
    TlsAddress,
    UnixAddress,
    WebSocketAddress,
    parse_address,
)
from hashserv.equivalence.accounts import check_username
from hashserv.equivalence.login_limits import (
    DEFAULT_FAILED_LOGINS,
    DEFAULT_NEW_TOKENS,
    MOST_FAILED_LOGINS,
)
from hashserv.equivalence.mapping import DEFAULT_CACHE_BYTES
from hashserv.equivalence.misses import DEFAULT_TTL
from hashserv.errors import InvokeError, SettingsError
from hashserv.model import (
    ALL,
    ALL_PERMISSIONS,
    DEFAULT_ANON_PERMS,
    NONE,
    UNIHASH_DIGITS,
    USER_ADMIN,
)
from hashserv.store.checkpoint import DEFAULT_MAX_LOG
from hashserv.store.opening import DEFAULT_CONNECTIONS, DEFAULT_PATIENCE, LEAST_CONNECTIONS, is_url
from hashserv.store.sqlite import DEFAULT_PAGE_CACHE
from hashserv.upstream.pool import DEFAULT_TIMEOUT
from hashserv.wire.framing import DEFAULT_MAX_LINE, DEFAULT_MAX_MESSAGE

_LEAST_LINE: Final = 1024
_MOST_BACKLOG: Final = 65_535
_LEAST_LOG: Final = 1024 * 1024
_MOST_WORKERS: Final = 64


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds that keep one peer from hurting the others. Times are in seconds, sizes in bytes."""

    max_line: int = DEFAULT_MAX_LINE
    """A line of the stream protocol; over it the connection is closed."""

    max_message: int = DEFAULT_MAX_MESSAGE
    """A message, all its chunks together; over it the connection is closed."""

    handshake_timeout: float = 30.0
    """How long a client may take for its handshake."""

    message_timeout: float = 60.0
    """How long a client that has begun a line or message may send nothing more of it."""

    write_timeout: float = 120.0
    """How long a client may leave replies unread before its connection is closed."""

    write_buffer: int = 256 * 1024
    """Replies that wait for a client to read them, before its requests are left unread."""

    shutdown_timeout: float = 10.0
    """How long requests that are under way may take to finish when the server stops."""

    backlog: int = 1024
    """Connections that wait to be accepted."""

    max_connections: int = 10_000
    """Connections at once; further ones are refused in words. The system's limit of open files
    may allow fewer."""

    failed_logins: int = DEFAULT_FAILED_LOGINS
    """How often a peer (an IPv4 address, an IPv6 network of 64 bits, a local user) may fail to log
    in within a minute."""

    new_tokens: float = DEFAULT_NEW_TOKENS
    """Tokens that are made in a second, for the whole server; further requests wait."""

    max_snapshots: int = 4
    """Copies of all mappings that are sent to other servers at once; further ones are refused."""

    cache_bytes: int = DEFAULT_CACHE_BYTES
    """Memory for answers to look-ups."""

    page_cache_bytes: int = DEFAULT_PAGE_CACHE
    """Memory for pages of the database, most of them the writer's."""

    log_bytes: int = DEFAULT_MAX_LOG
    """The database's write-ahead log, from which on it is copied in a burst of reports, too; at
    twice that, reports wait for it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a server is told at its start.

    Raises:
        SettingsError: Two settings contradict each other, or one is out of range.
    """

    bind: tuple[str, ...] = ("unix://./hashserve.sock",)
    """The addresses to listen on (PROTOCOL.md §2)."""

    database: str = "./hashserv.db"
    """The SQLite file, or an SQL server's URL: ``postgresql+asyncpg://USER@HOST/NAME``."""

    db_username: str | None = None
    """Who to log in to the SQL server as, in the place of the URL's user; a file needs no login."""

    db_password: str | None = field(default=None, repr=False)
    """That user's password."""

    database_replica: str | None = None
    """The URL of a read replica, which is asked for mappings first; it needs the same login."""

    database_pool: int = DEFAULT_CONNECTIONS
    """Connections to the SQL server, at most."""

    database_timeout: float = DEFAULT_PATIENCE
    """For how many seconds requests wait for an SQL server that can't be reached."""

    durable: bool = True
    """Whether acknowledged reports survive a loss of power."""

    read_only: bool = False
    """Whether clients may only read."""

    upstream: str | None = None
    """The address of a server that is asked for what this one does not know."""

    upstream_username: str | None = None
    """Who to log in there as."""

    upstream_token: str | None = field(default=None, repr=False)
    """That user's token."""

    upstream_timeout: float = DEFAULT_TIMEOUT
    """How many seconds questions there may take; past it, this server's own answer counts."""

    upstream_negative_ttl: float = DEFAULT_TTL
    """For how many seconds it is remembered what the upstream does not know."""

    upstream_snapshot: str | None = None
    """The file for a copy of the upstream's mappings, which is made at the start and followed."""

    anon_perms: tuple[str, ...] = DEFAULT_ANON_PERMS
    """What clients without a login may do (PROTOCOL.md §7)."""

    admin_username: str | None = None
    """A user that is created with all permissions, or given them."""

    admin_password: str | None = field(default=None, repr=False)
    """That user's password."""

    tls_certificate: str | None = None
    """The file with the certificate, and those between it and its authority, for ``wss://`` and
    ``tls://`` (PEM)."""

    tls_key: str | None = None
    """The file with the certificate's key, if not the same."""

    tls_client_ca: str | None = None
    """The file with the authorities (PEM) one of which must have signed a client's certificate.
    Without, clients need none."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies whose ``X-Forwarded-For`` is believed."""

    compression: bool = False
    """Whether WebSocket messages are compressed for clients that offer it."""

    reuseport: bool = False
    """Whether other servers may listen on the same TCP port (SO_REUSEPORT)."""

    unihash_digits: int = UNIHASH_DIGITS
    """How many hex digits a reported unihash must have, at least; at most it is 64."""

    workers: int = 1
    """How many processes serve clients, each with its share of the bounds."""

    limits: Limits = Limits()
    """The bounds, of all workers together."""

    def __post_init__(self) -> None:
        _check_anon_perms(self.anon_perms)
        self._check_addresses()
        self._check_database()
        self._check_administrator()
        self._check_upstream()
        if not 1 <= self.unihash_digits <= UNIHASH_DIGITS:
            raise SettingsError(
                f"A unihash has 1 to {UNIHASH_DIGITS} digits, not {self.unihash_digits}"
            )
        limits = self.limits
        if not _LEAST_LINE <= limits.max_line <= limits.max_message:
            raise SettingsError(
                f"The line limit must be between {_LEAST_LINE} bytes and the message limit"
            )
        timeouts = (limits.handshake_timeout, limits.message_timeout, limits.write_timeout)
        if not all(seconds > 0 for seconds in (*timeouts, limits.write_buffer)):
            raise SettingsError("Time-outs and buffers must be larger than zero")
        if limits.log_bytes < _LEAST_LOG:
            raise SettingsError(f"The write-ahead log needs {_LEAST_LOG} bytes or more")
        if min(limits.cache_bytes, limits.page_cache_bytes) < 0 or not limits.shutdown_timeout >= 0:
            raise SettingsError("The cache and the shutdown time-out can't be negative")
        if not 1 <= limits.failed_logins <= MOST_FAILED_LOGINS or not limits.new_tokens > 0:
            raise SettingsError(
                f"There must be room for 1 to {MOST_FAILED_LOGINS} failed logins, and for new "
                "tokens"
            )
        if limits.max_snapshots < 0:
            raise SettingsError("There can't be less than no snapshots")
        if limits.max_connections < 1 or not 1 <= limits.backlog <= _MOST_BACKLOG:
            raise SettingsError(f"There must be 1 connection, 1 to {_MOST_BACKLOG} may wait")

        self._check_workers()

    @property
    def worker(self) -> "Settings":
        """What each of several workers is told: its share of what is bounded for the server.

        Connections they count together, and the administrator is not theirs to create.
        """
        limits = self.limits
        shares = replace(
            limits,
            failed_logins=limits.failed_logins // self.workers,
            new_tokens=limits.new_tokens / self.workers,
            cache_bytes=limits.cache_bytes // self.workers,
            page_cache_bytes=limits.page_cache_bytes // self.workers,
            log_bytes=max(_LEAST_LOG, limits.log_bytes // self.workers),
        )
        return replace(self, workers=1, admin_username=None, admin_password=None, limits=shares)

    @property
    def proxy_networks(self) -> list[Network]:
        """The networks that the trusted proxies are in.

        Raises:
            SettingsError: One is none.
        """
        try:
            return [ip_network(text) for text in self.trusted_proxies]
        except ValueError as error:
            raise SettingsError(
                f"A trusted proxy is an address or a network such as 10.0.0.0/8: {error}"
            ) from None

    def _check_addresses(self) -> None:
        if not self.bind:
            raise SettingsError("There is no address to listen on")
        addresses = [parse_address(text) for text in self.bind]
        _check_different(addresses)
        secure = [str(address) for address in addresses if over_tls(address)]
        if secure and self.tls_certificate is None:
            raise SettingsError(f"{secure[0]} needs a certificate: --tls-cert FILE, --tls-key FILE")
        tls_files = (self.tls_certificate, self.tls_key, self.tls_client_ca)
        if not secure and tls_files != (None, None, None):
            raise SettingsError(
                "A certificate is of use only for addresses that begin with wss:// or tls://"
            )
        _ = self.proxy_networks

    def _check_database(self) -> None:
        if self.database_pool < LEAST_CONNECTIONS or not self.database_timeout >= 0:
            raise SettingsError(
                f"A database needs {LEAST_CONNECTIONS} connections or more, and its time-out can't "
                "be negative"
            )

        if self.database_replica is not None and not (
            is_url(self.database) and is_url(self.database_replica)
        ):
            raise SettingsError("Only an SQL server has a replica: both are named by a URL")

    def _check_workers(self) -> None:
        if not 1 <= self.workers <= _MOST_WORKERS:
            raise SettingsError(f"There can be 1 to {_MOST_WORKERS} workers, not {self.workers}")
        if self.workers > 1 and self.upstream_snapshot is not None:
            raise SettingsError("--upstream-snapshot is for one process: leave --workers out")
        if self.workers > self.limits.failed_logins:
            raise SettingsError(
                f"{self.workers} workers share failed logins: there must be room for one each"
            )

    def _check_upstream(self) -> None:
        if (self.upstream_username is None) != (self.upstream_token is None):
            raise SettingsError("A login at the upstream needs both a name and a token")
        if not self.upstream_timeout > 0 or not self.upstream_negative_ttl >= 0:
            raise SettingsError(
                "The upstream's time-out must be larger than zero, and misses can't be remembered "
                "for less than no time"
            )
        if self.upstream is None:
            if self.upstream_username is not None:
                raise SettingsError("There is a login for an upstream, but no upstream")
            if self.upstream_snapshot is not None:
                raise SettingsError("There is a snapshot of an upstream, but no upstream")
            return
        if self.read_only:
            raise SettingsError(
                "A read-only server can't have an upstream: it could not keep what it learns there"
            )
        if parse_address(self.upstream) in map(parse_address, self.bind):
            raise SettingsError(f"The upstream {self.upstream} is this server itself")

    def _check_administrator(self) -> None:
        if (self.admin_username is None) != (self.admin_password is None):
            raise SettingsError("An administrator needs both a name and a password")
        if self.admin_username is None:
            return
        try:
            check_username(self.admin_username)
        except InvokeError as error:
            raise SettingsError(f"The administrator's name is none: {error}") from None
        if not self.admin_password:
            raise SettingsError("The administrator's password is empty")


def _check_different(addresses: list[Address]) -> None:
    """Refuse the same place twice: the system would share clients out at random."""
    places = [
        address.path if isinstance(address, UnixAddress) else (address.host, address.port)
        for address in addresses
    ]
    for at, place in enumerate(places):
        if place in places[:at] and not (isinstance(place, tuple) and place[1] == 0):
            raise SettingsError(f"{addresses[at]} is a place that is listened on already")


def over_tls(address: Address) -> bool:
    """Tell whether a server at an address needs a certificate."""
    match address:
        case WebSocketAddress():
            return address.secure
        case _:
            return isinstance(address, TlsAddress)


def _check_anon_perms(permissions: tuple[str, ...]) -> None:
    unknown = sorted(set(permissions) - ALL_PERMISSIONS - {NONE})
    if unknown:
        raise SettingsError(
            f"Unknown permissions {', '.join(unknown)}: there are "
            f"{', '.join(sorted(ALL_PERMISSIONS))} and {NONE}"
        )
    refused = sorted({USER_ADMIN, ALL} & set(permissions))
    if refused:
        raise SettingsError(
            f"{' and '.join(refused)} can't be given to anonymous clients: anybody could "
            "administer users; create a user with it instead"
        )
