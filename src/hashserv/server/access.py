"""What a peer may do (PROTOCOL.md §7): checked here and nowhere else."""

from dataclasses import dataclass
from typing import Final

from hashserv.equivalence.accounts import Account
from hashserv.errors import InvokeError
from hashserv.model import ALL, REPORT
from hashserv.server.peer import Peer
from hashserv.wire.commands import AccountCommand, BecomeUser, Command, OwnAccountCommand

_ANONYMOUS: Final = "Anonymous user"
_BECOMING: Final = BecomeUser.permissions


@dataclass(frozen=True)
class Access:
    """What a server grants.

    Args:
        anonymous: The permissions of clients without a login.
        read_only: Whether nothing may be changed by anybody.
    """

    anonymous: frozenset[str]
    read_only: bool

    def check(self, command: Command, peer: Peer) -> None:
        """Let a request pass or refuse it.

        Args:
            command: What is requested.
            peer: By whom.

        Raises:
            InvokeError: The server is read-only, or the peer lacks a permission.
        """
        login, account = peer.login, peer.account
        if login is not None and login is not account and not _has(login, _BECOMING):
            raise _lacking(login, _BECOMING)  # it had that when it became another
        if self.read_only and not command.read_only:
            raise InvokeError(f"This server is read-only: '{command.name}' is refused")
        if not self._grants(command, account):
            raise _lacking(account, command.permissions)

    def may_store(self, account: Account | None) -> bool:
        """Tell whether reports are stored; where not, they are answered all the same (§8.2)."""
        needed = frozenset({REPORT})
        return not self.read_only and (self._anonymous_have(needed) or _has(account, needed))

    def _grants(self, command: Command, account: Account | None) -> bool:
        if _is_own(command, account) or _has(account, command.permissions):
            return True
        # Nobody administers users without a login, but logging in must be possible.
        counts = not isinstance(command, AccountCommand) or not command.permissions
        return counts and self._anonymous_have(command.permissions)

    def _anonymous_have(self, permissions: frozenset[str]) -> bool:
        return permissions <= self.anonymous


def _lacking(account: Account | None, permissions: frozenset[str]) -> InvokeError:
    name = _ANONYMOUS if account is None else account.username
    needed = ", ".join(sorted(permissions))
    return InvokeError(f"{name} is not allowed to access permissions(s) {needed}")


def _has(account: Account | None, permissions: frozenset[str]) -> bool:
    if account is None:
        return False
    return ALL in account.permissions or permissions <= account.permissions


def _is_own(command: Command, account: Account | None) -> bool:
    """Tell whether a user asks for something about itself."""
    if account is None or account.deleted or not isinstance(command, OwnAccountCommand):
        return False
    return command.username in (None, account.username)
