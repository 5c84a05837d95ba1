"""The exceptions of this package, in one tree.

::

    Exception
    ├── HashservError             what this package raises of its own
    │   ├── AddressError          an address that can't be understood or used
    │   ├── SettingsError         settings that contradict each other or are out of range
    │   ├── ProtocolError         a peer broke the wire protocol; its connection ends
    │   └── StoreError            the database can't do what was asked; names cause and cure
    │       ├── NotADatabase      the file is something else
    │       ├── DatabaseCorrupt   SQLite found the file damaged
    │       ├── DatabaseReadOnly  no permission to write it
    │       ├── DatabaseFull      no space left
    │       ├── DatabaseLocked    another process holds it
    │       ├── DatabaseBusy      an SQL server has no room for us now
    │       ├── DatabaseRefused   an SQL server does not let us in
    │       └── DatabaseUnreachable  there is no connection to an SQL server
    ├── InvokeError               the server answered with an error (`bb.asyncrpc`'s)
    ├── ClientError               `bb.asyncrpc`'s
    ├── ServerError               `bb.asyncrpc`'s
    └── ConnectionClosedError     the peer closed the connection (`bb.asyncrpc`'s)

The last four are the very classes of ``bb.asyncrpc`` where BitBake can be imported, because
BitBake's own code catches those. A client whose retries are used up raises the built-in
``ConnectionError``, as BitBake expects (PROTOCOL.md §10).
"""

from typing import TYPE_CHECKING, Final

from hashserv import bitbake

if TYPE_CHECKING:

    class InvokeError(Exception):
        """The server refused a request; its text is the message."""

    class ClientError(Exception):
        """A client was used in a way that can't work."""

    class ServerError(Exception):
        """A server failed."""

    class ConnectionClosedError(Exception):
        """The peer closed the connection in the middle of a conversation."""
else:
    _theirs = bitbake.exceptions()
    if _theirs is not None:
        ClientError = _theirs.ClientError
        ConnectionClosedError = _theirs.ConnectionClosedError
        InvokeError = _theirs.InvokeError
        ServerError = _theirs.ServerError
    else:

        class InvokeError(Exception):
            """The server refused a request; its text is the message."""

        class ClientError(Exception):
            """A client was used in a way that can't work."""

        class ServerError(Exception):
            """A server failed."""

        class ConnectionClosedError(Exception):
            """The peer closed the connection in the middle of a conversation."""


__all__ = [
    "AddressError",
    "ClientError",
    "ConnectionClosedError",
    "DatabaseBusy",
    "DatabaseCorrupt",
    "DatabaseFull",
    "DatabaseLocked",
    "DatabaseReadOnly",
    "DatabaseRefused",
    "DatabaseUnreachable",
    "HashservError",
    "InvokeError",
    "NotADatabase",
    "ProtocolError",
    "ServerError",
    "SettingsError",
    "StoreError",
    "loggable",
]


class HashservError(Exception):
    """The root of what this package raises of its own."""


class AddressError(HashservError):
    """An address can't be understood, or can't be listened on."""


class SettingsError(HashservError):
    """Settings contradict each other or are out of range."""


class ProtocolError(HashservError):
    """A peer broke the wire protocol; the message says how. Its connection must be closed."""


class StoreError(HashservError):
    """The database can't do what was asked."""


class NotADatabase(StoreError):  # noqa: N818 - names say what is the case
    """The file is not an SQLite database."""


class DatabaseCorrupt(StoreError):  # noqa: N818
    """SQLite found the file damaged."""


class DatabaseReadOnly(StoreError):  # noqa: N818
    """The file or its directory can't be written."""


class DatabaseFull(StoreError):  # noqa: N818
    """There is no space left for the database."""


class DatabaseLocked(StoreError):  # noqa: N818
    """Another process holds the database."""


class DatabaseBusy(StoreError):  # noqa: N818
    """An SQL server has no room for us now: others hold what is needed, or all connections."""


class DatabaseRefused(StoreError):  # noqa: N818
    """An SQL server does not let us in, or not do what is needed."""


class DatabaseUnreachable(StoreError):  # noqa: N818
    """There is no connection to an SQL server, and there was none for a while."""


_LOGGED_CHARACTERS: Final = 300


def loggable(error: object) -> str:
    """Return an error as it can go into a log: short, and in one line whatever a peer sent."""
    return ascii(str(error)[:_LOGGED_CHARACTERS])[1:-1]
