"""What the rooms of this package hand to each other: hashes, records, users, permissions."""

from typing import Final, NamedTuple

# Permissions (PROTOCOL.md §7).
READ: Final = "@read"
REPORT: Final = "@report"
DB_ADMIN: Final = "@db-admin"
USER_ADMIN: Final = "@user-admin"
ALL: Final = "@all"
NONE: Final = "@none"

ALL_PERMISSIONS: Final = frozenset({READ, REPORT, DB_ADMIN, USER_ADMIN, ALL})
"""Every permission that a user may have."""

DEFAULT_ANON_PERMS: Final = (READ, REPORT, DB_ADMIN)
"""What a client without a login may do unless the server is told otherwise."""

UNIHASH_DIGITS: Final = 64
"""How long a unihash is; servers older than 2026 did not check."""

_HEX: Final = "0123456789abcdef"


def is_valid_unihash(value: object, *, least: int = UNIHASH_DIGITS) -> bool:
    """Tell whether `value` can be a unihash: lower-case hex digits (PROTOCOL.md §1).

    Args:
        value: Anything.
        least: How many digits there must be, at least; 64 is always the most. Less than 64
            admits what servers of 2024 and before stored.
    """
    return (
        isinstance(value, str)
        and least <= len(value) <= UNIHASH_DIGITS
        and not value.strip(_HEX)  # nothing is left of hex digits
    )


class User(NamedTuple):
    """A user of the server, as clients see it."""

    username: str
    permissions: list[str]


class StoredUser(NamedTuple):
    """A user as the database holds it: the token as what it is verified by (PROTOCOL.md §7)."""

    username: str
    token: str
    permissions: list[str]


class MappingKey(NamedTuple):
    """What a mapping is found by."""

    method: str
    taskhash: str


class Mapping(NamedTuple):
    """A unihash mapping (PROTOCOL.md §8)."""

    method: str
    taskhash: str
    unihash: str


class Report(NamedTuple):
    """What a build reports of a task that it ran: one outhash row and the unihash it proposes."""

    method: str
    taskhash: str
    outhash: str
    unihash: str
    owner: str | None = None
    PN: str | None = None
    PV: str | None = None
    PR: str | None = None
    task: str | None = None
    outhash_siginfo: str | None = None
    known_as: str | None = None
    """The unihash that an upstream has for this outhash, which comes before the one proposed."""

    @property
    def key(self) -> MappingKey:
        """The mapping that this report is about."""
        return MappingKey(self.method, self.taskhash)


class Outhash(NamedTuple):
    """A stored outhash row; `created` is ISO 8601 text, in the spelling of its writer."""

    id: int
    method: str
    taskhash: str
    outhash: str
    created: str | None
    owner: str | None
    PN: str | None
    PV: str | None
    PR: str | None
    task: str | None
    outhash_siginfo: str | None


class MarkedMapping(NamedTuple):
    """A mapping as the database holds it."""

    id: int
    method: str
    taskhash: str
    unihash: str
    gc_mark: str


class Equivalent(NamedTuple):
    """An outhash row together with the mapping of its taskhash."""

    outhash: Outhash
    unihash: str
    gc_mark: str


class CollectionStatus(NamedTuple):
    """How far a garbage collection is: mappings it keeps, mappings it would remove, its mark."""

    keep: int
    remove: int
    mark: str | None


Condition = dict[str, str | None]
"""Columns and the values that they must have; `None` matches nothing (PROTOCOL.md §5)."""
