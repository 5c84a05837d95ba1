"""Every command, declared once: its name, its arguments, what it needs (PROTOCOL.md §5).

The arguments of a command are a class; decoding a request (`hashserv.wire.requests`) gives an
instance of it. What a request may hold is said by the fields' types, so that a wrong request is
refused with the name of the field, before any rule sees it.
"""

from typing import Annotated, Any, ClassVar, Final

from msgspec import Meta, Struct, field

from hashserv.model import DB_ADMIN, READ, REPORT, USER_ADMIN
from hashserv.wire.snapshot import MOST_ID

Permissions = frozenset[str]

Word = Annotated[str, Meta(pattern=r"\A\S+\Z")]
"""A method, taskhash or outhash: text without white space."""

Where = dict[str, str | None]

MOST_TOKEN: Final = 1024
"""Characters in a token or password: verifying one takes time by its length."""

_READING: Final = frozenset({READ})
_REPORTING: Final = frozenset({READ, REPORT})
_ADMINISTERING: Final = frozenset({DB_ADMIN})
_ADMINISTERING_USERS: Final = frozenset({USER_ADMIN})


class Command(Struct, frozen=True):
    """The arguments of a request; each subclass is one command.

    Class variables declare what the command needs:

    * ``name``: how requests name it;
    * ``permissions``: all of these must be granted;
    * ``read_only``: whether a read-only server answers it.
    """

    name: ClassVar[str]
    permissions: ClassVar[Permissions]
    read_only: ClassVar[bool] = True


class Ping(Command, frozen=True):
    """Ask whether the server is alive."""

    name = "ping"
    permissions = frozenset()


class Get(Command, frozen=True):
    """Look up one mapping, with all columns of its outhash row if asked to."""

    method: Word
    taskhash: Word
    all: bool = False

    name = "get"
    permissions = _READING


class GetOuthash(Command, frozen=True):
    """Look up the oldest row with an outhash."""

    method: Word
    outhash: Word
    taskhash: Word
    with_unihash: bool = True

    name = "get-outhash"
    permissions = _READING


class GetStream(Command, frozen=True):
    """Change over to look-ups, a line each (PROTOCOL.md §6)."""

    name = "get-stream"
    permissions = _READING


class ExistsStream(Command, frozen=True):
    """Change over to questions whether a unihash exists, a line each (PROTOCOL.md §6)."""

    name = "exists-stream"
    permissions = _READING


class SnapshotStream(Command, frozen=True):
    """Change over to being sent all mappings, masked, after those that are there already.

    The last of these has the id `after` and the row's key `key`, in hex; see
    `hashserv.wire.snapshot`.
    """

    after: Annotated[int, Meta(ge=0, le=MOST_ID)] = 0
    key: Annotated[str, Meta(max_length=32)] = ""

    name = "snapshot-stream"
    permissions = _READING


class Report(Command, frozen=True):
    """Report what a task produced. The unihash is checked by the rules, with their own text."""

    method: Word
    taskhash: Word
    outhash: Word
    unihash: Any
    owner: str | None = None
    PN: str | None = None
    PV: str | None = None
    PR: str | None = None
    task: str | None = None
    outhash_siginfo: str | None = None

    name = "report"
    permissions = _READING  # it stores with @report too, and answers without (PROTOCOL.md §8.2)


class ReportEquiv(Command, frozen=True):
    """Report that a task has a unihash that is known already."""

    method: Word
    taskhash: Word
    unihash: Any

    name = "report-equiv"
    permissions = _REPORTING
    read_only = False


class GetStats(Command, frozen=True):
    """Ask for the request statistics."""

    name = "get-stats"
    permissions = _READING


class ResetStats(Command, frozen=True):
    """Start the request statistics anew, and return what they were."""

    name = "reset-stats"
    permissions = _ADMINISTERING
    read_only = False


class BackfillWait(Command, frozen=True):
    """Wait until all copies from the upstream are stored."""

    name = "backfill-wait"
    permissions = _READING
    read_only = False


