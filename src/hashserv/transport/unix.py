"""Unix sockets whose path may be longer than the kernel's 108 bytes (PROTOCOL.md §2).

The reference changes its directory around bind and connect, which every thread of the process
notices. Naming the directory through ``/proc/self/fd`` does the same without.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Final

from hashserv.errors import AddressError

_MAX_PATH: Final = 107
"""Bytes of a path that fit into the kernel's structure, less the closing NUL."""


@contextlib.contextmanager
def short_path(path: str) -> Iterator[str]:
    """Give a name of a socket file that is short enough, valid while the context lasts.

    Raises:
        AddressError: The file's own name is too long already.
        OSError: Its directory can't be opened.
    """
    if len(os.fsencode(path)) <= _MAX_PATH:
        yield path
        return
    directory, name = os.path.split(path)
    descriptor = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        shortened = f"/proc/self/fd/{descriptor}/{name}"
        if len(os.fsencode(shortened)) > _MAX_PATH:
            raise AddressError(f"The name of the socket file '{name}' is too long: shorten it")
        yield shortened
    finally:
        os.close(descriptor)


def connect_unix(path: str, *, timeout: float | None = None) -> socket.socket:
    """Connect to a socket file.

    Args:
        path: The file.
        timeout: Seconds that connecting, and each operation after it, may take.

    Raises:
        OSError: Nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        with short_path(path) as name:
            connection.connect(name)
    except BaseException:
        connection.close()
        raise
    return connection
