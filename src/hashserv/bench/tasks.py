"""Tasks that are made up for a run, so that a load never touches what builds know."""

import hashlib
import re
import secrets
from typing import Final

import msgspec

from hashserv.errors import SettingsError

METHOD_PREFIX: Final = "hashserv-bench."
"""What the methods of all runs begin with."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Mapping(msgspec.Struct, frozen=True):
    """What a report is answered with."""

    method: str
    taskhash: str
    unihash: str


class Tasks:
    """The tasks of a run, by number. Their hashes are of no other run, whatever its name.

    Args:
        name: The end of their method; `None` for a random one.

    Raises:
        SettingsError: The name can't be a part of a method.
    """

    def __init__(self, name: str | None = None) -> None:
        if name is not None and not _NAME.fullmatch(name):
            raise SettingsError(
                f"'{name}' is no name of a run: letters, digits and . _ - make one, up to 64"
            )
        self._seed = secrets.token_hex(16)
        self.method = METHOD_PREFIX + (name or self._seed[:12])
        self.reported = 0
        """How many reports were made."""

    def taskhash(self, number: int) -> str:
        """Return the taskhash of a task."""
        return self._digest("taskhash", number)

    def unihash(self, number: int) -> str:
        """Return the unihash that is reported of a task."""
        return self._digest("unihash", number)

    def absent(self, number: int) -> str:
        """Return a hash that nobody ever reports."""
        return self._digest("absent", number)

    def lookup(self, taskhash: str) -> bytes:
        """Return the line of get-stream for a taskhash."""
        return f"{self.method} {taskhash}\n".encode()

    def report(self, number: int) -> bytes:
        """Return the request that reports a task, with the columns that BitBake fills."""
        self.reported += 1
        report = {
            "method": self.method,
            "taskhash": self.taskhash(number),
            "outhash": self._digest("outhash", number),
            "unihash": self.unihash(number),
            "owner": None,
            "PN": "hashserv-bench",
            "PV": "1.0",
            "PR": "r0",
            "task": "do_bench",
        }
        return msgspec.json.encode({"report": report}) + b"\n"

    def mapping(self, number: int) -> bytes:
        """Return the reply to that report, as `canonical` has it.

        Nobody else reports the outhash, so that what was reported holds (PROTOCOL.md §8.1).
        """
        mapping = Mapping(self.method, self.taskhash(number), self.unihash(number))
        return msgspec.json.encode(mapping)

    def _digest(self, what: str, number: int) -> str:
        return hashlib.sha256(f"{self._seed} {what} {number}".encode()).hexdigest()


def canonical(line: bytes) -> bytes:
    """Return a reply of message mode as all servers' replies compare: keys sorted, no spaces."""
    try:
        return msgspec.json.encode(msgspec.json.decode(line), order="sorted")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return line
