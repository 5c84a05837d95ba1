"""What went wrong with an SQL server: in plain words, and whether trying again may help."""

import re
from typing import Final, NamedTuple

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from hashserv.errors import (
    DatabaseBusy,
    DatabaseFull,
    DatabaseReadOnly,
    DatabaseRefused,
    DatabaseUnreachable,
    StoreError,
)

_DENIED: Final = {"28000", "28P01", "42501", 1044, 1045, 1142, 1698}
_NO_DATABASE: Final = {"3D000", 1049}
_FULL: Final = {"53100", 1021, 1114}
_READ_ONLY: Final = {"25006", 1290, 1792, 1836}
_TOO_MANY: Final = {"53300", 1040, 1203}
_AGAIN: Final = {"40001", "40P01", "55P03", "0A000", 1205, 1213}
"""The server undid a transaction for the sake of another, or a table was changed meanwhile."""

_REFUSALS: Final = (
    (re.compile(r'FATAL: +database ".*" does not exist'), "3D000"),
    (re.compile(r'FATAL: +(password auth|no pg_hba.conf|role ".*" does not exist)'), "28P01"),
    (re.compile(r"no password supplied"), "28P01"),
    (re.compile(r"FATAL: +(.*too many (connections|clients)|remaining connection slots)"), "53300"),
)
"""What psycopg tells without its SQLSTATE, when a connection does not come about."""

_BAD_DATA: Final = ("22", "54")
"""What SQLSTATEs begin with that speak of one row's content."""

_BAD_DATA_NUMBERS: Final = {1153, 1366, 1406, 1300, 3988}

_DRIVERS: Final = {"asyncpg", "psycopg", "aiomysql", "pymysql", "asyncmy"}

_GONE: Final = ("08", "57P")
_GONE_NUMBERS: Final = {1053, 1927, 2002, 2003, 2006, 2013, 2014, 2055}


class Problem(NamedTuple):
    """What an error comes to."""

    error: StoreError
    passing: bool
    """Whether it may be over soon: the same work is worth another try."""


def problem_of(error: BaseException, name: str) -> Problem:
    """Return what an error of SQLAlchemy, a driver or the network means.

    Args:
        error: What was raised.
        name: Names the database, without its password.
    """
    if isinstance(error, StoreError):
        return Problem(error, passing=False)
    code = _code(error)
    words = _words(error)
    known = _known(code, name, words)
    if known is not None:
        return known
    if isinstance(error, IntegrityError):
        # Somebody who does not take the lock inserted the same: the next try sees it.
        return Problem(DatabaseBusy(f"{name} has others who write the same: {words}"), passing=True)
    if isinstance(error, PoolTimeout):
        return Problem(
            DatabaseBusy(
                f"{name} is busy: all connections to it are in use; raise --database-pool"
            ),
            passing=False,
        )
    if _is_gone(error, code):
        return Problem(
            DatabaseUnreachable(
                f"{name} can't be reached ({words}): start it, or check the URL and the network"
            ),
            passing=True,
        )
    return Problem(StoreError(f"{name}: {words}"), passing=False)


def _known(code: str | int | None, name: str, words: str) -> Problem | None:
    if code in _DENIED:
        return Problem(
            DatabaseRefused(
                f"{name} refused the login or lacks a permission ({words}): check --db-username, "
                "--db-password-file and the user's rights"
            ),
            passing=False,
        )
    if code in _NO_DATABASE:
        return Problem(
            DatabaseRefused(f"{name} does not exist: create the database first ({words})"),
            passing=False,
        )
    if code in _FULL:
        return Problem(DatabaseFull(f"No space left for {name}: free some there"), passing=False)
    if code in _READ_ONLY:
        return Problem(
            DatabaseReadOnly(f"{name} can't be written, it is a standby or read-only ({words})"),
            passing=True,  # until the connections reach the one that was promoted
        )
    if code in _TOO_MANY:
        return Problem(
            DatabaseBusy(f"{name} takes no more connections: lower --database-pool ({words})"),
            passing=True,
        )
    if code in _AGAIN:
        return Problem(DatabaseBusy(f"{name} is busy ({words})"), passing=True)
    if code in _BAD_DATA_NUMBERS or (isinstance(code, str) and code.startswith(_BAD_DATA)):
        return Problem(BadRow(f"The database can't take this: {words}"), passing=False)
    return None


class BadRow(StoreError):  # noqa: N818 - names say what is the case
    """The database refuses the content of a row; what went with it is not to blame."""


def _code(error: BaseException) -> str | int | None:
    """Return the SQLSTATE of PostgreSQL, or the error number of MySQL."""
    cause: object = error.orig if isinstance(error, DBAPIError) else error
    arguments = getattr(cause, "args", ())
    if not isinstance(cause, OSError) and arguments and isinstance(arguments[0], int):
        return arguments[0]
    state = getattr(cause, "sqlstate", None)
    if isinstance(state, str):
        return state
    words = str(cause)
    return next((code for pattern, code in _REFUSALS if pattern.search(words)), None)


def _is_gone(error: BaseException, code: str | int | None) -> bool:
    if code in _GONE_NUMBERS or (isinstance(code, str) and code.startswith(_GONE)):
        return True
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or code is None
    # While connecting, drivers raise errors of their own.
    own = type(error).__module__.partition(".")[0] in _DRIVERS
    return own or isinstance(error, (OSError, TimeoutError))


def _words(error: BaseException) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    words = " ".join(str(cause).split()) or type(cause).__name__
    # The adapters put the class of the driver's exception in front.
    return words.rpartition(">: ")[2][:300]
