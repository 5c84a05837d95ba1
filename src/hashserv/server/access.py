"""Who a peer is, and what it may do (PROTOCOL.md §7): checked here and nowhere else."""

from dataclasses import dataclass

from hashserv.errors import InvokeError
from hashserv.model import ALL, NONE, REPORT
from hashserv.wire.commands import Command

_ANONYMOUS = "Anonymous user"


@dataclass(frozen=True)
class Access:
    """What a server grants.

    Args:
        anonymous: The permissions of clients without a login.
        read_only: Whether nothing may be changed by anybody.
    """

    anonymous: frozenset[str]
    read_only: bool

    def check(self, command: Command) -> None:
        """Let a request pass or refuse it.

        Raises:
            InvokeError: The server is read-only, or the peer lacks a permission.
        """
        if self.read_only and not command.read_only:
            raise InvokeError(f"This server is read-only: '{command.name}' is refused")
        if not self.grants(command.permissions):
            needed = ", ".join(sorted(command.permissions))
            raise InvokeError(f"{_ANONYMOUS} is not allowed to access permissions(s) {needed}")

    def grants(self, permissions: frozenset[str]) -> bool:
        """Tell whether a peer has permissions. Users with their own come with the accounts."""
        return ALL in self.anonymous or permissions <= self.anonymous - {NONE}

    @property
    def may_store(self) -> bool:
        """Whether reports are stored; where not, they are answered all the same (§8.2)."""
        return not self.read_only and self.grants(frozenset({REPORT}))
