"""Sockets that a server listens on (PROTOCOL.md §2)."""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from typing import Final

from hashserv.address import Address, NetworkAddress, UnixAddress
from hashserv.errors import AddressError
from hashserv.transport.unix import connect_unix, short_path

KEEPALIVE_IDLE: Final = 60
KEEPALIVE_INTERVAL: Final = 15
KEEPALIVE_PROBES: Final = 4
"""Seconds of silence before a peer is probed, between probes, and how many go unanswered before it
counts as gone. BitBake holds a connection silently for hours, so silence alone says nothing."""

LINGER_SECONDS: Final = 2.0
"""How long a peer that was refused something may go on sending: closed at once, it might not get
to read why."""

_PROBE_SECONDS: Final = 1.0
"""How long to wait for whoever may listen on a socket file that exists already."""

_LOCK_SECONDS: Final = 5.0
_LOCK_PAUSE: Final = 0.02
"""How long a server that starts waits for another that starts in the same directory."""


class Listener:
    """Bound sockets, and the address that clients can use.

    Args:
        sockets: Listening already.
        address: The real one, for port 0 as well.
        remove: The file to remove when closed, with its device and inode, or `None`.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        address: Address,
        *,
        remove: tuple[str, int, int] | None = None,
    ) -> None:
        self.sockets = sockets
        self.address = address
        self._remove = remove

    def close(self) -> None:
        """Remove the socket file if it is still the same, and stop listening. Idempotent."""
        if self._remove is not None:
            path, device, inode = self._remove
            self._remove = None
            with contextlib.suppress(OSError):  # it is gone already
                found = os.stat(path)
                if (found.st_dev, found.st_ino) == (device, inode):
                    os.unlink(path)
        for listening in self.sockets:
            listening.close()


def listen(address: Address, *, backlog: int, reuseport: bool = False) -> Listener:
    """Listen on an address.

    Args:
        address: Any; TLS and WebSockets are matters of what is done with the sockets.
        backlog: How many connections may wait to be accepted.
        reuseport: Whether others may listen on the same TCP port.

    Raises:
        AddressError: It can't be listened on; the message says why and what to do.
    """
    match address:
        case UnixAddress():
            if reuseport:
                raise AddressError("--reuseport is for TCP addresses, a socket file has one server")
            return _listen_unix(address, backlog)
        case _:
            return _listen_tcp(address, backlog, reuseport=reuseport)


def prepare_tcp(connection: socket.socket) -> None:
    """Set up an accepted or connected TCP socket: no delay, and dead peers are noticed."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        if hasattr(socket, option):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _listen_tcp(address: NetworkAddress, backlog: int, *, reuseport: bool) -> Listener:
    try:
        found = socket.getaddrinfo(
            address.host or None,
            address.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except OSError as error:
        raise AddressError(f"Can't listen on {address}: {error.strerror}") from error
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    port = address.port
    for family, kind, protocol, _, place in sorted(set(found)):
        try:
            # Port 0 picks one for the first socket; the others take the same.
            listening = _bound(
                family, kind, protocol, (place[0], port, *place[2:]), reuseport=reuseport
            )
            listening.listen(backlog)
        except OSError as error:
            # A machine without IPv6 may still have names for it.
            if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                failure = failure or error
                continue
            for bound in sockets:
                bound.close()
            raise AddressError(f"Can't listen on {address}: {error.strerror}") from error
        port = listening.getsockname()[1]
        sockets.append(listening)
    if not sockets:
        reason = failure.strerror if failure else "it has no address"
        raise AddressError(f"Can't listen on {address}: {reason}") from failure
    host = address.host or sockets[0].getsockname()[0]
    return Listener(sockets, address._replace(host=host, port=port))


def _bound(
    family: int, kind: int, protocol: int, place: tuple[object, ...], *, reuseport: bool
) -> socket.socket:
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuseport:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(place)
        prepare_tcp(listening)  # accepted sockets inherit this on Linux
        listening.settimeout(0)
    except BaseException:
        listening.close()
        raise
    return listening


def _listen_unix(address: UnixAddress, backlog: int) -> Listener:
    directory = os.path.dirname(address.path) or "."
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Two servers that start at once must not both take the same stale file for theirs.
        with _locked(directory), short_path(address.path) as name:
            _remove_stale(address)
            listening.bind(name)
            listening.listen(backlog)
            found = os.stat(address.path)
        listening.settimeout(0)
    except OSError as error:
        listening.close()
        raise AddressError(f"Can't listen on {address}: {error.strerror}") from error
    except AddressError:
        listening.close()
        raise
    path = os.path.abspath(address.path)
    return Listener([listening], address, remove=(path, found.st_dev, found.st_ino))


def _remove_stale(address: UnixAddress) -> None:
    """Remove a socket file that nobody listens on any more.

    Raises:
        AddressError: Somebody does, or the file is something else.
    """
    try:
        mode = os.stat(address.path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressError(
            f"Can't listen on {address}: the file exists and is no socket; remove or rename it"
        )
    try:
        connect_unix(address.path, timeout=_PROBE_SECONDS).close()
    except (ConnectionRefusedError, FileNotFoundError):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address.path)
        return
    except (TimeoutError, BlockingIOError):
        pass  # somebody is there, but busy
    raise AddressError(
        f"Can't listen on {address}: a server is listening there already; stop it, or name "
        "another address"
    )


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # it may be written and not read: then there is no lock to be had
        yield
        return
    try:
        end = time.monotonic() + _LOCK_SECONDS
        while not _try_lock(descriptor):
            if time.monotonic() > end:
                raise AddressError(
                    f"Can't listen in {directory}: another process keeps the directory locked"
                )
            time.sleep(_LOCK_PAUSE)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
