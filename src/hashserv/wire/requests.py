"""Requests and the lines of stream modes, read (PROTOCOL.md §5, §6). No I/O."""

from typing import Final

import msgspec

from hashserv.errors import InvokeError, ProtocolError
from hashserv.wire.commands import COMMANDS, Command, GcMark

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
        raise ProtocolError(f"{_shown(line)} is not a method and a taskhash")
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
        raise ProtocolError(f"{_shown(line)} is no UTF-8") from None
    if "\0" in text:
        raise ProtocolError(f"{_shown(line)} holds NUL")
    return text


def _shown(line: bytes) -> str:
    """Return the beginning of a line as it can go into a log or an error.

    What begins as a message does may hold a token, sent at the wrong time.
    """
    if line.lstrip().startswith(b"{"):
        return f"a message of {len(line)} bytes"
    return ascii(line[:_SHOWN_BYTES].decode(errors="replace"))


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
