"""Every command, declared once: its name, its arguments, what it needs (PROTOCOL.md §5).

The arguments of a command are a class; decoding a request gives an instance of it. What a
request may hold is said by the fields' types, so that a wrong request is refused with the
name of the field, before any rule sees it.
"""

from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta, Struct

from hashserv.errors import InvokeError, ProtocolError
from hashserv.model import DB_ADMIN, READ, REPORT

Permissions = frozenset[str]

Word = Annotated[str, Meta(pattern=r"\A\S+\Z")]
"""A method, taskhash or outhash: text without white space."""

Where = dict[str, str | None]

_READING: Final = frozenset({READ})
_REPORTING: Final = frozenset({READ, REPORT})
_ADMINISTERING: Final = frozenset({DB_ADMIN})


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


# The account commands (auth … delete-user) join this table with the accounts themselves.
COMMANDS: Final[dict[str, type[Command]]] = {
    command.name: command
    for command in (
        Ping,
        Get,
        GetOuthash,
        GetStream,
        ExistsStream,
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
    )
}

_ENVELOPE: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARGUMENTS: Final = {name: msgspec.json.Decoder(command) for name, command in COMMANDS.items()}
_SHOWN_BYTES: Final = 80
"""How much of a wrong line an error shows."""

_MARK_LINE: Final = msgspec.json.Decoder(GcMark)


def decode_request(text: bytes) -> Command:
    """Read a request: an object with one command and its arguments.

    Where an object has several keys, the first that is a command counts, as in the reference.
    The arguments of a command that has none may be anything.

    Raises:
        InvokeError: The text is no JSON, no request, an unknown command, or its arguments are
            missing or of the wrong type; the message says which and where.
    """
    try:
        envelope = _ENVELOPE.decode(text)
    except msgspec.ValidationError as error:
        raise InvokeError(f"A request is an object with one command: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvokeError(f"Could not decode the request: {error}") from None
    name = next((key for key in envelope if key in COMMANDS), None)
    if name is None:
        given = ", ".join(f"'{key[:40]}'" for key in list(envelope)[:5]) or "none"
        raise InvokeError(f"Unknown command: {given}")
    command = COMMANDS[name]
    if not command.__struct_fields__:
        return command()
    try:
        arguments = _ARGUMENTS[name].decode(envelope[name])
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvokeError(f"Invalid arguments of '{name}': {error}") from None
    except RecursionError:
        raise InvokeError(f"Invalid arguments of '{name}': nested too deep") from None
    _refuse_nul(name, text, arguments)
    return arguments


def decode_mark_line(line: bytes) -> GcMark:
    """Read a line of gc-mark-stream, with the reference's words for what is wrong with it.

    Raises:
        InvokeError: The line is no JSON, or lacks a key, or has a value of the wrong type.
    """
    text = line[:_SHOWN_BYTES].decode(errors="replace")
    try:
        keys = _ENVELOPE.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvokeError(f"Could not decode JSONL input '{text}'") from None
    for key in GcMark.__struct_fields__:
        if key not in keys:
            raise InvokeError(f"Input line is missing key ''{key}'' ")
    try:
        mark = _MARK_LINE.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvokeError(f"Invalid input line '{text}': {error}") from None
    _refuse_nul("gc-mark-stream", line, mark)
    return mark


def decode_lookup(line: bytes) -> tuple[str, str]:
    """Read a line of get-stream: method and taskhash.

    Raises:
        ProtocolError: The line is something else. Replies being plain text, it can't be told.
    """
    words = _decode_line(line).split()
    if len(words) != 2:
        raise ProtocolError(f"'{_shown(line)}' is not a method and a taskhash")
    return words[0], words[1]


def decode_existence(line: bytes) -> str:
    """Read a line of exists-stream: what may be a unihash.

    Raises:
        ProtocolError: The line is no text.
    """
    return _decode_line(line)


def _decode_line(line: bytes) -> str:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise ProtocolError(f"'{_shown(line)}' is no UTF-8") from None
    if "\0" in text:
        raise ProtocolError(f"'{_shown(line)}' holds NUL")
    return text


def _shown(line: bytes) -> str:
    """Return the beginning of a line as it can go into a log."""
    return ascii(line[:_SHOWN_BYTES].decode(errors="replace"))[1:-1]


def _refuse_nul(name: str, text: bytes, arguments: Command) -> None:
    """Refuse NUL in any text: it ends the text early in some databases.

    In JSON it can only stand as an escape, so that requests without one are not searched.
    """
    if b"\\u0000" in text and _holds_nul(msgspec.to_builtins(arguments)):
        raise InvokeError(f"Invalid arguments of '{name}': a text holds NUL")


def _holds_nul(value: object) -> bool:
    if isinstance(value, dict):
        return any(_holds_nul(part) for item in value.items() for part in item)
    return isinstance(value, str) and "\0" in value