class Remove(Command, frozen=True):
    """Remove the rows that match a condition from both tables."""

    where: Where

    name = "remove"
    permissions = _ADMINISTERING
    read_only = False


class GcMark(Command, frozen=True):
    """Mark the mappings that a collection keeps."""

    mark: Annotated[str, Meta(min_length=1)]
    where: Where

    name = "gc-mark"
    permissions = _ADMINISTERING
    read_only = False


class GcMarkStream(Command, frozen=True):
    """Change over to marking, a line each (PROTOCOL.md §6)."""

    name = "gc-mark-stream"
    permissions = _ADMINISTERING
    read_only = False


class GcStatus(Command, frozen=True):
    """Ask how far the collection is."""

    name = "gc-status"
    permissions = _ADMINISTERING
    read_only = False


class GcSweep(Command, frozen=True):
    """Remove the mappings that the collection has not marked, and end it."""

    mark: str

    name = "gc-sweep"
    permissions = _ADMINISTERING
    read_only = False


class CleanUnused(Command, frozen=True):
    """Remove outhash rows that are old enough and have no mapping; the age is in seconds."""

    max_age_seconds: float

    name = "clean-unused"
    permissions = _ADMINISTERING
    read_only = False


class GetDbUsage(Command, frozen=True):
    """Ask how many rows each table has."""

    name = "get-db-usage"
    permissions = _ADMINISTERING


class GetDbQueryColumns(Command, frozen=True):
    """Ask which columns a condition may name."""

    name = "get-db-query-columns"
    permissions = _ADMINISTERING


class AccountCommand(Command, frozen=True):
    """A command about users. What anonymous clients may do never counts for it (PROTOCOL.md §7)."""

    permissions = _ADMINISTERING_USERS


class OwnAccountCommand(AccountCommand, frozen=True):
    """A command that every user may give for itself, which is what no name means."""

    username: str | None = None


class Auth(AccountCommand, frozen=True):
    """Log in: from now on the connection acts as that user."""

    username: str
    token: Annotated[str, Meta(max_length=MOST_TOKEN)]

    name = "auth"
    permissions = frozenset()


class GetUser(OwnAccountCommand, frozen=True):
    """Ask for a user's permissions."""

    name = "get-user"


class GetAllUsers(AccountCommand, frozen=True):
    """Ask for all users and their permissions."""

    name = "get-all-users"


class BecomeUser(AccountCommand, frozen=True):
    """Act as another user from now on."""

    username: str

    name = "become-user"


class NewUser(AccountCommand, frozen=True):
    """Create a user. The permissions are checked by the rules, with their own text."""

    username: str
    permissions_given: Any = field(name="permissions")

    name = "new-user"
    read_only = False


class SetUserPerms(AccountCommand, frozen=True):
    """Replace a user's permissions, which are checked by the rules, with their own text."""

    username: str
    permissions_given: Any = field(name="permissions")

    name = "set-user-perms"
    read_only = False


class RefreshToken(OwnAccountCommand, frozen=True):
    """Replace a user's token by a new one."""

    name = "refresh-token"
    read_only = False


class DeleteUser(OwnAccountCommand, frozen=True):
    """Remove a user."""

    name = "delete-user"
    read_only = False


COMMANDS: Final[dict[str, type[Command]]] = {
    command.name: command
    for command in (
        Ping,
        Get,
        GetOuthash,
        GetStream,
        ExistsStream,
        SnapshotStream,
        Report,
        ReportEquiv,
        GetStats,
        ResetStats,
        BackfillWait,
        Remove,
        GcMark,
        GcMarkStream,
        GcStatus,
        GcSweep,
        CleanUnused,
        GetDbUsage,
        GetDbQueryColumns,
        Auth,
        GetUser,
        GetAllUsers,
        BecomeUser,
        NewUser,
        SetUserPerms,
        RefreshToken,
        DeleteUser,
    )
}
