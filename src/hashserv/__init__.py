"""A hash equivalence server for BitBake, and its clients.

What BitBake and build-system scripts import stands here (INTERFACES.md §1).
"""

from hashserv.errors import ClientError, ConnectionClosedError, InvokeError, ServerError
from hashserv.model import User, is_valid_unihash
from hashserv.version import __version__

__all__ = [
    "ClientError",
    "ConnectionClosedError",
    "InvokeError",
    "ServerError",
    "User",
    "__version__",
    "is_valid_unihash",
]
