"""The header of the wal-index: memory that every commit to an SQLite file in WAL mode changes.

All processes that have a file open share it as the file with ``-shm`` behind its name, in a form
that is documented (https://sqlite.org/walformat.html, "The WAL-Index File Format"). To compare it
with what it was takes no lock and no system call.

A trap lies in the way: POSIX takes a process's locks on a file away when it closes *any* of its
descriptors of it, and SQLite's connections have locks on this one. So it is closed only once it has
no name any more: the last connection of all processes removes it.
"""

import mmap
import os
import threading
from typing import Final

HEADER_BYTES: Final = 96
"""Two copies of the header, which are not the same while it is being written."""


class _Mapped:
    """A wal-index that this process has open, once, however many stores look at it."""

    def __init__(self, descriptor: int) -> None:
        self.users = 0
        self.memory = mmap.mmap(descriptor, HEADER_BYTES, prot=mmap.PROT_READ)
        self._descriptor = descriptor

    def close_if_gone(self) -> bool:
        """Close it if nobody uses it and it has no name; tell whether that is so."""
        if self.users or os.fstat(self._descriptor).st_nlink:
            return False
        self.memory.close()  # which has a descriptor of its own
        os.close(self._descriptor)
        return True


_mapped: Final[dict[tuple[int, int], _Mapped]] = {}
_lock: Final = threading.Lock()


class WalIndex:
    """The header of one file's wal-index; create it after a connection has read the file.

    Args:
        path: The SQLite file.

    Raises:
        OSError: It can't be seen: the file is on read-only media, say.
    """

    def __init__(self, path: str) -> None:
        shared = f"{os.path.realpath(path)}-shm"  # SQLite follows links, too
        with _lock:
            _close_what_is_gone()
            status = os.stat(shared)
            self._mapped = _mapped.get((status.st_dev, status.st_ino)) or _map(shared)
            self._mapped.users += 1
        self._memory = self._mapped.memory

    def header(self) -> bytes:
        """Return the header: as long as it is the same, nobody has committed anything."""
        return self._memory[:HEADER_BYTES]

    def close(self) -> None:
        """Let go of it, after this process's connections, or others of them, were closed."""
        with _lock:
            self._mapped.users -= 1
            _close_what_is_gone()


def _map(path: str) -> _Mapped:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    mapped = _mapped[status.st_dev, status.st_ino] = _Mapped(descriptor)
    return mapped


def _close_what_is_gone() -> None:
    for key, mapped in list(_mapped.items()):
        if mapped.close_if_gone():
            del _mapped[key]
