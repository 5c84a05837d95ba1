"""What goes wrong with an upstream, in words for the log, and how bad it is."""

from typing import Final, NamedTuple

from hashserv.errors import (
    AddressError,
    ConnectionClosedError,
    HashservError,
    InvokeError,
    ProtocolError,
)
from hashserv.transport.tls import TlsError

MOST_TEXT: Final = 200
"""Characters of a peer's words that go into a log line."""

BROKEN: Final = (OSError, ConnectionClosedError)
"""What a connection raises that broke: another one may do better."""


class UnusableUpstreamError(HashservError):
    """The upstream can be reached, and is none for us; the message says why."""


class ClosedInHandshakeError(ConnectionClosedError):
    """The upstream closed the connection before it answered anything."""


class Cause(NamedTuple):
    """Why a batch of questions has no answers."""

    words: str
    lasting: bool
    """Whether asking again at once makes no sense: it broke no mere connection."""

    refused: bool = False
    """Whether somebody must change something first, a token or an address."""


def shown(text: object) -> str:
    """Return a peer's words as they may stand in a log line: escaped, and cut."""
    words = ascii(str(text)[: MOST_TEXT + 1])[1:-1]
    return words if len(words) <= MOST_TEXT else words[: MOST_TEXT - 3] + "..."


def explain(error: Exception, *, timeout: float, secret: str | None = None) -> Cause:
    """Say in words why an upstream gave no answers.

    Args:
        error: What asking it raised.
        timeout: The seconds that it had.
        secret: What must not go into the words, whoever sends it back to us.
    """
    text = str(error)
    if secret:
        text = text.replace(secret, "(the token)")
    text = shown(text)
    match error:
        case UnusableUpstreamError() | AddressError():
            return Cause(text, lasting=True, refused=True)
        case ProtocolError():
            return Cause(f"it answers nonsense: {text}", lasting=True)
        case InvokeError():
            return Cause(f"it refuses a question: {text}", lasting=True)
        case TlsError():  # before OSError, which it is, and so is the next
            return Cause(f"TLS fails: {text}", lasting=True)
        case TimeoutError():
            return Cause(f"time-out: no answer within {timeout:g} s", lasting=True)
        case OSError() | ConnectionClosedError():
            return Cause(_explain_broken(error, text), lasting=False)
        case _:
            return Cause(f"unexpected {type(error).__name__}: {text}", lasting=True)


def _explain_broken(error: OSError | ConnectionClosedError, text: str) -> str:
    match error:
        case ClosedInHandshakeError():
            return "it closes the connection in the handshake"
        case ConnectionClosedError():
            return "it closes the connection instead of answering"
        case ConnectionRefusedError():
            return f"connection refused: {text}"
        case _:
            return f"the connection breaks: {text}"
