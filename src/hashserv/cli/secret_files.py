"""Passwords in files, which no list of processes shows."""

import sys
from pathlib import Path

from hashserv.errors import SettingsError


def first_line(name: str) -> str:
    """Return the first line of a file, without its end.

    Args:
        name: The file; ``-`` is standard input.

    Raises:
        SettingsError: It can't be read, or its first line is empty.
    """
    try:
        text = sys.stdin.readline() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f"The password file {name} can't be read: {reason}") from error
    line = text.partition("\n")[0].rstrip("\r")
    if not line:
        raise SettingsError(f"The password file {name} has no password in its first line")
    return line
