"""Every setting of a server: its default, its bounds, what it is for."""

from dataclasses import dataclass
from typing import Final

from hashserv.equivalence.mapping import DEFAULT_CACHE_BYTES
from hashserv.errors import SettingsError
from hashserv.model import (
    ALL,
    ALL_PERMISSIONS,
    DEFAULT_ANON_PERMS,
    NONE,
    UNIHASH_DIGITS,
    USER_ADMIN,
)
from hashserv.store.checkpoint import DEFAULT_MAX_LOG
from hashserv.store.sqlite import DEFAULT_PAGE_CACHE
from hashserv.wire.framing import DEFAULT_MAX_LINE, DEFAULT_MAX_MESSAGE

_LEAST_LINE: Final = 1024
_MOST_BACKLOG: Final = 65_535
_LEAST_LOG: Final = 1024 * 1024


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

    bind: str = "unix://./hashserve.sock"
    """The address to listen on (PROTOCOL.md §2)."""

    database: str = "./hashserv.db"
    """The SQLite file."""

    durable: bool = True
    """Whether acknowledged reports survive a loss of power."""

    read_only: bool = False
    """Whether clients may only read."""

    anon_perms: tuple[str, ...] = DEFAULT_ANON_PERMS
    """What clients without a login may do (PROTOCOL.md §7)."""

    reuseport: bool = False
    """Whether other servers may listen on the same TCP port (SO_REUSEPORT)."""

    unihash_digits: int = UNIHASH_DIGITS
    """How many hex digits a reported unihash must have, at least; at most it is 64."""

    limits: Limits = Limits()
    """The bounds."""

    def __post_init__(self) -> None:
        _check_anon_perms(self.anon_perms)
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
        if limits.max_connections < 1 or not 1 <= limits.backlog <= _MOST_BACKLOG:
            raise SettingsError(f"There must be 1 connection, 1 to {_MOST_BACKLOG} may wait")


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
