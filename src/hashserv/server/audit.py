"""The audit log: logins and account changes, one JSON object a line.

Its logger is ``hashserv.audit``; where its lines go is for whoever runs the server to set up.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Final

import msgspec

from hashserv.model import ALL_PERMISSIONS
from hashserv.server.peer import Peer
from hashserv.wire.commands import AccountCommand, GetAllUsers, GetUser

logger = logging.getLogger("hashserv.audit")
logger.setLevel(logging.INFO)  # whatever the level of other logs

ALLOWED: Final = "ok"

_ONLY_ASKS: Final = (GetUser, GetAllUsers)
_SECRET: Final = ("token",)
_MOST_TEXT: Final = 100
"""Characters of a text that go into the log: a peer may send much."""

_MOST_PERMISSION: Final = 11  # what the longest has


def record(peer: Peer, command: AccountCommand, outcome: str) -> None:
    """Write down a login, or that users were changed, or that it was tried.

    Args:
        peer: Who did it.
        command: What; questions are not recorded.
        outcome: `ALLOWED`, or why it was refused.
    """
    if isinstance(command, _ONLY_ASKS):
        return
    details = {
        name: _short(value)
        for name, value in msgspec.structs.asdict(command).items()
        if name not in _SECRET
    }
    line = {
        "when": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "peer": str(peer),
        "who": None if peer.login is None else peer.login.username,
        "as": None if peer.account is None else peer.account.username,
        "what": command.name,
        "user": details.get("username"),
        "permissions": details.get("permissions_given"),
        "outcome": _short(outcome),
    }
    text = json.dumps(line)  # ASCII, with control characters escaped
    try:
        logger.info("%s", text)
    except OSError as error:  # its directory is gone: nobody is locked out for that
        logging.getLogger("hashserv.server").error("No audit log (%s): %s", error, text)  # noqa: TRY400


def _short(value: object) -> object:
    if isinstance(value, list):
        return [str(item)[:_MOST_PERMISSION] for item in value[: len(ALL_PERMISSIONS)]]
    return value if value is None else str(value)[:_MOST_TEXT]
